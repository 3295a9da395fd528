# SPDX-License-Identifier: Apache-2.0
"""The outcome of all thinking about replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.sampler import Trouble
from kubeagents_operator.status.conditions import Fact, Verdict, fact, progressing

_NAMED = 3
_NOT_USED = "spec.replicas is not used"


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """How many replicas an Agent has."""

    wanted: int
    """How many there should be."""
    kept: int
    """How many its Deployments keep for now: more than wanted while some that are to go finish their tasks."""
    facts: tuple[Fact, ...] = ()
    """Conditions about it."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status about it."""
    again: float | None = None
    """Seconds after which to think again."""
    verdict: Verdict | None = None
    """Why the Agent is not where it should be, if nothing worse is the matter than pods on their way."""
    busy: tuple[str, ...] = ()
    """Pods that are to go and still work."""
    why: str = ""
    """By which figures it was decided, if the operator decides."""


def deferred(busy: Sequence[str]) -> Verdict:
    """The verdict on an Agent that somebody has made smaller, until it is."""
    if not busy:
        return progressing(Reason.ROLLING_OUT, "pods that are to go are being released from the queue")
    named = ", ".join(busy[:_NAMED]) + (" and others" if len(busy) > _NAMED else "")
    return progressing(
        Reason.SCALING_DEFERRED_BUSY,
        f"pods that are to go still work and take no new tasks: {named}; they go when they have finished, "
        "after spec.drainSeconds at the latest",
    )


def autoscaled_fact(*, suspended: bool, trouble: Trouble | None, cold: bool, busy: bool) -> Fact:
    """What the condition Autoscaled says of an Agent with `spec.autoscaling`."""
    type_ = ConditionType.AUTOSCALED
    if suspended:
        return fact(type_, False, Reason.SPEC_SUSPENDED, f"put to rest by spec.suspend; {_NOT_USED}")
    if trouble is not None:
        return fact(
            type_, False, trouble.reason, f"the replicas stay as they are: the queue cannot be asked; {_NOT_USED}"
        )
    if cold:
        return fact(type_, True, Reason.COLD_STARTING, f"tasks wait, the first replica is being started; {_NOT_USED}")
    if busy:
        return fact(
            type_,
            True,
            Reason.SCALING_DEFERRED_BUSY,
            f"replicas that are to go still work and take no new tasks; {_NOT_USED}",
        )
    return fact(
        type_,
        True,
        Reason.AUTOSCALED,
        "the operator decides how many replicas there are, between minReplicas and maxReplicas, by the tasks that wait "
        f"and run; {_NOT_USED}",
    )
