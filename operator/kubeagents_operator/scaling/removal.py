# SPDX-License-Identifier: Apache-2.0
"""Which pods go when there are too many, and when: none while it works, up to drainSeconds.

    stays ──chosen──► leaving ──the queue gives it nothing more, and it has finished──► may go ──► gone
      ▲                  │  └──────── or drainSeconds have passed ───────────────────►   │
      └── needed again ──┘  ◄──────────────── needed again ──────────────────────────────┘

A pod that is leaving has the annotation LEAVING_SINCE and is cordoned in the queue; one that may go has a deletion cost
below all others in addition. Only then are the Deployment's replicas lowered, by exactly as many as may go, so that the
ReplicaSet takes these. Everything is kept on the pods and in the queue: an operator that starts in the midst goes on.

Those that are not ready are chosen first, then those that work on nothing, then those that are leaving already, then
those that work on the fewest tasks, then the youngest. The choice is made anew each time: a pod that becomes idle goes
in place of one that was chosen while all were busy, and that one takes tasks again.

A pod that goes though it is busy is told by SIGTERM and has drainSeconds to finish; what is left goes back to the queue
without costing an attempt. The same holds during a rolling update: the Deployment decides then which pods of which
version go, so replicas follow at once and nothing is cordoned. During a step of a canary, which may last for days, each
of the two Deployments gives up pods of its own by the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kubeagents_api.task import InstanceInfo
from kubeagents_operator.observed import DELETION_COST, LEAVING_SINCE, Pod
from kubeagents_operator.status.conditions import format_time, parse_time

FIRST_TO_GO = "-1000000"
"""A deletion cost below all others: pods without one have 0."""

Marks = Mapping[str, str | None]
"""Annotations to set on a pod; None removes one."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be done so that the pods that are too many go."""

    kept: int
    """The replicas that the Deployment has for now."""
    leaving: frozenset[str] = frozenset()
    """Pods that are to take nothing new."""
    staying: frozenset[str] = frozenset()
    """Pods that are to take tasks."""
    marks: Mapping[str, Marks] = field(default_factory=dict)
    """Annotations of pods that have to be written before the replicas change."""
    busy: tuple[str, ...] = ()
    """Those that are leaving and still work."""
    again: float | None = None
    """Seconds after which the patience with one of them ends."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The pods of an Agent, and what its queue says of them."""

    pods: Sequence[Pod]
    have: int | None
    """The Deployment's replicas; None if there is none."""
    template: str | None
    """Digest of the Deployment's pod template."""
    instances: Mapping[str, InstanceInfo]
    """By name; empty while the queue cannot be asked."""
    vacated: frozenset[str]
    """Those that have finished, and said so after they were cordoned."""

    def active(self) -> list[Pod]:
        """The pods that count as replicas."""
        return [pod for pod in self.pods if not pod.deleting and not pod.finished]

    def running(self, name: str) -> int:
        """How many tasks a pod works on, by its last heartbeat."""
        return self.instances[name].running if name in self.instances else 0

    def rolling(self) -> bool:
        """Pods of several versions are there."""
        return any(pod.template != self.template for pod in self.active())


def plan_removal(crew: Crew, *, wanted: int, drain_seconds: float, now: datetime) -> Removal:
    """What to do now so that in the end there are as many as wanted."""
    active = crew.active()
    names = frozenset(pod.name for pod in active)
    if crew.have is None or crew.rolling():
        return Removal(kept=wanted, staying=names, marks=_unmarked(active))
    chosen = _chosen(active, crew, wanted)
    leaving = frozenset(pod.name for pod in chosen)
    patience = {pod.name: _left(pod, drain_seconds, now) for pod in chosen if pod.name not in crew.vacated}
    waiting = {name: left for name, left in patience.items() if left > 0}
    marks = {pod.name: _marked(pod, going=pod.name not in waiting, now=now) for pod in chosen}
    # The ReplicaSet's controller sees the cost at about the time we do: lowered at once, it might take another pod.
    seen_going = [pod for pod in chosen if pod.name not in waiting and pod.deletion_cost == FIRST_TO_GO]
    return Removal(
        kept=max(wanted, min(crew.have, len(active) - len(seen_going))),
        leaving=leaving,
        staying=names - leaving,
        marks={
            **_unmarked([pod for pod in active if pod.name not in leaving]),
            **{name: made for name, made in marks.items() if made},
        },
        busy=tuple(sorted(name for name in waiting if crew.running(name))),
        again=min(waiting.values(), default=None),
    )


def plan_shared_removal(
    crews: Sequence[Crew], split: Callable[[int], Sequence[int]], *, wanted: int, drain_seconds: float, now: datetime
) -> Removal:
    """The same for an Agent whose pods are those of several Deployments. `split` says what each has of a number of
    replicas; `kept` is the number of all, and the least of which each keeps what it has to."""
    made = [
        plan_removal(crew, wanted=share, drain_seconds=drain_seconds, now=now)
        for crew, share in zip(crews, split(wanted), strict=True)
    ]
    most = max(wanted, sum(crew.have or 0 for crew in crews))
    fewest = max(wanted, sum(one.kept for one in made) - len(made))  # a single replica counts in each of them
    enough = (
        number
        for number in range(fewest, most + 1)
        if all(share >= one.kept for share, one in zip(split(number), made, strict=True))
    )
    return Removal(
        # If none fits, the Deployments are on their way to the shares of a step: they choose, as in an update.
        kept=next(enough, wanted),
        leaving=frozenset[str]().union(*(one.leaving for one in made)),
        staying=frozenset[str]().union(*(one.staying for one in made)),
        marks={name: marks for one in made for name, marks in one.marks.items()},
        busy=tuple(sorted(name for one in made for name in one.busy)),
        again=min((one.again for one in made if one.again is not None), default=None),
    )


def _chosen(active: Sequence[Pod], crew: Crew, wanted: int) -> list[Pod]:
    """The pods that are to go: those that the Deployment has too many, and ours that it has not taken yet."""
    have = crew.have or 0
    condemned = sum(pod.deletion_cost == FIRST_TO_GO for pod in active)
    under_way = min(condemned, max(0, len(active) - have))
    surplus = max(0, min(len(active), have) - wanted)
    order = sorted(active, key=lambda pod: _order(pod, crew.running(pod.name)), reverse=True)
    return order[: under_way + surplus]


def _order(pod: Pod, running: int) -> tuple[bool, bool, bool, bool, int, str, str]:
    """The greatest goes first."""
    condemned = pod.deletion_cost == FIRST_TO_GO
    # As the ReplicaSet does it: those that are not ready come before the lowest cost.
    return (not pod.ready, condemned, running == 0, pod.leaving_since is not None, -running, pod.created, pod.name)


def _left(pod: Pod, drain_seconds: float, now: datetime) -> float:
    """For how many seconds it may still finish what it runs."""
    if pod.leaving_since is None:
        return drain_seconds
    return drain_seconds - (now - parse_time(pod.leaving_since)).total_seconds()


def _marked(pod: Pod, *, going: bool, now: datetime) -> dict[str, str | None]:
    marks: dict[str, str | None] = {}
    if pod.leaving_since is None:
        marks[LEAVING_SINCE] = format_time(now)
    cost = FIRST_TO_GO if going else None
    if pod.deletion_cost != cost:
        marks[DELETION_COST] = cost
    return marks


def _unmarked(pods: Sequence[Pod]) -> dict[str, Marks]:
    """What is to be taken from pods that stay."""
    return {
        pod.name: {LEAVING_SINCE: None, DELETION_COST: None}
        for pod in pods
        if pod.leaving_since is not None or pod.deletion_cost == FIRST_TO_GO
    }
