# SPDX-License-Identifier: Apache-2.0
"""What can be wrong, and what is said about a round."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

FINAL_STATES = frozenset(("succeeded", "failed", "cancelled", "expired", "dead"))
ENDING_EVENTS = FINAL_STATES
"""Events that say that a task has ended have the states' names."""


class Breach(StrEnum):
    """Which promise is broken."""

    LOST = "lost"
    """A task that was acknowledged, or that a worker was given, is unknown or has not ended."""
    DOUBLE_TERMINAL = "double_terminal"
    """A task has ended more than once, or not in the way that somebody was told."""
    STALE_ACK = "stale_acks_accepted"
    """An outcome was accepted although a newer attempt had begun, or the attempt had been given up."""
    ORDER = "order_violations"
    """Strict priority, or first in, first out inside one, was broken."""
    RESTARTED = "started_after_end"
    """An attempt began after the task had ended."""
    REUSED = "attempts_reused"
    """Two attempts have the same number, though the first one was not given back."""
    UNFOUNDED = "unfounded_results"
    """The queue has a result that no worker ever sent."""
    GARBLED = "garbled_payloads"
    """A worker was given something else than what was submitted."""
    HALF_BATCH = "half_batches"
    """Of a batch some tasks are in the queue, and some are not."""
    EARLY = "early_starts"
    """An attempt began before its time, or before the tasks that it depends on had ended."""
    PARENTS = "wrong_after_parents"
    """A task did not end as it should after what became of the tasks that it depends on."""
    FIGURES = "wrong_figures"
    """The queue's own figures or events do not fit what happened."""
    IDLE = "not_taken_over"
    """Work of a dead worker did not go on, though another worker was idle."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    breach: Breach
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.breach}: task {self.task}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """What is to be said about a round."""

    tasks: int = 0
    """Acknowledged ones."""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How much happened of what the round is there for: redeliveries, refused outcomes …"""
