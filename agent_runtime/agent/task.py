# SPDX-License-Identifier: Apache-2.0
"""A task as its handler sees it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic

from typing_extensions import TypeVar

from agent_runtime.queue.base import Claim
from kubeagents_api.task import PRIORITY_DEFAULT

P = TypeVar("P", default=Any)


# Not frozen: that would triple the time to make one, which is the only thing that happens to most of them.
@dataclass(slots=True)
class Task(Generic[P]):
    """One attempt of a task, as a handler sees it. Changing it changes nothing elsewhere.

    `Task[Question]` says that the payload is a `Question`: a pydantic model, a dataclass, a TypedDict, or any other
    type that pydantic knows.
    """

    id: str
    type: str = ""
    payload: P = None  # type: ignore[assignment]  # only where tests make one
    """The decoded JSON payload."""
    priority: int = PRIORITY_DEFAULT
    attempt: int = 1
    """Counted from 1."""
    max_attempts: int = 1
    timeout_seconds: float = 300.0
    tenant: str | None = None
    """Whose task it is."""
    depends_on: tuple[str, ...] = ()
    """Ids of the tasks that had to end first; `ctx.parents()` says how they did."""
    created_at_ms: int = 0
    """When it was submitted, in milliseconds since 1970, by the clock of the queue."""
    deadline_ms: int | None = None
    """When it expires, likewise; None if it does not."""

    @classmethod
    def of(cls, claim: Claim, payload: Any) -> "Task[Any]":
        """What a handler sees of a claim."""
        return cls(
            claim.id,
            claim.type,
            payload,
            claim.priority,
            claim.attempt,
            claim.max_attempts,
            claim.timeout_seconds,
            claim.tenant,
            claim.depends_on,
            claim.created_at_ms,
            claim.deadline_ms,
        )

    @property
    def created_at(self) -> datetime:
        """When it was submitted, by the clock of the queue."""
        return datetime.fromtimestamp(self.created_at_ms / 1000, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When it expires, by the clock of the queue; None if it does not."""
        return None if self.deadline_ms is None else datetime.fromtimestamp(self.deadline_ms / 1000, UTC)
