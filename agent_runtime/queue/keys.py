# SPDX-License-Identifier: Apache-2.0
"""The names of everything that a queue keeps in Redis. All share one hash tag, so a cluster keeps them together."""

from dataclasses import dataclass
from typing import Final

_PREFIXES: Final = {
    "records": "t:",
    "ready": "ready:",
    "wake": "wake:",
    "lines": "line:",
    "kids": "kids:",
    "parents": "parents:",
    "chunks": "chunk:",
    "keyed": "key:",
    "said": "said:",
}
"""Parts that stand for many keys: what their names begin with."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one queue.

    name        type     what
    t:<id>      string   the record of a task: {"task":{…}}, and once final {"task":{…},"outcome":{…},"cut":…}
    ready:      zset     lane "": ids by place (priority, then arrival); ready:<lane> likewise for the other lanes,
                         which are a:<agent>, c:<capability> and i:<instance>; a tenant with tasks is a member @<tenant>
    wake:       list     the bell of lane "": at most one token; wake:<lane> likewise
    lanes       set      names of the other lanes that may hold something
    line:<line> zset     ids that wait behind a tenant's place in a lane, by place; a line is <tenant>@<lane>
    lined       set      lines that hold something
    parked      zset     lines whose tenant is at a limit, by when it may go on, ms (inf: when a task has ended)
    positions   hash     parked line -> the place that its tenant had in the lane
    tenants     hash     tenant -> how many of its tasks run
    rates       zset     tenant, or "" for the whole queue, by the time up to which its starts are paid for, ms
    scheduled   zset     ids by due time, ms
    leases      zset     ids of running tasks by the end of their lease, ms
    deadlines   zset     ids of tasks that are not final by their deadline, ms
    running     hash     id -> who holds it
    history     hash     id -> attempts, place, failures; of tasks that have failed, wait for their time or for others
    blocked     hash     id -> how many tasks it waits for
    kids:<id>   set      ids of tasks that wait for this one
    parents:<id> hash    id of a task that this one depends on -> its outcome
    heirs       hash     blob of a large result -> how many tasks may still ask for it as that of a parent
    progress    hash     id of a running task -> how far it is
    said:<id>   stream   what a running task has said
    chunk:<blob>:<n> string  a part of a large payload or result
    key:<key>   string   id of the task with this idempotency key
    schedules   hash     schedule -> the last due time that it fired for, ms
    dead        zset     ids of dead tasks by time of death, ms
    totals      hash     submitted, replayed, succeeded, failed, cancelled, expired, lost (their records were evicted)
    sequence    string   the last place that was given
    gates       hash     "claims <by>" or "submissions <by>" -> since when it is shut, ms
    capped      string   a worker found the queue's limit of running tasks reached
    full        string   a submission waits for room
    room        list     the bell of submissions that wait for room
    events      stream   what happened
    instances   zset     agent processes by their last heartbeat, ms
    beats       hash     agent process -> its last heartbeat
    cordons     hash     agent process that is to take nothing new -> JSON: who wants it so -> since when, ms
    interfaces  hash     digest -> since when, ms, a space, and what an Agent says about itself
    described   zset     these digests by the last heartbeat that named them, ms
    done        channel  ids of tasks that have become final, separated by spaces
    revoked     channel  id of a running task that was taken away from its worker; or @<agent process> for each one
                         that has new orders, separated by spaces
    saying      channel  id of a task that has said something
    """

    namespace: str
    queue: str

    def name(self, part: str) -> str:
        """The full name of a key. For parts that stand for many keys it is their prefix."""
        return f"ka:{{{self.namespace}/{self.queue}}}:" + _PREFIXES.get(part, part)

    def record(self, task_id: str) -> str:
        """Where the record of a task is."""
        return self.name("records") + task_id

    def bell(self, lane: str) -> str:
        """What idle workers of a lane block on."""
        return self.name("wake") + lane

    def said(self, task_id: str) -> str:
        """What a task has said."""
        return self.name("said") + task_id

    def chunk(self, blob: str, number: int) -> str:
        """A part of a large payload or result, counted from 1."""
        return f"{self.name('chunks')}{blob}:{number}"
