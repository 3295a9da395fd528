# SPDX-License-Identifier: Apache-2.0
"""The status of an Agent."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.observed import Pod
from kubeagents_operator.scaling.plan import ReplicaPlan
from kubeagents_operator.status import workload
from kubeagents_operator.status.conditions import (
    Fact,
    Previous,
    Report,
    Verdict,
    current,
    earliest,
    fact,
    of_verdict,
    parse_time,
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

    @property
    def threshold(self) -> float:
        """The age of a heartbeat from which on a pod counts as silent."""
        return MISSED_BEATS * self.heartbeat_seconds


def report(state: AgentState, previous: Previous, *, now: datetime) -> Report:
    """The status."""
    deadline = state.pods.deadline
    pods = workload.judge(state.pods, previous, now=now)
    connected = workload.queue_connected([state.queue], previous)
    heartbeats, again = _heartbeats(state, previous, now)
    verdict = workload.with_patience(state.obstacle, previous, deadline=deadline, now=now)
    verdict = verdict or (pods if pods.waiting() else None)
    for one in (connected, heartbeats):
        verdict = verdict or workload.failing(one, previous, deadline=deadline, now=now)
    if verdict is None:
        verdict = workload.at_rest() if state.suspended else current(pods.reason, pods.message)
    facts = (
        *of_verdict(verdict),
        workload.suspended(state.suspended),
        workload.available(state.pods, verdict),
        heartbeats,
        connected,
        fact(ConditionType.SCALED_TO_ZERO, True, Reason.SCALED_TO_ZERO, "tasks can be submitted and wait")
        if state.pods.wanted == 0
        else fact(ConditionType.SCALED_TO_ZERO, False, Reason.AVAILABLE),
        *state.plan.facts,
    )
    fields = {
        **workload.fields(state.pods),
        "desiredReplicas": state.plan.wanted,
        **state.plan.fields,
        **workload.handled(previous, restartedAt=state.restarted_at),
        "running": _running(state, previous),
        "endpoint": state.endpoint,
        "version": previous.fields.get("version") if pods.waiting() else state.image,
    }
    return Report(verdict, facts, fields, again=earliest(again, state.plan.again, verdict.again))


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
        return (previous.fact(type_) or unknown(type_, Reason.ROLLING_OUT, "the first heartbeats are awaited")), again
    return fact(type_, True, Reason.HEARTBEATS_FRESH, "every ready replica has sent a heartbeat recently"), None


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
    return sum(one.running for one in sample.instances if one.agent == state.name)
