# SPDX-License-Identifier: Apache-2.0
"""What the status says about a rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeagents_api.agent import RolloutStrategy
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.rollout.machine import Plan
from kubeagents_operator.rollout.state import State, to_status
from kubeagents_operator.status.conditions import Fact, Verdict, fact, progressing, stalled


@dataclass(frozen=True, slots=True)
class CanaryView:
    """The part of an Agent's state that its canary makes."""

    verdict: Verdict | None
    """None if there is nothing to wait for."""
    fact: Fact | None
    """The condition; None without a strategy."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    again: float | None = None
    """Seconds after which to look again."""
    young: bool = False
    """A step has just begun: a sample of before the last look is too old."""


def view(plan: Plan, strategy: RolloutStrategy | None, *, replicas: int) -> CanaryView:
    """What to say about a plan."""
    state = plan.state or State()
    verdict = _verdict(state, strategy, replicas=replicas)
    said = _fact(state, verdict) if strategy is not None else None
    return CanaryView(verdict, said, {"rollout": to_status(plan.state)}, plan.again, plan.young)


def _verdict(state: State, strategy: RolloutStrategy | None, *, replicas: int) -> Verdict | None:
    if strategy is None:
        return None
    if state.failed is not None:
        return stalled(
            Reason.CANARY_FAILED,
            f"the new version was taken back: {state.failure}; all replicas run the version before it: "
            "correct the spec or the code, or go back to what they were",
        )
    if replicas == 0 or state.canary is None:
        return None
    if state.promoting or state.step is None:
        return progressing(Reason.CANARY_RUNNING, "the new version has passed all steps, and all replicas get it")
    step = strategy.steps[state.step - 1]
    where = f"step {state.step} of {len(strategy.steps)}, {step.percent} % of the replicas"
    if state.step_started_at is None:
        return progressing(Reason.CANARY_RUNNING, f"{where}: the pods of the new version are being started")
    if step.pause_seconds is None and state.finished >= strategy.min_tasks:
        return progressing(
            Reason.CANARY_WAITING, f"{where}: give the annotation kubeagents.dev/promote a new value to go on"
        )
    return progressing(Reason.CANARY_RUNNING, f"{where}: the tasks of the new version are watched")


def _fact(state: State, verdict: Verdict | None) -> Fact:
    type_ = ConditionType.CANARY_HEALTHY
    if verdict is not None:
        return fact(type_, state.failed is None, verdict.reason, verdict.message)
    if state.canary is not None:
        return fact(type_, True, Reason.CANARY_WAITING, "a new version is tried once there are replicas")
    return fact(type_, True, Reason.NO_CANARY, "no new version is being tried")
