# SPDX-License-Identifier: Apache-2.0
"""Bodies and queries that exist on HTTP only."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from kubeagents_api.access import AuditEntry
from kubeagents_api.model import ApiModel, ObjectName
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    InstanceName,
    QueueStats,
    TaskEvent,
    TaskId,
    TaskRecord,
    TaskState,
    Tenant,
)

Seconds = Annotated[float, Field(ge=0, le=300)]
By = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,126}[!-~])?$")]
Reason = Annotated[str, Field(max_length=1000)]
Offset = Annotated[str, Field(max_length=4096)]


class SubmittedTask(ApiModel):
    """The answer to a submitted task."""

    id: str
    """Name of the task, unique in its queue."""
    queue: str
    """The TaskQueue it is in."""
    state: TaskState | None = None
    """Where it was put: `queued`, `scheduled` or `blocked`; for a merged task, where the earlier one is. Absent if that
    cannot be found out."""
    merged: bool = False
    """Whether nothing was queued, because an earlier task has the same idempotency key; `id` is that one's."""


class SubmittedBatch(ApiModel):
    """The answer to a submitted batch."""

    ids: list[str]
    """Names of the tasks, in the order of the batch; for a merged one, that of the earlier task."""
    queue: str
    """The TaskQueue they are in."""
    merged: list[str] = Field(default_factory=list)
    """Those of the ids that are of earlier tasks, because these have the same idempotency keys."""


class Author(ApiModel):
    """Who asks for a change of a queue."""

    by: By | None = None
    """Who asks; shown in the queue's events. The header `x-kubeagents-by` says it too; without either it is the
    client's address."""


class AuditQuery(ApiModel):
    """Query of the audit log."""

    after: Annotated[str, Field(pattern=r"^([0-9]{1,20}-[0-9]{1,20})?$")] = ""
    """Where to go on: `next` of an earlier answer. The oldest entry that is kept comes first if unset."""
    limit: int = Field(default=100, ge=1, le=1000)
    """The most entries."""


class AuditLog(ApiModel):
    """A page of the audit log."""

    entries: list[AuditEntry]
    """Oldest first."""
    next: str
    """The `after` of the next page."""


class CancelRequest(Author):
    """Which tasks are to be cancelled."""

    ids: list[TaskId] = Field(min_length=1, max_length=10000)
    """The tasks, all of one queue."""
    reason: Reason = ""
    """Why; kept in the tasks."""


class CancelQuery(Author):
    """Query of a cancellation."""

    reason: Reason = ""
    """Why; kept in the task."""


class TaskInState(ApiModel):
    """A task and where it is now."""

    id: str
    """Name of the task, unique in its queue."""
    state: TaskState
    """`cancelled`, or how it had ended before."""


class CancelledTasks(ApiModel):
    """The answer to a cancellation of several tasks."""

    queue: str
    """The TaskQueue they are in."""
    tasks: list[TaskInState]
    """The tasks, in the order asked for."""


class DeadSelection(Author):
    """Which dead tasks: exactly one of `ids`, `filter` and `all`."""

    ids: list[TaskId] | None = Field(default=None, min_length=1, max_length=10000)
    """These."""
    filter: DeadFilter | None = None
    """Those that fit."""
    all: Literal[True] | None = None
    """Each and every one."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if sum(given is not None for given in (self.ids, self.filter, self.all)) != 1:
            raise ValueError("exactly one of ids, filter and all must be given")
        if self.filter is not None and not self.filter.model_dump(exclude_none=True):
            raise ValueError("an empty filter would take all dead tasks: give all: true instead if that is meant")
        return self

    @property
    def which(self) -> DeadFilter:
        """The same as a filter."""
        return self.filter or DeadFilter(ids=self.ids)


class TaskIds(ApiModel):
    """The tasks that were changed."""

    queue: str
    """The TaskQueue they are or were in."""
    ids: list[str]
    """Names of the tasks. Those asked for that were not dead are not among them."""


class Gates(ApiModel):
    """What is shut on a queue, and by whom."""

    queue: str
    """The TaskQueue."""
    paused_by: list[str]
    """Who has paused it: nobody takes tasks until all have resumed. `spec` stands for the TaskQueue's own `paused`."""
    closed_by: list[str]
    """Who has closed it to new tasks. `spec` stands for the TaskQueue's own `closed`."""


class InstanceSelection(Author):
    """Which agent processes."""

    instances: list[InstanceName] = Field(min_length=1, max_length=1000)
    """Their names; in a cluster those of the pods."""


class Instances(ApiModel):
    """The agent processes that were changed."""

    queue: str
    """The TaskQueue they take tasks from."""
    instances: list[InstanceInfo]
    """The processes as they are known now; whether they have obeyed already shows in `cordoned`."""


class Events(ApiModel):
    """A part of what happened in a queue."""

    events: list[TaskEvent]
    """What happened, oldest first."""
    next: str
    """Give it as `after` to read on."""


class StreamEnd(ApiModel):
    """The last thing in a stream: nothing more will come."""

    kind: Literal["end"] = "end"
    """Always `end`."""
    state: TaskState | None = None
    """How the task has ended; absent if it is not known any more."""


class ResultsRequest(ApiModel):
    """Which results to wait for."""

    ids: list[TaskId] = Field(min_length=1, max_length=10000)
    """The tasks, all of one queue."""
    timeout_seconds: Seconds = 30.0
    """How long to wait, at most, until all of them are final."""


class Results(ApiModel):
    """What is final, and what is not yet."""

    tasks: list[TaskRecord]
    """The tasks that are final, in the order asked for."""
    pending: list[str]
    """The others: ask for them again."""


class AgentOverview(ApiModel):
    """One Agent, as the heartbeats of its processes describe it."""

    agent: str
    """Name of the Agent."""
    known: int
    """Processes that have sent a heartbeat and have not signed off."""
    healthy: int
    """Those of them whose last heartbeat is recent."""
    running: int
    """Tasks that they work on."""
    slots: int
    """Tasks that those which are healthy and take new ones can work on at once."""
    utilization: float
    """Share of these slots that is taken, 0 to 1; 0 if there are none."""
    waiting: int
    """Queued tasks that they may take: those that name the Agent, one of its capabilities or processes, or nobody."""
    instances: list[InstanceInfo]
    """The processes."""


class QueueStatus(ApiModel):
    """One queue, also when it does not answer."""

    queue: str
    """The TaskQueue."""
    trouble: str | None = None
    """Why it does not answer; absent if it does."""
    stats: QueueStats | None = None
    """Its figures; absent if it does not answer."""
    schedules: list[ScheduleInfo] = Field(default_factory=list)
    """Its schedules, if it answers."""


class CentralStatus(ApiModel):
    """One look at everything that a CentralAgent serves, also when a part of it is broken."""

    name: str
    """Name of the CentralAgent."""
    version: str
    """Version of the runtime."""
    instance: str
    """The process that answers."""
    leader: str | None = None
    """The process that leads, as far as this one knows."""
    queues: list[QueueStatus]
    """The queues, the default one first."""
    agents: list[AgentOverview]
    """The Agents whose processes are known, on the queues that answer."""


class ResultQuery(ApiModel):
    """Query of a wait for one result."""

    timeout_seconds: Seconds = 30.0
    """How long to wait until the task is final."""


class DeadQuery(ApiModel):
    """Query of dead tasks: those for which all that is given holds."""

    type: str | None = Field(default=None, max_length=253)
    """Of this type."""
    agent: ObjectName | None = None
    """For this Agent."""
    tenant: Tenant | None = None
    """Of this tenant."""
    code: str | None = Field(default=None, max_length=253)
    """Whose last failure has this code."""
    worker: str | None = Field(default=None, max_length=253)
    """Whose last attempt this agent instance ran."""
    before: AwareDatetime | None = None
    """That died before, with time zone."""
    after: AwareDatetime | None = None
    """That died then or later, with time zone."""
    cursor: TaskId | Literal[""] = ""
    """Id of the last task of the page before."""
    limit: int = Field(default=100, ge=1, le=1000)
    """How many, at most. If there may be more, the header `link` leads to the next page."""

    @property
    def which(self) -> DeadFilter:
        """What is given, as a filter."""
        return DeadFilter.model_validate(self.model_dump(exclude={"cursor", "limit"}, exclude_none=True))


class EventsQuery(ApiModel):
    """Query of events."""

    after: Offset = ""
    """The offset after which to read: `next` of the page before. Empty to begin with the oldest that is
    kept, `$` with the newest."""
    limit: int = Field(default=100, ge=1, le=1000)
    """About how many, at most."""
    wait_seconds: Seconds = 0.0
    """How long to wait for the first one. An event stream waits as long as the client does."""


class StreamQuery(ApiModel):
    """Query of a task's stream."""

    after: Offset = ""
    """The offset after which to read; empty for the beginning."""


class AgentsQuery(ApiModel):
    """Query of agent processes."""

    agent: ObjectName | None = None
    """Only those of this Agent."""
    queue: ObjectName | None = None
    """Only those that take tasks from this TaskQueue."""
