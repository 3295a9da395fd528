# SPDX-License-Identifier: Apache-2.0
"""The wire envelope: what a client submits, and what it reads back."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, ValidationError, model_validator

from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.model import ApiModel, ObjectName

PRIORITY_LOWEST = 0
PRIORITY_HIGHEST = 9
PRIORITY_DEFAULT = 5

TASK_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")

TaskId = Annotated[str, Field(pattern=TASK_ID.pattern)]
"""Name of a task, unique in its queue."""
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Whose task it is: tasks of one tenant share limits, and tenants get their turns."""
InstanceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]
"""Name of one agent process; in a cluster the pod's name."""


class TaskState(StrEnum):
    """Where a task is.

        blocked ──parents end──► scheduled ──due──► queued ──claim──► running ──► succeeded | failed | dead
                                     ▲                 ▲                 │
                                     └── failed try ───┼─────────────────┤
                                                       └── lease over ───┘  worker drains

    `succeeded`, `failed` (trying again is useless), `cancelled`, `expired` (its deadline has passed) and `dead`
    (attempts used up) are final. From every other state a task can be cancelled or expire. Only `dead` can be left
    again, by replaying the task.
    """

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether the task has ended. Only a dead one may come back, if it is replayed."""
        return self in _FINAL


_FINAL = frozenset((TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED, TaskState.DEAD))


class TaskRequest(ApiModel):
    """A task to be done, as a client submits it."""

    id: TaskId | None = None
    """Name of the task, unique in its queue; made up if unset. Submitting an id again is refused, so a client
    that does not know whether its call arrived can safely repeat it."""
    queue: ObjectName | None = None
    """The TaskQueue; the CentralAgent's first one if unset."""
    agent: ObjectName | None = None
    """The Agent that must do it. At most one of `agent`, `capability` and `instance` may be set; with none of them
    any Agent of the queue does it."""
    capability: ObjectName | None = None
    """What the Agent must be able to do: one of its `spec.capabilities`."""
    instance: InstanceName | None = None
    """The one agent process that must do it; in a cluster the pod's name."""
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
    delay_seconds: float | None = Field(default=None, ge=0, le=31536000)
    """Seconds that it waits before the first attempt. Not together with `notBefore`."""
    not_before: AwareDatetime | None = None
    """When the first attempt may begin, with time zone. Once due, the task has the place in its priority that its
    submission gave it."""
    deadline: AwareDatetime | None = None
    """When it expires unless it has ended, with time zone: nobody begins it any more, and who works on it is told to
    stop. The submission plus the TaskQueue's `taskTtlSeconds` if unset."""
    depends_on: tuple[TaskId, ...] = Field(default=(), max_length=1000)
    """The tasks that must end first: tasks of the queue, or of the same batch. Their results can be read while this
    task runs."""
    on_parent_failure: Literal["Fail", "Skip", "Run"] = "Fail"
    """What happens once a task that it depends on ends without success: `Fail` makes it failed, `Skip` cancelled,
    without running it; `Run` runs it all the same."""
    tenant: Tenant | None = None
    """Whose task it is. Inside a priority the tenants of a queue take turns, and each has the limits that the
    TaskQueue's `limits.perTenant` sets."""
    idempotency_key: str | None = Field(default=None, pattern=r"^[!-~]{1,256}$")
    """Name of what is to be done. While a task with the same key is known, for the TaskQueue's
    `deduplicationSeconds` after its submission, no second one is queued: the submission returns the first one's id."""

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        # In place of the base's: a second validator would cost a plain task a tenth more.
        if not self.model_fields_set.isdisjoint(_EXTRAS):
            self._check_extras()
        return self

    def _check_extras(self) -> None:
        if sum(target is not None for target in (self.agent, self.capability, self.instance)) > 1:
            raise ValueError("at most one of agent, capability and instance may be set")
        if self.delay_seconds is not None and self.not_before is not None:
            raise ValueError("at most one of delaySeconds and notBefore may be set")
        if self.deadline is not None and self.not_before is not None and self.deadline <= self.not_before:
            raise ValueError("deadline must be later than notBefore")
        if len(set(self.depends_on)) != len(self.depends_on):
            raise ValueError("dependsOn names a task twice")
        if self.id is not None and self.id in self.depends_on:
            raise ValueError("dependsOn is a cycle: the task depends on itself")


_EXTRAS = frozenset(("capability", "instance", "delay_seconds", "not_before", "deadline", "depends_on"))
"""Fields that exclude others."""


def task_of(fields: Mapping[str, Any]) -> TaskRequest:
    """A task by its fields, as Python spells them. Raises InvalidTaskError, which names the field."""
    unknown = fields.keys() - TaskRequest.model_fields.keys()
    if unknown:
        raise InvalidTaskError(f"a task has no field {min(unknown)!r}", field=min(unknown))
    try:
        return TaskRequest(**fields)
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0]) if fault["loc"] else "task"
        raise InvalidTaskError(f"{field}: {fault['msg']}", field=field) from None


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
    """Stable word: FAILED, TIMEOUT, LEASE_EXPIRED, RESULT_TOO_LARGE, RESULT_NOT_JSON, PARENT_FAILED, CANCELLED,
    DEADLINE_EXCEEDED, SHED or an error's own code."""
    message: str
    """The error's text, with its class."""
    attempt: int
    """The attempt that failed, counted from 1; 0 if the task ended without being tried."""
    worker: str | None = None
    """The agent instance that ran it."""
    at: datetime
    """When it failed."""


class TaskProgress(ApiModel):
    """How far a running task is, as its handler last said."""

    fraction: float | None = Field(default=None, ge=0, le=1)
    """0 to 1; unknown if unset."""
    message: str = ""
    """What it does now."""
    at: datetime
    """When it said so."""


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
    capability: str | None = None
    """What the Agent must be able to do, if that was named."""
    instance: str | None = None
    """The agent process that must do it, if one was named."""
    type: str = ""
    """The word that the submitter gave it."""
    priority: int = PRIORITY_DEFAULT
    """0 (last) to 9 (first)."""
    tenant: str | None = None
    """Whose task it is."""
    payload: JsonValue = None
    """The input."""
    depends_on: list[str] = Field(default_factory=list)
    """The tasks that had to end first."""
    waits_for: int = 0
    """How many of them have not ended yet, while blocked."""
    on_parent_failure: str = "Fail"
    """What happens if one of them ends without success."""
    idempotency_key: str | None = None
    """Name of what is to be done, if given."""
    deadline: datetime | None = None
    """When it expires."""
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
    progress: TaskProgress | None = None
    """How far it is, while running, if its handler says so."""
    started_at: datetime | None = None
    """When the last attempt began."""
    finished_at: datetime | None = None
    """When it became final."""
    worker: str | None = None
    """The agent instance that runs or ran it."""
    result: JsonValue = None
    """What the handler returned, once succeeded."""
    failures: list[TaskFailure] = Field(default_factory=list)
    """The attempts that failed, oldest first, and at the end why it was cancelled or expired."""
    replays: int = 0
    """How often it was dead and has been replayed; `attempts` counts from the last replay on."""


class ParentOutcome(ApiModel):
    """How a task ended that another one depends on."""

    state: TaskState
    """The final state."""
    result: JsonValue = None
    """What its handler returned, if it succeeded."""
    failure: TaskFailure | None = None
    """Why it did not succeed, otherwise."""


class StreamItem(ApiModel):
    """One thing that a running task said: how far it is, or a part of its result."""

    offset: str
    """Where it is in the stream; give it to read on from there."""
    attempt: int
    """The attempt that said it. A later attempt begins anew."""
    at: datetime
    """When it arrived."""
    kind: Literal["progress", "partial", "gap"]
    """`gap`: items before this one are not kept any more."""
    data: JsonValue = None
    """The part; for `progress` an object with `fraction` and `message`."""


class TaskEventKind(StrEnum):
    """What happened to a task or a queue."""

    SUBMITTED = "submitted"
    MERGED = "merged"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRYING = "retrying"
    LEASE_EXPIRED = "lease_expired"
    RELEASED = "released"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REPLAYED = "replayed"
    PURGED = "purged"
    PAUSED = "paused"
    RESUMED = "resumed"
    CLOSED = "closed"
    OPENED = "opened"


class TaskEvent(ApiModel):
    """One thing that happened in a queue."""

    offset: str
    """Where it is in the queue's events; give it to read on from there."""
    at: datetime
    """When, by the clock of Redis."""
    kind: TaskEventKind
    """What."""
    task: str | None = None
    """The task; none for what concerns the whole queue."""
    attempt: int | None = None
    """Its attempt, counted from 1."""
    seconds: float | None = None
    """How long the attempt took, for what ends one."""
    by: str | None = None
    """The agent instance, or who cancelled, replayed, paused."""


class DeadFilter(ApiModel):
    """Which dead tasks: those for which all that is set holds; all of them if nothing is."""

    ids: list[TaskId] | None = Field(default=None, max_length=10000)
    """These."""
    type: str | None = None
    """Of this type."""
    agent: ObjectName | None = None
    """For this Agent."""
    tenant: Tenant | None = None
    """Of this tenant."""
    code: str | None = None
    """Whose last failure has this code."""
    worker: str | None = None
    """Whose last attempt this agent instance ran."""
    before: AwareDatetime | None = None
    """That died before, with time zone."""
    after: AwareDatetime | None = None
    """That died then or later, with time zone."""


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
    blocked: int = 0
    """Tasks that wait for the tasks they depend on."""
    unroutable: int = 0
    """Queued tasks that no known agent process takes: they name an Agent, a capability or a process that is not
    there."""
    unroutable_targets: dict[str, int] = Field(default_factory=dict)
    """How many of them by target, for example `agent/billing`, `capability/ocr`, `instance/pod-1`; at most 20."""
    waiting: dict[str, int] = Field(default_factory=dict)
    """Queued tasks by target, as above; `""` are those that any Agent may take. The 200 largest."""
    waiting_since: dict[str, datetime] = Field(default_factory=dict)
    """When the oldest of them was submitted, by target."""
    submitted_total: int = 0
    """Tasks that have been queued since the queue exists."""
    succeeded_total: int
    """Tasks that have succeeded since the queue exists."""
    failed_total: int
    """Tasks that have failed or died since the queue exists."""
    cancelled_total: int = 0
    """Tasks that have been cancelled since the queue exists."""
    expired_total: int = 0
    """Tasks whose deadline has passed since the queue exists."""
    oldest_at: datetime | None = None
    """When the oldest waiting task was submitted."""
    oldest_seconds: float = 0.0
    """How long ago that is, by the clock of Redis; 0 if none waits."""
    paused_by: list[str] = Field(default_factory=list)
    """Who has paused the queue: nobody takes tasks. `spec` stands for the TaskQueue's own `paused`."""
    closed_by: list[str] = Field(default_factory=list)
    """Who has closed the queue to new tasks. `spec` stands for the TaskQueue's own `closed`."""


class InstanceInfo(ApiModel):
    """One running process of an Agent, as its heartbeat describes it."""

    agent: str
    """The Agent it belongs to."""
    capabilities: list[str] = Field(default_factory=list)
    """What it is able to do."""
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
    """It finishes what it runs and takes nothing new, because it stops."""
    cordoned: bool = False
    """It says that it takes nothing new, because it was told so. `running` then counts until all is recorded."""
    cordoned_by: list[str] = Field(default_factory=list)
    """Who wants it to take nothing new. The queue gives it nothing from then on; `cordoned` follows."""
    claimed_at: datetime | None = None
    """When the queue last answered it when it asked for tasks, or it had no room for any, by its own clock. None:
    never."""
    succeeded: int = 0
    """Attempts of the process that have succeeded."""
    failed: int = 0
    """Attempts of the process that have failed: by an error, a timeout or a result that was refused."""
    revision: str = ""
    """Which version of its Agent it is: the digest of the pod's template; empty outside of a cluster."""
    started_at: datetime
    """When the process started."""
    last_beat_at: datetime
    """When its last heartbeat arrived, by the clock of Redis."""
    healthy: bool
    """Whether that is recent enough."""

    @property
    def takes_tasks(self) -> bool:
        """Whether it takes new tasks once it has room for them."""
        return self.healthy and not (self.draining or self.cordoned or self.cordoned_by)


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
