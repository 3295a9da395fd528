# SPDX-License-Identifier: Apache-2.0
"""Quotas: what the custom resources of one namespace may have together, where several tenants share a cluster.

It is given out in the order of age. An Agent that has children already comes before all that have none. Of those that
were created in the same second, which is all that the API server tells, who came first is older, and after a restart of
the operator who has all that it asks for: so nobody is displaced by a newcomer, and all replicas of the operator, and
its next life, come to the same result. Whenever somebody needs another amount than before, or goes, those that this
concerns are reconciled again.

| field            | limits                                       | what is over the limit                             |
|------------------|----------------------------------------------|----------------------------------------------------|
| `agents`         | Agents that have children                    | gets none; those that it has go down to 0 replicas |
| `replicas`       | replicas of all Agents together, those that  | has as many as are left                            |
|                  | finish their tasks before they go included   |                                                    |
| `tasksPerSecond` | tasks that start in all TaskQueues together, | waits in its queue                                 |
|                  | each of which has an equal share             |                                                    |

An Agent that gets less than its spec asks for is Stalled with the reason QuotaExceeded.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kubeagents_api.agent import AgentSpec
from kubeagents_api.conditions import Reason
from kubeagents_api.limits import RateLimit
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.cache import Cache
from kubeagents_operator.desired import names
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom
from kubeagents_operator.status.conditions import Verdict, stalled

EVERYWHERE = "*"
"""Stands for the namespaces that are not named."""

_LONGEST = 86400.0
"""The longest time that a rate may be spread over, in seconds."""


class Quota(BaseModel):
    """What one namespace may have. What is not set is not limited."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True, strict=True
    )

    agents: int | None = Field(default=None, ge=0)
    """Agents that may have children."""
    replicas: int | None = Field(default=None, ge=0)
    """Replicas of all its Agents together."""
    tasks_per_second: float | None = Field(default=None, gt=0)
    """Tasks that may start per second in all its TaskQueues together."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an Agent may have."""

    spec: AgentSpec
    """Its spec, with no more replicas than it may have."""
    excess: Verdict | None = None
    """What its spec asks for and does not get."""
    refusal: Verdict | None = None
    """The same if it may have no children at all."""


@dataclass(slots=True)
class _Place:
    """One Agent in the order of its namespace."""

    key: Key
    uid: str
    age: tuple[str, int]
    """Created when, in whole seconds, and for those of one second who came first."""
    served: bool
    """It has children, or has been allowed to have some."""
    replicas: int
    """How many it needs, whether it gets them or not."""
    asked: int = 0
    """How many its spec asks for; 0 if it is autoscaled, which asks for as many as it takes."""
    short: bool = False
    """It would take more than it was allowed to."""


class _Order:
    """The Agents of one namespace, the oldest first."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self._of: dict[Key, _Place] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def get(self, key: Key) -> _Place | None:
        return self._of.get(key)

    def put(self, place: _Place) -> None:
        """Add it, in place of an earlier object of the same name."""
        self.remove(place.key)
        bisect.insort(self._places, place, key=lambda one: one.age)
        self._of[place.key] = place

    def remove(self, key: Key) -> None:
        """Remove it if it is there."""
        if (place := self._of.pop(key, None)) is not None:
            del self._places[self._index(place)]

    def behind(self, place: _Place) -> list[_Place]:
        """Those that are younger."""
        return self._places[self._index(place) + 1 :]

    def short(self) -> list[_Place]:
        """Those that would take more."""
        return [place for place in self._places if place.short]

    def before(self, mine: _Place, *, agents: float) -> tuple[int, int]:
        """How many Agents come before one, and how many replicas the older ones need of those that may have any: the
        first so many `agents`."""
        served, others, replicas = 0, sum(place.served for place in self._places), 0
        for place in self._places:
            position = served if place.served else others
            if place is mine:
                return position, replicas
            served, others = served + place.served, others + (not place.served)
            if position < agents:
                replicas += place.replicas
        raise KeyError(mine.key)

    def _index(self, place: _Place) -> int:
        return bisect.bisect_left(self._places, place.age, key=lambda one: one.age)


class Quotas:
    """Who may have what. `changed` is called with each custom resource that may have more, or less, than before."""

    def __init__(self, quotas: Mapping[str, Quota], cache: Cache, *, changed: Callable[[Key], None]) -> None:
        self._quotas = quotas
        self._cache = cache
        self._changed = changed
        self._orders: dict[str, _Order] = {}
        self._came = 0
        """How many Agents have come."""
        self._queues: dict[str, set[Key]] = {}

    def allow(self, custom: Custom, spec: AgentSpec) -> Allowance:
        """What an Agent may have now. Counts it among those that have children if it may have some."""
        quota, key = self._quota(custom.key.namespace), custom.key
        if quota is None or (quota.agents is None and quota.replicas is None):
            return Allowance(spec)
        order = self._order(key.namespace)
        place = order.get(key)
        if place is None or place.uid != custom.uid:
            place = self._place(custom)
            order.put(place)
            self._look_again(order.behind(place))
        place.asked = 0 if spec.suspend or spec.autoscaling is not None else spec.replicas
        agents = math.inf if quota.agents is None else quota.agents
        position, older = order.before(place, agents=agents)
        if position >= agents:
            place.short = True
            excess = _excess(f'namespace "{key.namespace}" may have {_count(agents, "Agent")}, and others come first')
            return Allowance(_cut(spec, 0), excess, refusal=None if place.served else excess)
        place.served = True
        # Reserved at once. What it needs no more is given back when it is known which of its pods are still busy.
        self._need(order, place, max(place.asked, place.replicas))
        if quota.replicas is None:
            place.short = False
            return Allowance(spec)
        left = max(0, quota.replicas - older)
        cut = _cut(spec, left)
        place.short = cut != spec
        needed = 0 if spec.suspend else (spec.replicas if spec.autoscaling is None else spec.autoscaling.min_replicas)
        if needed <= left:
            return Allowance(cut)
        message = (
            f'the Agents of namespace "{key.namespace}" may have {_count(quota.replicas, "replica")} together, '
            f"which leaves {left} for this one"
        )
        return Allowance(cut, _excess(message))

    def took(self, key: Key, replicas: int) -> None:
        """How many replicas an Agent has now, be it because it wants them or because they are still busy."""
        order = self._orders.get(key.namespace)
        place = order.get(key) if order is not None else None
        if order is not None and place is not None:
            self._need(order, place, max(place.asked, replicas))

    def limited(self, namespace: str, spec: TaskQueueSpec) -> TaskQueueSpec:
        """The spec of a TaskQueue, with no higher rate than its share of what its namespace may have."""
        quota = self._quota(namespace)
        if quota is None or quota.tasks_per_second is None:
            return spec
        share = quota.tasks_per_second / max(1, len(self._task_queues(namespace)))
        own = spec.limits.rate
        if own is not None and own.tasks / own.per_seconds <= share:
            return spec
        tasks = max(1, math.floor(share))
        rate = RateLimit(tasks=tasks, per_seconds=min(_LONGEST, tasks / share))
        return spec.model_copy(update={"limits": spec.limits.model_copy(update={"rate": rate})})

    def seen(self, key: Key) -> None:
        """There is this TaskQueue: the others of its namespace have a smaller share than before."""
        if self._shares(key.namespace) and key not in (queues := self._task_queues(key.namespace)):
            queues.add(key)
            self._share_anew(queues)

    def forget(self, key: Key) -> None:
        """The custom resource is gone: others may have what it had."""
        order, queues = self._orders.get(key.namespace), self._queues.get(key.namespace)
        if key.kind == "Agent" and order is not None:
            order.remove(key)
            self._look_again(order.short())
            if not order:
                del self._orders[key.namespace]
        if key.kind == "TaskQueue" and queues is not None and key in queues:
            queues.discard(key)
            self._share_anew(queues)
            if not queues:
                del self._queues[key.namespace]

    def _quota(self, namespace: str) -> Quota | None:
        return self._quotas.get(namespace, self._quotas.get(EVERYWHERE))

    def _shares(self, namespace: str) -> bool:
        quota = self._quota(namespace)
        return quota is not None and quota.tasks_per_second is not None

    def _order(self, namespace: str) -> _Order:
        """The order of a namespace, at first from what is in the cache: an Agent must not get what belongs to an older
        one that has not been reconciled yet."""
        if (order := self._orders.get(namespace)) is None:
            order = self._orders[namespace] = _Order()
            known = [self._cache.custom(key) for key in self._cache.customs()]
            agents = [one for one in known if one and one.key.kind == "Agent" and one.key.namespace == namespace]
            # Who has all that it asks for came before one that has not: so it is after a restart as it was before.
            for custom in sorted(agents, key=lambda one: (self._has(one) < self._needed(one), one.uid)):
                order.put(self._place(custom))
        return order

    def _task_queues(self, namespace: str) -> set[Key]:
        if namespace not in self._queues:
            self._queues[namespace] = {
                key for key in self._cache.customs() if key.kind == "TaskQueue" and key.namespace == namespace
            }
        return self._queues[namespace]

    def _place(self, custom: Custom) -> _Place:
        served = any(child.owner_uid == custom.uid for child in self._cache.children(custom.key).values())
        self._came += 1
        return _Place(custom.key, custom.uid, (custom.created, self._came), served, self._needed(custom))

    def _needed(self, custom: Custom) -> int:
        """How many replicas an Agent needs, as far as one can tell before it is reconciled. Its spec is read as it is,
        not validated."""
        spec = custom.spec
        if spec.get("suspend") is True:
            return 0
        if not isinstance(spec.get("autoscaling"), dict):
            replicas = spec.get("replicas")
            return replicas if isinstance(replicas, int) else 1
        return self._has(custom)

    def _has(self, custom: Custom) -> int:
        child = self._cache.children(custom.key).get(("Deployment", names.agent(custom.key.name)))
        return child.rollout.wanted if child is not None and child.rollout is not None else 0

    def _need(self, order: _Order, place: _Place, replicas: int) -> None:
        before, place.replicas = place.replicas, replicas
        if replicas > before:
            self._look_again(order.behind(place))
        elif replicas < before:
            self._look_again(order.short())

    def _look_again(self, places: list[_Place]) -> None:
        for place in places:
            self._changed(place.key)

    def _share_anew(self, queues: set[Key]) -> None:
        for queue in queues:
            self._changed(queue)
            for user in self._cache.users("TaskQueue", Name(queue.namespace, queue.name)):
                self._changed(user)


def _cut(spec: AgentSpec, most: int) -> AgentSpec:
    scaling = spec.autoscaling
    if scaling is not None and scaling.max_replicas > most:
        cut = {"max_replicas": most, "min_replicas": min(scaling.min_replicas, most)}
        return spec.model_copy(update={"autoscaling": scaling.model_copy(update=cut)})
    return spec.model_copy(update={"replicas": most}) if scaling is None and spec.replicas > most else spec


def _excess(message: str) -> Verdict:
    what = f"{message}: delete or shrink others, or ask those who run the operator for more (its `quotas`)"
    return stalled(Reason.QUOTA_EXCEEDED, what)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")
