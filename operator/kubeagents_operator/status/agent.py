# SPDX-License-Identifier: Apache-2.0
"""The status of an Agent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.observed import Pod
from kubeagents_operator.rollout.machine import LOOK_SECONDS
from kubeagents_operator.rollout.view import CanaryView
from kubeagents_operator.scaling.plan import ReplicaPlan
from kubeagents_operator.status import workload
from kubeagents_operator.status.conditions import (
    Fact,
    Phase,
    Previous,
    Report,
    Verdict,
    current,
    earliest,
    fact,
    of_verdict,
    parse_time,
    progressing,
    unknown,
)
from kubeagents_operator.status.workload import PodsState, QueueState

MISSED_BEATS: Final = 3
"""Heartbeats that a pod may miss."""
_FIRST_BEAT_GRACE: Final = 30.0
"""Seconds on top for the first heartbeat of a pod that has just become ready to show in a sample."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class AgentState:
    """All that the status of an Agent depends on."""

    name: str
    obstacle: Verdict | None
    """What keeps the operator from doing anything for it."""
    suspended: bool
    plan: ReplicaPlan
    pods: PodsState
    queue: QueueState
    heartbeat_seconds: float
    image: str
    endpoint: str
    restarted_at: str | None = None
    """The annotation for a restart, once the Deployment has been told."""
    canary: CanaryView | None = None

    @property
    def threshold(self) -> float:
        """The age of a heartbeat from which on a pod counts as silent."""
        return MISSED_BEATS * self.heartbeat_seconds


def report(state: AgentState, previous: Previous, *, now: datetime) -> Report:
    """The status."""
    deadline = state.pods.deadline
    connected = workload.queue_connected([state.queue], previous)
    lost = workload.failing(connected, previous, deadline=deadline, now=now)
    pods = workload.explained(workload.judge(state.pods, previous, now=now), lost)
    heartbeats, again = _heartbeats(state, previous, now)
    consuming = _consuming(state, previous)
    verdict = workload.with_patience(state.obstacle, previous, deadline=deadline, now=now)
    canary = state.canary.verdict if state.canary is not None and not state.suspended else None
    for trouble in (pods, canary):
        if verdict is None and trouble is not None and trouble.phase is Phase.STALLED:
            verdict = trouble
    verdict = verdict or (pods if pods.waiting() else lost)
    for one in (heartbeats, consuming):
        verdict = verdict or workload.failing(one, previous, deadline=deadline, now=now)
    for one in (heartbeats, consuming):
        verdict = verdict or _proof_awaited(one, previous)
    if state.plan.verdict is not None and (verdict is None or verdict.reason is Reason.ROLLING_OUT):
        verdict = state.plan.verdict
    verdict = verdict or canary
    if verdict is None:
        verdict = workload.at_rest() if state.suspended else current(pods.reason, pods.message)
    facts = (
        *of_verdict(verdict),
        workload.suspended(state.suspended),
        workload.available(state.pods, verdict),
        heartbeats,
        consuming,
        connected,
        fact(ConditionType.SCALED_TO_ZERO, True, Reason.SCALED_TO_ZERO, "tasks can be submitted and wait")
        if state.pods.wanted == 0
        else fact(ConditionType.SCALED_TO_ZERO, False, Reason.AVAILABLE),
        *state.plan.facts,
        *((state.canary.fact,) if state.canary is not None and state.canary.fact is not None else ()),
    )
    fields = {
        **workload.fields(state.pods),
        "desiredReplicas": state.plan.wanted,
        **state.plan.fields,
        **(state.canary.fields if state.canary is not None else {}),
        **workload.handled(previous, restartedAt=state.restarted_at),
        "running": _running(state, previous),
        "endpoint": state.endpoint,
        "version": previous.fields.get("version") if pods.waiting() else state.image,
    }
    looks = state.canary.again if state.canary is not None else None
    notes = tuple(_of_replicas(state.plan, previous))
    return Report(verdict, facts, fields, again=earliest(again, state.plan.again, looks, verdict.again), notes=notes)


def _of_replicas(plan: ReplicaPlan, previous: Previous) -> Iterator[tuple[str, str]]:
    """What to tell of a new number of replicas. Of a new `spec.replicas`, the Deployment's Events tell."""
    before, now = previous.fields.get("desiredReplicas"), plan.wanted
    if before is None or before == now:
        return
    autoscaled = next((one for one in plan.facts if one.type is ConditionType.AUTOSCALED), None)
    why = f": {plan.why}" if plan.why else ""
    if now == 0:
        yield "ScaledToZero", f"from {before} to no replicas; tasks can be submitted and wait"
    elif autoscaled is None:
        return
    elif before == 0 and autoscaled.reason is Reason.COLD_STARTING:
        yield "Woken", f"from no replicas to {now}{why}"
    else:
        yield "ScalingUp" if now > before else "ScalingDown", f"from {before} to {now} replicas{why}"


def _heartbeats(state: AgentState, previous: Previous, now: datetime) -> tuple[Fact, float | None]:
    """Whether every ready pod has sent a heartbeat recently, and when to look again for those that may yet."""
    type_ = ConditionType.HEARTBEAT_HEALTHY
    if state.pods.wanted == 0:
        return unknown(type_, Reason.NOT_REQUIRED, "no replica is wanted"), None
    sample = state.queue.sample
    if sample is None:
        return previous.fact(type_) or unknown(type_, Reason.DEPENDENCY_NOT_READY, "Redis has not been asked yet"), None
    if sample.trouble is not None:
        return unknown(type_, sample.trouble.reason, "heartbeats are in Redis, which cannot be asked"), None
    ready = [pod for pod in state.pods.pods if pod.ready and not pod.deleting]
    if not ready:
        return unknown(type_, Reason.ROLLING_OUT, "no replica is ready"), None
    healthy = sample.healthy.get(state.threshold)
    if healthy is None:
        return previous.fact(type_) or unknown(type_, Reason.ROLLING_OUT, "Redis has not been asked yet"), None
    silent = [pod for pod in ready if pod.name not in healthy]
    grace = state.threshold + _FIRST_BEAT_GRACE
    ages = {pod.name: (now - parse_time(pod.ready_since)).total_seconds() for pod in silent if pod.ready_since}
    missed = [pod for pod in silent if ages.get(pod.name, 0.0) > grace]
    if missed:
        message = (
            f"no heartbeat of {_names(missed)} for {state.threshold:g} s, though ready: see the pod's log; "
            "a task that blocks the event loop is the usual cause"
        )
        return fact(type_, False, Reason.HEARTBEAT_MISSED, message), None
    if silent:
        again = min(grace - ages.get(pod.name, 0.0) for pod in silent) + 1.0
        return _known(previous, type_) or unknown(type_, Reason.ROLLING_OUT, "the first heartbeats are awaited"), again
    return fact(type_, True, Reason.HEARTBEATS_FRESH, "every ready replica has sent a heartbeat recently"), None


def _consuming(state: AgentState, previous: Previous) -> Fact:
    """Whether every ready pod takes tasks; see `consumption`. Those that have sent no heartbeat yet are awaited."""
    type_ = ConditionType.CONSUMING
    if state.pods.wanted == 0:
        return unknown(type_, Reason.NOT_REQUIRED, "no replica is wanted")
    sample = state.queue.sample
    if sample is None:
        return previous.fact(type_) or unknown(type_, Reason.DEPENDENCY_NOT_READY, "Redis has not been asked yet")
    if sample.trouble is not None:
        return unknown(type_, sample.trouble.reason, "the queue cannot be asked")
    ready = [pod for pod in state.pods.pods if pod.ready and not pod.deleting]
    if not ready:
        return unknown(type_, Reason.ROLLING_OUT, "no replica is ready")
    late = sample.consumption.unanswered.get(state.threshold, frozenset())
    if stalled := [pod for pod in ready if pod.name in late]:
        message = (
            f"the queue has not answered a claim of {_names(stalled)} for a while, though heartbeats come: tasks are "
            "not taken; see the pod's log, or delete the pod"
        )
        return fact(type_, False, Reason.CONSUMER_STALLED, message)
    if idle := [pod for pod in ready if pod.name in sample.consumption.idle]:
        message = (
            f"tasks wait that {_names(idle)} takes and has room for, but nothing is taken: see the pod's log, or "
            "delete the pod"
        )
        return fact(type_, False, Reason.CONSUMER_STALLED, message)
    claimed = {one.instance for one in sample.instances if one.claimed_at is not None}
    if any(pod.name not in claimed for pod in ready):
        return _known(previous, type_) or unknown(type_, Reason.ROLLING_OUT, "the first claims are awaited")
    if any(pod.name in sample.consumption.unproven for pod in ready):
        # After a restart of the operator, or after Redis was away.
        return _known(previous, type_) or unknown(type_, Reason.ROLLING_OUT, "an answer to its claims is awaited")
    return fact(type_, True, Reason.CONSUMING, "the queue answers the claims of every ready replica")


def _known(previous: Previous, type_: ConditionType) -> Fact | None:
    """What was known before of a condition that new pods do not change yet."""
    known = previous.fact(type_)
    return known if known is not None and known.status != "Unknown" else None


def _proof_awaited(fact: Fact, previous: Previous) -> Verdict | None:
    """What has not been ready is so only when that is proven. What was ready stays so until the contrary is."""
    ready = previous.condition(ConditionType.READY).get("status") == "True"
    if ready or fact.status != "Unknown" or fact.reason not in (Reason.ROLLING_OUT, Reason.DEPENDENCY_NOT_READY):
        return None
    return progressing(Reason.ROLLING_OUT, fact.message)


def awaits_sample(state: AgentState, *, now: datetime) -> bool:
    """A pod has become ready since the last sample, which therefore says nothing of it; or a step of a canary has just
    begun, of which the last sample is too old."""
    sample = state.queue.sample
    if sample is None or sample.at is None:
        return False
    if state.canary is not None and state.canary.young and (now - sample.at).total_seconds() >= LOOK_SECONDS:
        return True
    known = {one.instance for one in sample.instances}
    since = sample.at.replace(microsecond=0)  # the times of a pod are in whole seconds, cut off
    return any(
        pod.name not in known and pod.ready_since is not None and parse_time(pod.ready_since) >= since
        for pod in state.pods.pods
        if pod.ready and not pod.deleting
    )


def _names(pods: Iterable[Pod]) -> str:
    names = sorted(pod.name for pod in pods)
    return ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")


def _running(state: AgentState, previous: Previous) -> int | None:
    """Tasks that its pods work on, by their own heartbeats."""
    sample = state.queue.sample
    if sample is None:
        kept: int | None = previous.fields.get("running")
        return kept
    if sample.trouble is not None:
        return None
    # An Agent of another namespace may have the same name.
    own = {pod.name for pod in state.pods.pods}
    return sum(one.running for one in sample.instances if one.instance in own)
