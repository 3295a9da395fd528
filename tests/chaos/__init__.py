# SPDX-License-Identifier: Apache-2.0
"""The chaos proof: whatever is killed, frozen, cut or restarted, the queue keeps its promises. `make chaos` plays it.

How it goes
    A run is a series of rounds (`scenes`), chosen by the dice of one seed. Each has a Redis of its own (`storage`) and
    real processes (`crew`): producers that submit and repeat what they do not know to have arrived, workers that claim
    and settle, in some rounds real agents. Meanwhile faults are injected (`faults`, `failover`), on purpose at bad
    moments: a worker is killed while it holds tasks, a connection breaks in the midst of a reply. Then all is calm, the
    work is finished, and the checker judges. A seed plays the same rounds with the same tasks and faults again; what
    meets what in which millisecond is never the same.

Whose word counts
    Not the queue's own. Each process writes down what it is about to do and what it was told, in a journal that
    survives its death (`evidence`). The `checker` compares the journals with one another, with what the queue says in
    the end about each task, and with its events. It knows what may innocently be unknown, so a finding is never a
    maybe. It is tested with forged journals, and by breaking the queue on purpose (tests/integration/queue/
    test_chaos.py).

What is shown
    - No acknowledged task is lost: each is in exactly one final state in the end, and all batches are whole.
    - It ends once: no two endings are accepted, nothing begins after the end, events say the same.
    - An attempt that is not the newest one changes nothing: what frozen workers send after their lease is refused.
    - Priority is strict, and first in, first out inside one, also for tasks that come back.
    - Work of a dead worker goes on by itself. Delays, dependencies, cancellations and replays hold through all of it.

What it rests on
    `appendfsync always`: with it Redis answers after it has written, so SIGKILL takes nothing back that was
    acknowledged. For replicas: clients that wait for all of them. docs/explanation/guarantees.md says what is promised
    under which settings.
"""
