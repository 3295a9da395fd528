# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a rollout: `status.rollout`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeagents_operator.status.conditions import format_time, parse_time


@dataclass(frozen=True, slots=True)
class State:
    """Where a rollout is. Versions are the revisions of pod templates (`labels.REVISION`)."""

    stable: str | None = None
    """The version that is known to work, in the stable Deployment."""
    canary: str | None = None
    """The one that is tried; once it is promoted, it is the stable one as well until all replicas run it."""
    failed: str | None = None
    """The one that was taken back and not replaced by another one since."""
    failure: str | None = None
    """Why."""
    step: int | None = None
    """From 1, while one is tried."""
    steps: int | None = None
    """How many there are."""
    step_started_at: datetime | None = None
    """Since when all canary pods of the step are ready."""
    promoted: str | None = None
    """The last value of the annotation that has been acted on."""
    succeeded: int = 0
    failed_attempts: int = 0

    @property
    def promoting(self) -> bool:
        """The canary has passed: the stable Deployment gets its version."""
        return self.canary is not None and self.canary == self.stable

    @property
    def trying(self) -> bool:
        """A canary is under way."""
        return self.canary is not None and self.canary != self.stable

    @property
    def finished(self) -> int:
        """Attempts of the new version that have ended."""
        return self.succeeded + self.failed_attempts

    def phase(self) -> object:
        """What must be written down before anything is done about it."""
        return self.canary, self.failed, self.step, self.promoting, self.step_started_at is not None


def of_status(status: Mapping[str, Any] | None) -> State:
    """The state as a status has it."""
    kept = status or {}
    started = kept.get("stepStartedAt")
    _, _, steps = (kept.get("progress") or "").rpartition("/")
    return State(
        stable=kept.get("stableRevision"),
        canary=kept.get("canaryRevision"),
        failed=kept.get("failedRevision"),
        failure=kept.get("failure"),
        step=kept.get("step"),
        steps=int(steps) if steps.isdigit() else None,
        step_started_at=parse_time(started) if started is not None else None,
        promoted=kept.get("promoted"),
        succeeded=kept.get("succeeded", 0),
        failed_attempts=kept.get("failed", 0),
    )


def to_status(state: State | None) -> dict[str, Any] | None:
    """The field `rollout` of a status; None if there is nothing to say."""
    if state is None:
        return None
    tried = state.canary is not None or state.failed is not None
    started = state.step_started_at
    fields = {
        "stableRevision": state.stable,
        "canaryRevision": state.canary,
        "failedRevision": state.failed,
        "failure": state.failure,
        "step": state.step,
        "stepStartedAt": format_time(started) if started is not None else None,
        "progress": f"{state.step}/{state.steps}" if state.step is not None else None,
        "promoted": state.promoted,
        "succeeded": state.succeeded if tried else None,
        "failed": state.failed_attempts if tried else None,
    }
    return {name: value for name, value in fields.items() if value is not None} or None
