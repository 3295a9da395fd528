# SPDX-License-Identifier: Apache-2.0
"""Do those who say that they are alive also take tasks?

A process may send heartbeats for days and take nothing: its claim loop has died, or its claims are never answered. So
each sample of a queue is held against the ones before it, in two ways:

- **By claims.** A heartbeat has the time at which the queue last answered a claim of the process (or there was no room
  for more). That is by another machine's clock, so it is not compared with ours: what counts is for how long we have
  not seen it change. Claims wait for five seconds at most, also on a queue that is empty or paused.
- **By tasks.** Tasks wait, processes that take them have room, and none of them begins or ends any for a while. This
  needs no word of theirs. A queue with limits on rates or on what may run is left out: there, waiting is normal.

Both take a while to begin and end with the next sign of life. Processes that were told to take nothing (cordoned), or
that stop, are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from kubeagents_api.limits import QueueLimits
from kubeagents_api.task import InstanceInfo, QueueStats

CLAIM_GRACE: Final = 30.0
"""Seconds on top of the age from which on a heartbeat counts as missed, until claims count as unanswered."""
STANDSTILL_SECONDS: Final = 60.0
"""For so long nothing has to move until that is no coincidence."""


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a sample says about who takes tasks."""

    unanswered: Mapping[float, frozenset[str]] = field(default_factory=dict)
    """Threshold (of heartbeats) -> the instances whose claims have not been answered for longer than that, and grace.
    """
    unproven: frozenset[str] = frozenset()
    """Instances of which no answered claim has been seen, or not since we look."""
    idle: frozenset[str] = frozenset()
    """Instances with room that leave tasks waiting which are for them."""

    def of(self, instance: str) -> object:
        """What it says about one instance."""
        late = tuple(threshold for threshold, names in sorted(self.unanswered.items()) if instance in names)
        return late, instance in self.unproven, instance in self.idle


@dataclass(slots=True)
class _Claims:
    """What is known of one process."""

    started_at: datetime
    answered_at: datetime | None
    changed: float
    """When that was seen to change, by our clock."""
    proven: bool
    """An answer is known that came while we looked."""
    moved: tuple[int, int, int]
    """What it runs, and how many attempts of it have ended."""


class Witness:
    """Compares the samples of one queue. It begins to know nothing: what stood in the status stays until it does."""

    def __init__(self) -> None:
        self._known: dict[str, _Claims] = {}
        self._looked = False
        self._standing: dict[str, float] = {}
        """Target -> since when nothing that waits for it is taken."""

    def look(
        self,
        instances: Sequence[InstanceInfo],
        stats: QueueStats,
        *,
        thresholds: Iterable[float],
        limits: QueueLimits,
        now: float,
    ) -> Consumption:
        """Take in a sample. `now` is a monotonic time."""
        takers = [one for one in instances if one.takes_tasks]
        before = {name: known.moved for name, known in self._known.items()}
        self._known = {one.instance: self._claims(one, now) for one in takers}
        self._looked = True
        ages = {name: now - known.changed for name, known in self._known.items()}
        return Consumption(
            unanswered={
                threshold: frozenset(name for name, age in ages.items() if age > threshold + CLAIM_GRACE)
                for threshold in thresholds
            },
            unproven=frozenset(name for name, known in self._known.items() if not known.proven),
            idle=self._idle(takers, stats, before, limits=limits, now=now),
        )

    def _claims(self, one: InstanceInfo, now: float) -> _Claims:
        known = self._known.get(one.instance)
        moved = (one.running, one.succeeded, one.failed)
        if known is None or known.started_at != one.started_at:
            # Whoever comes while we look has claimed while we look.
            proven = self._looked and one.claimed_at is not None
            return _Claims(one.started_at, one.claimed_at, now, proven, moved)
        if one.claimed_at != known.answered_at:
            return _Claims(one.started_at, one.claimed_at, now, True, moved)
        return _Claims(one.started_at, one.claimed_at, known.changed, known.proven, moved)

    def _idle(
        self,
        takers: Sequence[InstanceInfo],
        stats: QueueStats,
        before: Mapping[str, tuple[int, int, int]],
        *,
        limits: QueueLimits,
        now: float,
    ) -> frozenset[str]:
        waiting = set() if stats.paused_by or _limited(limits) else {name for name, n in stats.waiting.items() if n}
        standing: dict[str, float] = {}
        idle: set[str] = set()
        for target in waiting:
            able = [one for one in takers if _takes(one, target)]
            moved = any(before.get(one.instance) != self._known[one.instance].moved for one in able)
            free = {one.instance for one in able if one.running < one.concurrency}
            if moved or not free:
                continue
            standing[target] = self._standing.get(target, now)
            if now - standing[target] >= STANDSTILL_SECONDS:
                idle |= free
        self._standing = standing
        return frozenset(idle)


def _takes(one: InstanceInfo, target: str) -> bool:
    kind, _, name = target.partition("/")
    match kind:
        case "":
            return True
        case "agent":
            return name == one.agent
        case "capability":
            return name in one.capabilities
        case _:
            return name == one.instance


def _limited(limits: QueueLimits) -> bool:
    tenant = limits.per_tenant
    return any(limit is not None for limit in (limits.rate, limits.concurrency, tenant.rate, tenant.concurrency))
