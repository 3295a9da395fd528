# SPDX-License-Identifier: Apache-2.0
"""Holds the cordons in one queue to what its Agents wish, each time that the queue is sampled.

The orders themselves are in the queue's Redis, so nothing depends on this memory: what should be cordoned and is not,
is; what the operator has cordoned and an Agent wants back, is let go. Instances of which no Agent has said anything
yet, as after a restart of the operator, stay as they are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import InstanceInfo

CORDONED_BY = "operator"
"""Under this name the operator cordons; others may do so for reasons of their own, which it leaves alone."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an Agent wants of its queue."""

    cordoned: frozenset[str] = frozenset()
    """Its pods that are to take nothing new."""
    free: frozenset[str] = frozenset()
    """Its pods that are to take tasks."""
    counts: bool = False
    """Whether it wants to hear of each change of what waits."""
    wakes: bool = False
    """Whether it wants to hear at once of the first task."""


class Cordons:
    """The cordons of one queue. Remembers since which heartbeat an instance has been cordoned for certain."""

    def __init__(self) -> None:
        self._before: dict[str, datetime | None] = {}
        """Instance that was cordoned -> its last heartbeat before that; None if it had sent none."""

    async def hold(
        self, queue: TaskQueue, known: Mapping[str, InstanceInfo], wishes: Collection[Wish]
    ) -> frozenset[str]:
        """Cordon and let go. Returns which of those cordoned have said since that they work on nothing.

        Raises QueueUnavailableError.
        """
        wanted = frozenset[str]().union(*(wish.cordoned for wish in wishes))
        free = frozenset[str]().union(*(wish.free for wish in wishes)) - wanted
        ours = {name for name, one in known.items() if CORDONED_BY in one.cordoned_by}
        lifted = (ours | self._before.keys()) & free
        if lifted:
            await queue.uncordon(sorted(lifted), by=CORDONED_BY)
        self._before = {name: beat for name, beat in self._before.items() if name in wanted}
        vacated = {name for name in wanted & self._before.keys() if self._has_vacated(name, known.get(name))}
        missing = {name for name in wanted if name not in self._before or (name in known and name not in ours)}
        if missing:
            await queue.cordon(sorted(missing), by=CORDONED_BY)
            for name in missing:
                self._before[name] = known[name].last_beat_at if name in known else None
        return frozenset(vacated - missing)

    def _has_vacated(self, name: str, now: InstanceInfo | None) -> bool:
        if now is None:  # it has left, or never was there: the queue gives it nothing
            return True
        before = self._before[name]
        return now.cordoned and now.running == 0 and (before is None or now.last_beat_at > before)
