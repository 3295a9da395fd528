# SPDX-License-Identifier: Apache-2.0
"""What a queue in memory knows of one task, and what it tells of it."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from agent_runtime.queue.base import Claim
from agent_runtime.queue.lanes import lane_of
from agent_runtime.queue.memory_lanes import Place
from agent_runtime.queue.memory_streams import Said
from agent_runtime.queue.records import moment
from kubeagents_api.task import (
    ParentOutcome,
    TaskFailure,
    TaskProgress,
    TaskRecord,
    TaskRequest,
    TaskState,
)


@dataclass(slots=True)
class Hold:
    """Who has a running task."""

    token: str
    worker: str
    started: int
    lease_ends: int
    before: tuple[str | None, int | None]
    """The worker and the start of the attempt before: what a release brings back."""


@dataclass(slots=True)
class StoredTask:
    """One task. Times in ms since 1970."""

    id: str
    request: TaskRequest
    """As submitted, a copy; without what is said by the following."""
    payload: bytes
    depends_on: tuple[str, ...]
    max_attempts: int
    timeout_seconds: float
    created: int
    not_before: int | None
    deadline: int | None
    place: Place
    state: TaskState = TaskState.BLOCKED
    attempts: int = 0
    due: int | None = None
    """While scheduled."""
    pending: set[str] = field(default_factory=set)
    """The parents that have not ended."""
    outcomes: dict[str, ParentOutcome] = field(default_factory=dict)
    """How the others ended."""
    children: list[str] = field(default_factory=list)
    """The tasks that wait for this one, as they were submitted."""
    hold: Hold | None = None
    """While running."""
    progress: TaskProgress | None = None
    said: Said = field(default_factory=Said)
    worker: str | None = None
    started: int | None = None
    finished: int | None = None
    death: int = 0
    """While dead: its place in the order in which tasks have died."""
    forgotten_at: int | None = None
    """When its result expires."""
    result: bytes | None = None
    failures: list[TaskFailure] = field(default_factory=list)
    replays: int = 0
    settled: set[str] = field(default_factory=set)
    """Tokens of the attempts whose outcome has been accepted."""

    @property
    def lane(self) -> str:
        """Where it waits."""
        return lane_of(self.request)

    def claim(self, hold: Hold) -> Claim:
        """The attempt that runs."""
        return Claim(
            id=self.id,
            type=self.request.type,
            payload=self.payload,
            priority=self.request.priority,
            attempt=self.attempts,
            max_attempts=self.max_attempts,
            timeout_seconds=self.timeout_seconds,
            agent=self.request.agent,
            created_at_ms=self.created,
            token=hold.token,
            tenant=self.request.tenant,
            depends_on=self.depends_on,
            deadline_ms=self.deadline,
        )

    def outcome(self) -> ParentOutcome:
        """How it ended, for its children."""
        if self.state is TaskState.SUCCEEDED:
            return ParentOutcome(state=self.state, result=_decoded(self.result))
        return ParentOutcome(state=self.state, failure=self.failures[-1])

    def record(self, *, queue: str) -> TaskRecord:
        """All that is known about it."""
        request = self.request
        return TaskRecord(
            id=self.id,
            queue=queue,
            state=self.state,
            agent=request.agent,
            capability=request.capability,
            instance=request.instance,
            type=request.type,
            priority=request.priority,
            tenant=request.tenant,
            payload=orjson.loads(self.payload),
            depends_on=list(self.depends_on),
            waits_for=len(self.pending) if self.state is TaskState.BLOCKED else 0,
            on_parent_failure=request.on_parent_failure,
            idempotency_key=request.idempotency_key,
            deadline=None if self.deadline is None else moment(self.deadline),
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            timeout_seconds=self.timeout_seconds,
            created_at=moment(self.created),
            due_at=None if self.due is None else moment(self.due),
            progress=self.progress,
            started_at=None if self.started is None else moment(self.started),
            finished_at=None if self.finished is None else moment(self.finished),
            worker=self.worker,
            result=_decoded(self.result),
            failures=list(self.failures),
            replays=self.replays,
        )


def death(task: StoredTask) -> tuple[int, int]:
    """Sorts dead tasks: who died last is first, also within a millisecond."""
    return -(task.finished or 0), -task.death


def _decoded(result: bytes | None) -> Any:
    return None if result is None else orjson.loads(result)
