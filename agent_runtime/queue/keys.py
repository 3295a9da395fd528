# SPDX-License-Identifier: Apache-2.0
"""The names of everything that a queue keeps in Redis. All share one hash tag, so a cluster keeps them together."""

from dataclasses import dataclass
from typing import Final

ANY_LANE: Final = ""
"""The lane of tasks that any Agent of the queue may do."""


def agent_lane(agent: str) -> str:
    """The lane of tasks that only this Agent may do."""
    return f"a:{agent}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one queue.

    name        type     what
    t:<id>      string   the record of a task: {"task":{…}}, and once final {"task":{…},"outcome":{…}}
    ready:      zset     lane "": ids by place (priority, then arrival); ready:a:<agent> likewise for one Agent
    wake:       list     the bell of lane "": at most one token; wake:a:<agent> likewise
    lanes       set      names of the lanes of Agents that may hold something
    scheduled   zset     ids by due time, ms
    leases      zset     ids of running tasks by the end of their lease, ms
    running     hash     id -> who holds it
    history     hash     id -> attempts spent and failures; only tasks that have failed and are not final
    dead        zset     ids of dead tasks by time of death, ms
    totals      hash     succeeded, failed
    sequence    string   how many tasks have ever been submitted
    instances   zset     agent processes by their last heartbeat, ms
    beats       hash     agent process -> its last heartbeat
    done        channel  ids of tasks that have become final, separated by spaces
    """

    namespace: str
    queue: str

    def name(self, part: str) -> str:
        """The full name of a key. For `ready` and `wake` it is also the prefix of the lanes' keys."""
        root = f"ka:{{{self.namespace}/{self.queue}}}:"
        return root + {"records": "t:", "ready": "ready:", "wake": "wake:"}.get(part, part)

    def record(self, task_id: str) -> str:
        """Where the record of a task is."""
        return self.name("records") + task_id

    def bell(self, lane: str) -> str:
        """What idle workers of a lane block on."""
        return self.name("wake") + lane
