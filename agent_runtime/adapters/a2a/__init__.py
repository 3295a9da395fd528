# SPDX-License-Identifier: Apache-2.0
"""The adapter for A2A 1.0, by which agents of other makes call ours.

    card    GET  /.well-known/agent-card.json            the CentralAgent: a message goes to any Agent
            GET  /a2a/<address>/.well-known/agent-card.json
    calls   POST /a2a/<address>                           JSON-RPC, streams as server-sent events
            POST /a2a/<address>/message:send and so on    HTTP+JSON
            lf.a2a.v1.A2AService                          gRPC, the address is the tenant

What is guaranteed
    A message is a task, and the answer is that task: nothing is kept beside it, so every replica can answer every call
    about it, and a call that was lost in a pod that died can be repeated at another one. A message that is sent again
    (same messageId, same sender, same receiver) is the same task, as long as the TaskQueue's `deduplicationSeconds`.
    A stream begins with what the task has said so far; one that ends without a final state was cut: subscribe again.
    Our state is in the metadata of each task, with what else A2A has no place for.

    Push notifications are posted at least once and in order, whatever becomes of the pod that posts them (push.py).

What there is not
    Several messages to one task: tasks take no input while they run. Lists of tasks. A2A 0.3.
"""
