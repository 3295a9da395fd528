# SPDX-License-Identifier: Apache-2.0
"""The replicas of an Agent: gathers what `scaling` needs to know, and does what it says.

Whoever decides how many there should be (the spec, the autoscaler, suspend), pods go by the same way.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kubeagents_api.agent import AgentSpec, Autoscaling
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import InstanceInfo
from kubeagents_operator.cluster import ApiUnavailableError, ObjectRefusedError
from kubeagents_operator.desired import names
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom, Pod
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.sampler import Sample
from kubeagents_operator.scaling.autoscaler import Autoscaler, Decision, Situation
from kubeagents_operator.scaling.cordons import Wish
from kubeagents_operator.scaling.demand import Taker, demand_of
from kubeagents_operator.scaling.plan import ReplicaPlan, autoscaled_fact, deferred
from kubeagents_operator.scaling.removal import Crew, Marks, plan_removal
from kubeagents_operator.status.conditions import Fact, Previous, Verdict, earliest, parse_time, progressing, stalled
from kubeagents_operator.status.workload import QueueState
from kubeagents_operator.watched import POD

_AT_ONCE = 8
"""Pods that are marked at the same time."""
_RETRY_SECONDS = 1.0
"""Until pods are marked again that could not be reached; those that are gone are not asked again."""
_REFUSED_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""Between two looks for the first heartbeat after zero."""


@dataclass(frozen=True, slots=True)
class _Awakening:
    """A start from zero."""

    since: datetime
    seconds: float | None = None
    """How long it took; None while it lasts."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a queue's last sample shows."""

    sample: Sample
    instances: Mapping[str, InstanceInfo]
    takers: Sequence[Taker]
    """The Agents of the queue that take tasks."""


@dataclass(frozen=True, slots=True)
class _Marking:
    """What has become of the marks."""

    verdict: Verdict | None = None
    again: float | None = None


class Replicas:
    """Plans the replicas of every Agent. Remembers what was decided, and whose queue it gave wishes to."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._autoscaler = Autoscaler()
        self._decided: dict[Key, int] = {}
        self._woken: dict[Key, datetime] = {}
        self._queues: dict[Key, Key] = {}
        self._seen: dict[Key, _Seen] = {}

    async def plan(self, custom: Custom, spec: AgentSpec, queue: QueueState) -> ReplicaPlan:
        """How many replicas there should be, and how many are kept until those that go have finished.

        Marks the pods that go. Raises ApiUnavailableError.
        """
        tools, key = self._tools, custom.key
        pods = tools.cache.pods(key)
        sample = queue.sample if queue.found_trouble() is None else None
        queue_key = _queue_of(custom, spec)
        seen = self._look(queue_key, sample) if sample is not None else None
        crew = _crew(tools, custom, pods, seen)
        decision = self._decide(custom, spec, crew, seen)
        removal = plan_removal(crew, wanted=decision.wanted, drain_seconds=float(spec.drain_seconds), now=tools.now())
        autoscaling = None if spec.suspend else spec.autoscaling
        wish = Wish(
            cordoned=removal.leaving,
            free=removal.staying,
            counts=autoscaling is not None,
            wakes=autoscaling is not None and decision.wanted == 0,
        )
        self._wish(key, queue_key, wish)
        marking = await self._mark(key, pods, removal.marks)
        awakening = self._awakening(custom, crew, decision.wanted) if autoscaling is not None else None
        cold = awakening is not None and awakening.seconds is None
        verdict = marking.verdict
        if cold:
            verdict = verdict or progressing(Reason.COLD_STARTING, "tasks wait, and the first replica is being started")
        elif removal.kept > decision.wanted and autoscaling is None:
            verdict = verdict or deferred(removal.busy)
        facts: tuple[Fact, ...] = ()
        if spec.autoscaling is not None:
            trouble = queue.found_trouble()
            facts = (autoscaled_fact(suspended=spec.suspend, trouble=trouble, cold=cold, busy=bool(removal.busy)),)
        return ReplicaPlan(
            wanted=decision.wanted,
            kept=removal.kept,
            facts=facts,
            fields={} if awakening is None or awakening.seconds is None else {"coldStartSeconds": awakening.seconds},
            again=earliest(decision.again, removal.again, marking.again, _LOOK_SECONDS if cold else None),
            verdict=verdict,
            busy=removal.busy,
        )

    def forget(self, key: Key) -> None:
        """The Agent is gone."""
        self._forget_decisions(key)
        if (queue := self._queues.pop(key, None)) is not None:
            self._tools.sampler.withdraw(queue, key)
            self._seen.pop(queue, None)  # worked out anew if another Agent needs it

    def _look(self, queue: Key, sample: Sample) -> _Seen:
        """What a sample shows, worked out once for all Agents of the queue."""
        seen = self._seen.get(queue)
        if seen is None or seen.sample is not sample:
            instances = {one.instance: one for one in sample.instances}
            seen = self._seen[queue] = _Seen(sample, instances, _takers(self._tools, queue))
        return seen

    def _forget_decisions(self, key: Key) -> None:
        self._autoscaler.forget(key)
        self._decided.pop(key, None)
        self._woken.pop(key, None)

    def _decide(self, custom: Custom, spec: AgentSpec, crew: Crew, seen: _Seen | None) -> Decision:
        if spec.suspend or spec.autoscaling is None:
            self._forget_decisions(custom.key)
            return Decision(0 if spec.suspend else spec.replicas)
        current = self._current(custom, spec.autoscaling, crew)
        if seen is None or seen.sample.stats is None:
            decision = self._autoscaler.blind(custom.key, spec.autoscaling, current=current)
        else:
            decision = self._by_demand(custom, spec, spec.autoscaling, crew, seen, current)
        self._decided[custom.key] = decision.wanted
        return decision

    def _current(self, custom: Custom, settings: Autoscaling, crew: Crew) -> int:
        """How many there should be so far: by the last decision, which after a restart is in the status."""
        if custom.key in self._decided:
            return self._decided[custom.key]
        said = custom.status.get("desiredReplicas")
        if isinstance(said, int):
            return said
        return crew.have if crew.have is not None else settings.min_replicas

    def _by_demand(
        self, custom: Custom, spec: AgentSpec, settings: Autoscaling, crew: Crew, seen: _Seen, current: int
    ) -> Decision:
        tools, key = self._tools, custom.key
        assert seen.sample.stats is not None  # noqa: S101 - asked before
        own = frozenset(pod.name for pod in crew.pods)
        ours = [crew.instances[name] for name in own if name in crew.instances]
        demand = demand_of(
            Taker(key.namespace, key.name, frozenset(spec.capabilities)),
            takers=seen.takers,
            pods=own,
            stats=seen.sample.stats,
            instances=ours,
            alone=len(ours) == len(crew.instances),
        )
        now = tools.now()
        age = max(0.0, (now - demand.oldest_at).total_seconds()) if demand.oldest_at is not None else 0.0
        situation = Situation(
            settings=settings,
            concurrency=spec.concurrency,
            demand=demand,
            current=current,
            ready=sum(pod.ready and pod.leaving_since is None for pod in crew.active()),
            oldest_age=age,
        )
        decision = self._autoscaler.decide(key, situation, now=tools.clock())
        if current == 0 and decision.wanted > 0:
            self._woken[key] = demand.oldest_at or now
        return decision

    def _awakening(self, custom: Custom, crew: Crew, wanted: int) -> _Awakening | None:
        """The start from zero that is under way or ends now. None also if nobody wants it any more before it ends."""
        since = self._woken.get(custom.key) or _woken_before(Previous(custom.status))
        if since is None:
            return None
        up = {pod.name: pod.ready_since for pod in crew.active() if pod.ready and pod.ready_since is not None}
        beating = [max(parse_time(ready), crew.instances[name].started_at) for name, ready in up.items()
                   if name in crew.instances]  # fmt: skip
        if beating:
            self._woken.pop(custom.key, None)
            return _Awakening(since, round(max(0.1, (min(beating) - since).total_seconds()), 1))
        if wanted == 0:
            self._woken.pop(custom.key, None)
            return None
        self._woken[custom.key] = since
        if up:
            self._tools.sampler.poke(self._queues[custom.key])
        return _Awakening(since)

    def _wish(self, key: Key, queue: Key, wish: Wish) -> None:
        before = self._queues.get(key)
        if before is not None and before != queue:
            self._tools.sampler.withdraw(before, key)
        self._queues[key] = queue
        self._tools.sampler.wish(queue, key, wish)

    async def _mark(self, key: Key, pods: list[Pod], marks: Mapping[str, Marks]) -> _Marking:
        """Write the annotations. A pod that is gone meanwhile does not keep the others."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def mark(pod: Pod) -> None:
            async with limit:
                await self._tools.cluster.annotate(
                    POD, key.namespace, pod.name, uid=pod.uid, annotations=marks[pod.name]
                )

        done = await asyncio.gather(*(mark(pod) for pod in pods if pod.name in marks), return_exceptions=True)
        marking = _Marking()
        for error in done:
            if isinstance(error, ObjectRefusedError):
                message = f"pods that are to go cannot be marked, so none goes: {error}"
                marking = _Marking(stalled(Reason.CREATE_FORBIDDEN, message), _REFUSED_SECONDS)
            elif isinstance(error, ApiUnavailableError):
                marking = _Marking(marking.verdict, _RETRY_SECONDS)
            elif error is not None:
                raise error
        return marking


def _crew(tools: Tools, custom: Custom, pods: list[Pod], seen: _Seen | None) -> Crew:
    rollouts = {
        name: child.rollout
        for (kind, name), child in tools.cache.children(custom.key).items()
        if kind == "Deployment" and child.rollout is not None and child.owner_uid == custom.uid and not child.deleting
    }
    stable = rollouts.get(names.agent(custom.key.name))
    return Crew(
        pods=pods,
        have=sum(rollout.wanted for rollout in rollouts.values()) if stable is not None else None,
        template=stable.template if stable is not None else None,
        instances=seen.instances if seen is not None else {},
        vacated=seen.sample.vacated if seen is not None else frozenset(),
    )


def _queue_of(custom: Custom, spec: AgentSpec) -> Key:
    return Key("TaskQueue", spec.queue_ref.namespace or custom.key.namespace, spec.queue_ref.name)


def _takers(tools: Tools, queue: Key) -> list[Taker]:
    """The Agents of a queue that take tasks. Specs are read as they are, not validated: there may be thousands."""
    found = []
    for user in tools.cache.users(queue.kind, Name(queue.namespace, queue.name)):
        custom = tools.cache.custom(user)
        if user.kind != "Agent" or custom is None or custom.deleting:
            continue
        spec = custom.spec
        if spec.get("suspend") or (spec.get("autoscaling") is None and spec.get("replicas") == 0):
            continue
        found.append(Taker(user.namespace, user.name, frozenset(spec.get("capabilities") or ())))
    return found


def _woken_before(previous: Previous) -> datetime | None:
    """Since when a start from zero has been under way that an operator before this one began."""
    told, zero = previous.fact(ConditionType.AUTOSCALED), previous.condition(ConditionType.SCALED_TO_ZERO)
    if told is None or told.reason is not Reason.COLD_STARTING or not zero:
        return None
    return parse_time(zero["lastTransitionTime"])
