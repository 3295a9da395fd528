# SPDX-License-Identifier: Apache-2.0
"""The wire envelope: what a client submits, and what it reads back."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, JsonValue, model_validator

from kubeagents_api.model import ApiModel, ObjectName

PRIORITY_LOWEST = 0
PRIORITY_HIGHEST = 9
PRIORITY_DEFAULT = 5

TASK_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")


class TaskState(StrEnum):
    """Where a task is.

        scheduled ──due──► queued ──claim──► running ──► succeeded | failed | dead
            ▲                 ▲                 │
            └── failed try ───┼─────────────────┤
                              └── lease over ───┘  worker drains

    `succeeded`, `failed` (the handler said that trying again is useless) and `dead` (attempts used up) are final.
    """

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether the task will never change again."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.DEAD)


class TaskRequest(ApiModel):
    """A task to be done, as a client submits it."""

    id: str | None = Field(default=None, pattern=TASK_ID.pattern)
    """Name of the task, unique in its queue; made up if unset. Submitting an id again is refused, so a client
    that does not know whether its call arrived can safely repeat it."""
    queue: ObjectName | None = None
    """The TaskQueue; the CentralAgent's first one if unset."""
    agent: ObjectName | None = None
    """The Agent that must do it; any Agent of the queue if unset."""
    type: str = Field(default="", max_length=253)
    """A word for the handler, to tell kinds of work apart."""
    payload: JsonValue = None
    """The input, any JSON value. Its size in bytes is limited by the TaskQueue's `maxPayloadBytes`."""
    priority: int = Field(default=PRIORITY_DEFAULT, ge=PRIORITY_LOWEST, le=PRIORITY_HIGHEST)
    """0 (last) to 9 (first). Strict: a waiting task of a higher priority always goes first; inside one priority,
    first in, first out."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=604800)
    """Seconds that one attempt may take; the TaskQueue's `taskTimeoutSeconds` if unset."""
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    """Attempts in all; the TaskQueue's `retry.maxAttempts` if unset."""


class BatchRequest(ApiModel):
    """Tasks that are submitted together: all of them, or none."""

    tasks: list[TaskRequest] = Field(min_length=1, max_length=10000)
    """The tasks. All must be for one queue."""

    @model_validator(mode="after")
    def _one_queue(self) -> Self:
        if len({task.queue for task in self.tasks}) > 1:
            raise ValueError("the tasks of a batch must all be for one queue: split the batch by queue")
        return self


class TaskFailure(ApiModel):
    """Why an attempt failed."""

    code: str
    """Stable word: FAILED, TIMEOUT, LEASE_EXPIRED, RESULT_TOO_LARGE, RESULT_NOT_JSON or an error's own code."""
    message: str
    """The error's text, with its class."""
    attempt: int
    """The attempt that failed, counted from 1."""
    worker: str
    """The agent instance that ran it."""
    at: datetime
    """When it failed."""


class TaskRecord(ApiModel):
    """A task and all that is known about it."""

    id: str
    """Name of the task, unique in its queue."""
    queue: str
    """The TaskQueue it is in."""
    state: TaskState
    """Where it is."""
    agent: str | None = None
    """The Agent that must do it, if one was named."""
    type: str = ""
    """The word that the submitter gave it."""
    priority: int = PRIORITY_DEFAULT
    """0 (last) to 9 (first)."""
    payload: JsonValue = None
    """The input."""
    attempts: int = 0
    """Attempts that have begun and count."""
    max_attempts: int
    """Attempts in all."""
    timeout_seconds: float
    """Seconds that one attempt may take."""
    created_at: datetime
    """When it was submitted."""
    due_at: datetime | None = None
    """When the next attempt may begin, while scheduled."""
    started_at: datetime | None = None
    """When the last attempt began."""
    finished_at: datetime | None = None
    """When it became final."""
    worker: str | None = None
    """The agent instance that runs or ran it."""
    result: JsonValue = None
    """What the handler returned, once succeeded."""
    failures: list[TaskFailure] = Field(default_factory=list)
    """The attempts that failed, oldest first."""


class QueueStats(ApiModel):
    """Figures of one queue at one moment."""

    queue: str
    """The TaskQueue."""
    queued: int
    """Tasks that wait for a worker."""
    running: int
    """Tasks that are being worked on."""
    scheduled: int
    """Tasks that wait for their next attempt."""
    dead: int
    """Tasks that have used up their attempts."""
    succeeded_total: int
    """Tasks that have succeeded since the queue exists."""
    failed_total: int
    """Tasks that have failed or died since the queue exists."""
    oldest_at: datetime | None = None
    """When the oldest waiting task was submitted."""


class InstanceInfo(ApiModel):
    """One running process of an Agent, as its heartbeat describes it."""

    agent: str
    """The Agent it belongs to."""
    instance: str
    """Its unique name; in a cluster the pod's name."""
    queue: str
    """The TaskQueue it takes tasks from."""
    version: str
    """Version of the agent runtime."""
    concurrency: int
    """How many tasks it works on at most."""
    running: int
    """How many it works on now."""
    draining: bool = False
    """It finishes what it runs and takes nothing new."""
    started_at: datetime
    """When the process started."""
    last_beat_at: datetime
    """When its last heartbeat arrived, by the clock of Redis."""
    healthy: bool
    """Whether that is recent enough."""


class ErrorBody(ApiModel):
    """The body of every error on HTTP."""

    error: str
    """What happened and what to do, in a sentence."""
    code: str
    """Stable word for programs."""
    timestamp: datetime
    """When it happened."""
    details: dict[str, Any] = Field(default_factory=dict)
    """More, depending on the code: for example which field is wrong."""
