# SPDX-License-Identifier: Apache-2.0
"""The replicas of an Agent: gathers what `scaling` needs to know, and does what it says.

Whoever decides how many there should be (the spec, the autoscaler, suspend), pods go by the same way.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kubeagents_api.agent import AgentSpec, Autoscaling
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import InstanceInfo
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import ApiUnavailableError, ObjectRefusedError
from kubeagents_operator.desired import names
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Custom, Pod, Rollout
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.reconcile.queues import Queue, users
from kubeagents_operator.rollout import shares
from kubeagents_operator.rollout.state import of_status
from kubeagents_operator.sampler import Sample
from kubeagents_operator.scaling.autoscaler import Autoscaler, Decision, Situation
from kubeagents_operator.scaling.cordons import Wish
from kubeagents_operator.scaling.demand import Taker, demand_of
from kubeagents_operator.scaling.plan import ReplicaPlan, autoscaled_fact, deferred
from kubeagents_operator.scaling.removal import Crew, Marks, Removal, plan_removal, plan_shared_removal
from kubeagents_operator.status.conditions import Fact, Previous, Verdict, earliest, parse_time, progressing, stalled
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
        self._rested: dict[Key, datetime | None] = {}
        """Until when there was a reason for no replicas, None for until now: a start from zero counts from then."""
        self._queues: dict[Key, Key] = {}
        self._seen: dict[Key, _Seen] = {}

    async def plan(self, custom: Custom, spec: AgentSpec, queue: Queue) -> ReplicaPlan:
        """How many replicas there should be, and how many are kept until those that go have finished.

        Marks the pods that go. Raises ApiUnavailableError.
        """
        tools, key = self._tools, custom.key
        pods = tools.cache.pods(key)
        trouble = queue.state.found_trouble()
        sample = queue.state.sample if trouble is None else None
        seen = self._look(queue.key, sample) if sample is not None else None
        crew = _crew(tools, custom, pods, seen)
        most = queue.spec.limits.concurrency if queue.spec is not None else None
        decision = self._decide(custom, spec, crew, seen, most=most)
        removal = _removal(tools, custom, spec, crew, wanted=decision.wanted)
        autoscaling = None if spec.suspend else spec.autoscaling
        wish = Wish(
            cordoned=removal.leaving,
            free=removal.staying,
            counts=autoscaling is not None,
            wakes=autoscaling is not None and decision.wanted == 0,
        )
        self._wish(key, queue, wish)
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
            facts = (autoscaled_fact(suspended=spec.suspend, trouble=trouble, cold=cold, busy=bool(removal.busy)),)
        return ReplicaPlan(
            wanted=decision.wanted,
            kept=removal.kept,
            facts=facts,
            fields={} if awakening is None or awakening.seconds is None else {"coldStartSeconds": awakening.seconds},
            again=earliest(decision.again, removal.again, marking.again, _LOOK_SECONDS if cold else None),
            verdict=verdict,
            busy=removal.busy,
            why=decision.why,
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
            seen = self._seen[queue] = _Seen(sample, instances, sharers(self._tools.cache, queue))
        return seen

    def _forget_decisions(self, key: Key) -> None:
        self._autoscaler.forget(key)
        self._decided.pop(key, None)
        self._woken.pop(key, None)
        self._rested.pop(key, None)

    def _decide(self, custom: Custom, spec: AgentSpec, crew: Crew, seen: _Seen | None, *, most: int | None) -> Decision:
        if spec.suspend or spec.autoscaling is None:
            self._forget_decisions(custom.key)
            self._rested[custom.key] = None
            return Decision(0 if spec.suspend else spec.replicas)
        current = self._current(custom, spec.autoscaling, crew)
        if seen is None or seen.sample.stats is None:
            decision = self._autoscaler.blind(custom.key, spec.autoscaling, current=current)
            self._rested[custom.key] = None
        else:
            decision = self._by_demand(custom, spec, spec.autoscaling, crew, seen, current, most=most)
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
        self,
        custom: Custom,
        spec: AgentSpec,
        settings: Autoscaling,
        crew: Crew,
        seen: _Seen,
        current: int,
        *,
        most: int | None,
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
            most=most,
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
        rested = self._rested.get(key, parse_time(custom.created)) or now
        if decision.wanted == 0 and (demand.waiting == 0 or demand.paused):
            rested = seen.sample.at or now
        elif current == 0 and decision.wanted > 0 and demand.oldest_at is not None:
            self._woken[key] = max(demand.oldest_at, rested)
        self._rested[key] = rested
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

    def _wish(self, key: Key, queue: Queue, wish: Wish) -> None:
        before = self._queues.get(key)
        if before is not None and (before != queue.key or queue.refused):
            self._tools.sampler.withdraw(before, key)
            self._seen.pop(before, None)  # as in `forget`
        self._queues[key] = queue.key
        if not queue.refused:  # what belongs to others, and is not shared with it, is not touched for it
            self._tools.sampler.wish(queue.key, key, wish)

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


def _removal(tools: Tools, custom: Custom, spec: AgentSpec, crew: Crew, *, wanted: int) -> Removal:
    drain_seconds, now = float(spec.drain_seconds), tools.now()
    rollouts = _rollouts(tools, custom)
    canary = rollouts.get(names.canary(custom.key.name))
    stable = rollouts.get(names.agent(custom.key.name))
    percent = _canary_percent(custom, spec)
    if percent is None or canary is None or stable is None:
        return plan_removal(crew, wanted=wanted, drain_seconds=drain_seconds, now=now)
    crews = [
        replace(
            crew,
            pods=[pod for pod in crew.pods if pod.canary is (rollout is canary)],
            have=rollout.wanted,
            template=rollout.template,
        )
        for rollout in (stable, canary)
    ]

    def split(replicas: int) -> tuple[int, int]:
        share = shares.canary(percent, replicas)
        return shares.stable(replicas, canary=share), share

    return plan_shared_removal(crews, split, wanted=wanted, drain_seconds=drain_seconds, now=now)


def _canary_percent(custom: Custom, spec: AgentSpec) -> int | None:
    """The canary's share while all its pods of a step are there; None while they are not, or there is no canary."""
    state = of_status(custom.status.get("rollout"))
    if spec.rollout is None or not state.trying or state.step is None or state.step_started_at is None:
        return None
    return spec.rollout.steps[min(state.step, len(spec.rollout.steps)) - 1].percent


def _rollouts(tools: Tools, custom: Custom) -> dict[str, Rollout]:
    """The Deployments of an Agent, by name."""
    return {
        name: child.rollout
        for (kind, name), child in tools.cache.children(custom.key).items()
        if kind == "Deployment" and child.rollout is not None and child.owner_uid == custom.uid and not child.deleting
    }


def _crew(tools: Tools, custom: Custom, pods: list[Pod], seen: _Seen | None) -> Crew:
    rollouts = _rollouts(tools, custom)
    stable = rollouts.get(names.agent(custom.key.name))
    return Crew(
        pods=pods,
        have=sum(rollout.wanted for rollout in rollouts.values()) if stable is not None else None,
        template=stable.template if stable is not None else None,
        instances=seen.instances if seen is not None else {},
        vacated=seen.sample.vacated if seen is not None else frozenset(),
    )


def sharers(cache: Cache, queue: Key) -> list[Taker]:
    """The Agents that share the tasks of a queue. Specs are read as they are, not validated: there may be thousands."""
    found = []
    for user in users(cache, queue):
        key, spec = user.key, user.spec
        if key.kind != "Agent" or user.deleting:
            continue
        if spec.get("suspend") or (spec.get("autoscaling") is None and spec.get("replicas") == 0):
            continue
        found.append(Taker(key.namespace, key.name, frozenset(spec.get("capabilities") or ())))
    return found


def _woken_before(previous: Previous) -> datetime | None:
    """Since when a start from zero has been under way that an operator before this one began."""
    told, zero = previous.fact(ConditionType.AUTOSCALED), previous.condition(ConditionType.SCALED_TO_ZERO)
    if told is None or told.reason is not Reason.COLD_STARTING or not zero:
        return None
    return parse_time(zero["lastTransitionTime"])
