# SPDX-License-Identifier: Apache-2.0
"""Bodies and queries that exist on HTTP only."""

from typing import Annotated

from pydantic import Field

from kubeagents_api.model import ApiModel, ObjectName
from kubeagents_api.task import TASK_ID, InstanceInfo, QueueStats, TaskRecord, TaskState

TaskId = Annotated[str, Field(pattern=TASK_ID.pattern)]
Seconds = Annotated[float, Field(ge=0, le=300)]


class SubmittedTask(ApiModel):
    """The answer to a submitted task."""

    id: str
    """Name of the task, unique in its queue."""
    queue: str
    """The TaskQueue it is in."""
    state: TaskState
    """Where it is: queued."""


class SubmittedBatch(ApiModel):
    """The answer to a submitted batch."""

    ids: list[str]
    """Names of the tasks, in the order of the batch."""
    queue: str
    """The TaskQueue they are in."""


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
    """Query of dead tasks."""

    limit: int = Field(default=100, ge=1, le=1000)
    """How many, at most."""


class AgentsQuery(ApiModel):
    """Query of agent processes."""

    agent: ObjectName | None = None
    """Only those of this Agent."""
    queue: ObjectName | None = None
    """Only those that take tasks from this TaskQueue."""
