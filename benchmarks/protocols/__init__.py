# SPDX-License-Identifier: Apache-2.0
"""`make bench-protocols`: what a protocol of the CentralAgent costs, beside a bare server of the same kind.

    wires/      light clients: sockets and just enough of each wire, so that the client is not what is measured
    load        the client's process: connections that are never idle, or a steady rate
    exchanges   what is said on each protocol, for a submission and for a submission with its result
    bare/       the servers to compare with: FastAPI, grpc.aio, websockets and pyzmq, as their documentation teaches
    stage       the processes of a run: Redis, the CentralAgent, an Agent, the bare servers
    rounds      in turns, so that a busy moment of the machine hits all; medians
    report      ratios, targets, Markdown

What is compared
- Submit: a task with a payload of 100 bytes, which ours checks, writes to Redis and acknowledges with id and state. The
  bare server checks the same body with a model of two fields, and answers with the same; it keeps nothing. So the
  ratio is what is left of the framework's rate after the work that somebody else would still have to write. Nobody
  takes the tasks meanwhile; Redis is emptied before each measurement. Bare websockets is an echo that checks nothing.
- MCP and A2A ride on HTTP with JSON-RPC inside: they are held against the same bare FastAPI, which does not have to
  take JSON-RPC apart.
- Submit to result: an Agent with an echo handler is there; the clock stops with the result at the client. At each
  number of connections as fast as it goes, and at a steady 200/s, where the clock starts when a task was due, also if
  all connections were busy.
- `ratios`: the best rate of ours over all numbers of connections to the best rate of the bare server, which is how much
  of its capacity is left; `ratios_by_connections` has the single ones. With one connection a ratio is one of latencies:
  ours has a round trip to Redis in it, which the bare server does not have. Rates are medians of rounds, in which both
  sides were measured one right after the other.
- One process each: a CentralAgent is one event loop, and so is a bare server. The client is another process; what
  share of a core it took stands beside each figure, so that one can see that it was not the limit.
"""
