# SPDX-License-Identifier: Apache-2.0
"""What one Agent has to do, according to a sample of its queue.

Tasks that several Agents of a queue take are shared among those that are not put to rest: each one is in the share of
exactly one Agent, so that a single task does not start a replica of each. The Agents share by turns in the order of
their names. Who is late with its share is helped out: `within_reach` counts all tasks that the Agent could take, and
together with the age of the oldest one it says when to.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from kubeagents_api.task import InstanceInfo, QueueStats


@dataclass(frozen=True, slots=True, order=True)
class Taker:
    """An Agent of a queue that is not put to rest."""

    namespace: str
    name: str
    capabilities: frozenset[str] = frozenset()

    def takes(self, target: str, pods: Iterable[str]) -> bool:
        """Whether a task for that target may go to it; `pods` are its own."""
        kind, _, name = target.partition("/")
        if not target:
            return True
        if kind == "agent":
            return name == self.name
        if kind == "capability":
            return name in self.capabilities
        return kind == "instance" and name in pods


@dataclass(frozen=True, slots=True)
class Demand:
    """What there is to do for one Agent."""

    waiting: int
    """Its share of the tasks that wait."""
    within_reach: int
    """All waiting tasks that it could take."""
    running: int
    """Tasks that its pods work on."""
    slots: int
    """Tasks that the pods which take any could work on at the same time."""
    oldest_at: datetime | None
    """When the oldest waiting task within reach was submitted, if there is one."""
    paused: bool = False
    """Nobody is given tasks of the queue now."""

    @property
    def utilization(self) -> float:
        """The share of the slots that are in use; all of them if there are none."""
        return self.running / self.slots if self.slots else 1.0

    def is_idle(self) -> bool:
        """There is nothing to do."""
        return not self.waiting and not self.running


def demand_of(
    me: Taker,
    *,
    takers: Iterable[Taker],
    pods: frozenset[str],
    stats: QueueStats,
    instances: Iterable[InstanceInfo],
    alone: bool = False,
    most: int | None = None,
) -> Demand:
    """What there is to do for an Agent.

    `takers` are the Agents of its queue, `pods` its own; it is `alone` if nobody else has a process on the queue. At
    `most` so many tasks of the queue run at the same time: those that could not start are no reason for a replica.
    """
    order = sorted({*takers, me})
    waiting = within_reach = 0
    since: list[datetime] = []
    for target, count in stats.waiting.items():
        if not me.takes(target, pods):
            continue
        within_reach += count
        if target in stats.waiting_since:
            since.append(stats.waiting_since[target])
        sharing = [me] if target.startswith("instance/") else [one for one in order if one.takes(target, ())]
        waiting += _share(count, sharing.index(me), len(sharing))
    if most is not None:  # one at least: who is not there could not take a place that becomes free
        waiting = min(waiting, max(1, most - stats.running))
    ours = [one for one in instances if one.instance in pods]
    return Demand(
        waiting=waiting,
        within_reach=within_reach,
        running=_running(stats, ours, alone=alone),
        slots=sum(one.concurrency for one in ours if one.healthy and not one.draining and not one.cordoned_by),
        oldest_at=min(since, default=None),
        paused=bool(stats.paused_by),
    )


def _running(stats: QueueStats, ours: list[InstanceInfo], *, alone: bool) -> int:
    """The queue's own figure is exact; heartbeats say whose tasks they are, but are older, or even younger: what began
    while the sample was taken still waits in the figures."""
    if alone and ours:
        return stats.running
    return min(stats.running, sum(one.running for one in ours))


def _share(count: int, place: int, among: int) -> int:
    return count // among + (1 if place < count % among else 0)
