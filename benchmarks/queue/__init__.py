# SPDX-License-Identifier: Apache-2.0
"""`make bench-queue`: Kubeagents beside the task queues that people use, in one run, on one Redis and one machine.

    contenders     who takes part, and how each says what it has not acknowledged yet
    environments   one isolated environment for each, from pins with hashes: their redis clients exclude each other
    peers/         one small program for each, all with the command line of `peers.contract`
    processes      the server, the programs, and what can be seen of them from outside
    rounds         one round of one contender: all its figures
    comparison     rounds in turns, so that a busy moment of the machine hits all; medians; who failed, and why
    ratios         ours to the best of the others, beside the targets
    growth         ours alone: deep queues, more workers, larger payloads, memory for each task
    report, plot   the same as Markdown and as a picture, under docs/benchmarks/

What all have in common
- The task does nothing; its payload is a string of 100 bytes, its result the number 1. Acknowledged after the handler
  (at least once), results stored where the queue can; settings that its documentation names as fast; uvloop where it
  can be had; no logs. What was set is in each program.
- One private server without persistence, with an empty keyspace before each measurement. TCP on the loopback device.
- A handler counts what it does in 8 bytes of shared memory, nothing else: so the work is seen from outside, alike for
  all, and without a word to Redis.
- A drain is measured while all workers are at work: from the moment when each has taken part and a tenth of the tasks
  are done, until the last one is acknowledged. Starting a process is not part of it. End to end is the time from the
  first submission, with workers that wait, to the last acknowledgement.
- Commands are those that the server counted, commands inside of scripts included. Its processor time is from INFO.
"""
