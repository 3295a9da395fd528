# SPDX-License-Identifier: Apache-2.0
"""What the status of an Agent and that of a CentralAgent have in common: pods, and queues that they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.pod import PodSettings
from kubeagents_operator.observed import Pod, Rollout
from kubeagents_operator.sampler import Sample, Trouble
from kubeagents_operator.status import rollout as rollouts
from kubeagents_operator.status.conditions import (
    Fact,
    Previous,
    Verdict,
    current,
    fact,
    progressing,
    unknown,
    with_deadline,
)


@dataclass(frozen=True, slots=True)
class PodsState:
    """The Deployment and its pods."""

    wanted: int
    selector: str
    rollout: Rollout | None
    template: str | None
    """Digest of the wanted pod template; None while it cannot be computed."""
    pods: tuple[Pod, ...]
    kept: int | None = None
    """How many the Deployment has for now, if not as many as wanted: some that are to go finish their tasks, or run in
    a canary."""
    canary: Rollout | None = None
    """The Deployment of an Agent's new version, while that is tried."""
    deadline: float = float(PodSettings.model_fields["progress_deadline_seconds"].default)
    """Seconds for which something that usually does not heal may last before somebody should look."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue, as somebody who needs it sees it."""

    name: str
    trouble: Trouble | None
    """What is known to be wrong with it, before anybody asks its Redis."""
    sample: Sample | None

    def found_trouble(self) -> Trouble | None:
        """What is wrong with it."""
        if self.trouble is not None:
            return self.trouble
        return self.sample.trouble if self.sample is not None else None


def judge(state: PodsState, previous: Previous, *, now: datetime) -> Verdict:
    """The verdict on the pods."""
    return rollouts.judge(
        state.rollout,
        wanted=state.wanted if state.kept is None else state.kept,
        template=state.template,
        pods=state.pods,
        overdue=False,
        patience=rollouts.Patience.of(state.deadline, previous, now),
    )


def explained(pods: Verdict, lost: Verdict | None) -> Verdict:
    """The verdict on the pods, or `lost`, that on queues which cannot be reached, where the pods show no more than that
    they are not ready: without their queue they are not."""
    return lost if lost is not None and pods.reason in _SYMPTOMS else pods


_SYMPTOMS = (Reason.ROLLING_OUT, Reason.PROGRESS_DEADLINE_EXCEEDED)


def failing(fact: Fact, previous: Previous, *, deadline: float, now: datetime) -> Verdict | None:
    """The verdict on a condition without which there is no Ready: None unless it is False."""
    if fact.status != "False":
        return None
    lasted = previous.lasted(fact.type, now, reason=fact.reason)
    return with_deadline(progressing(fact.reason, fact.message), lasted=lasted, limit=deadline)


def with_patience(obstacle: Verdict | None, previous: Previous, *, deadline: float, now: datetime) -> Verdict | None:
    """An obstacle that is Progressing is Stalled once the object has not been ready for longer than its deadline."""
    if obstacle is None:
        return None
    lasted = previous.lasted(ConditionType.READY, now, reason=obstacle.reason)
    return with_deadline(obstacle, lasted=lasted, limit=deadline)


def judge_queues(queues: Sequence[QueueState]) -> Verdict:
    """The verdict on an object without the queues that it needs: the first one that is in trouble."""
    connected = queue_connected(queues, Previous({}))
    return progressing(connected.reason, connected.message)


def queue_connected(queues: Sequence[QueueState], previous: Previous) -> Fact:
    """Whether all the queues are there and answer."""
    type_ = ConditionType.QUEUE_CONNECTED
    for queue in queues:
        if (trouble := queue.found_trouble()) is not None:
            return fact(type_, False, trouble.reason, f'TaskQueue "{queue.name}": {trouble.message}')
    if any(queue.sample is None for queue in queues):
        before = previous.fact(type_)
        if before is not None and before.reason in _LEARNT_BY_SAMPLING:
            return before
        return unknown(type_, Reason.DEPENDENCY_NOT_READY, "Redis has not been asked yet")
    return fact(type_, True, Reason.CONNECTED, "Redis answers")


_LEARNT_BY_SAMPLING = frozenset(
    {Reason.CONNECTED, Reason.REDIS_UNREACHABLE, Reason.REDIS_AUTH_FAILED, Reason.REDIS_URL_INVALID}
)
"""What stands after a restart of the operator until there is a new sample."""


def suspended(by_spec: bool) -> Fact:
    """Whether it has been put to rest."""
    type_ = ConditionType.SUSPENDED
    if by_spec:
        return fact(type_, True, Reason.SPEC_SUSPENDED, "put to rest by spec.suspend")
    return fact(type_, False, Reason.ACTIVE)


def at_rest() -> Verdict:
    """The verdict on what has been put to rest, and is."""
    return current(Reason.SPEC_SUSPENDED, "put to rest by spec.suspend")


def handled(previous: Previous, **done: str | None) -> dict[str, Any]:
    """The field `handled`: values of annotations that have been acted on, now or before."""
    before: dict[str, Any] = previous.fields.get("handled") or {}
    now = {**before, **{name: value for name, value in done.items() if value is not None}}
    return {"handled": now} if now else {}


def available(state: PodsState, verdict: Verdict) -> Fact:
    """Whether there is somebody to do the work."""
    type_ = ConditionType.AVAILABLE
    if state.wanted == 0:
        return fact(type_, True, Reason.SCALED_TO_ZERO, "no replica is wanted")
    if any(rollout.available > 0 for rollout in _rollouts(state)):
        return fact(type_, True, Reason.AVAILABLE, "at least one replica is ready")
    return fact(type_, False, verdict.reason if verdict.waiting() else Reason.ROLLING_OUT, "no replica is ready")


def fields(state: PodsState) -> dict[str, Any]:
    """The fields that the scale subresource and the columns read; always written."""
    rollouts = _rollouts(state)
    ready = sum(rollout.ready for rollout in rollouts)
    return {
        "replicas": sum(rollout.replicas for rollout in rollouts),
        "readyReplicas": ready,
        "ready": f"{ready}/{state.wanted}",
        "selector": state.selector,
    }


def _rollouts(state: PodsState) -> list[Rollout]:
    return [rollout for rollout in (state.rollout, state.canary) if rollout is not None]
