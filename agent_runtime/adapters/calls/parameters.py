# SPDX-License-Identifier: Apache-2.0
"""What the calls take. Strict and closed, as all models of the API."""

from pydantic import Field

from agent_runtime.adapters.http.models import (
    AgentsQuery,
    Author,
    CancelRequest,
    DeadQuery,
    DeadSelection,
    InstanceSelection,
    Offset,
    ResultsRequest,
)
from kubeagents_api.model import ApiModel, ObjectName
from kubeagents_api.task import BatchRequest, DeadFilter, TaskId, TaskRequest


class OfQueue(ApiModel):
    """What concerns one queue."""

    queue: ObjectName | None = None
    """The TaskQueue; the first one that the CentralAgent serves if unset."""


class Submission(ApiModel):
    """One task to be queued."""

    task: TaskRequest
    """The task."""


class OneTask(OfQueue):
    """One task of a queue."""

    id: TaskId
    """The task."""


class SomeResults(OfQueue, ResultsRequest):
    """Which results to wait for."""


class Cancellation(OfQueue, CancelRequest):
    """Which tasks are to be cancelled."""


class SomeDead(OfQueue, DeadQuery):
    """Which dead tasks to list. `cursor` is the id of the last one of the page before."""

    @property
    def which(self) -> DeadFilter:
        """What is given, as a filter."""
        return DeadFilter.model_validate(self.model_dump(exclude={"queue", "cursor", "limit"}, exclude_none=True))


class DeadChange(OfQueue, DeadSelection):
    """Which dead tasks to replay or purge."""


class GateChange(OfQueue, Author):
    """Who wants a gate shut or opened."""


class Cordon(OfQueue, InstanceSelection):
    """Which agent processes are to take no tasks, or to take tasks again."""


class Nothing(ApiModel):
    """No parameters."""


class Watched(OneTask):
    """A task whose stream is wanted."""

    after: Offset = ""
    """The offset after which to begin; empty for the beginning."""


class Followed(OfQueue):
    """A queue whose events are wanted."""

    after: Offset = Field(default="")
    """The offset after which to begin; empty for the oldest that is kept, `$` for what comes from now on."""


__all__ = [
    "AgentsQuery", "BatchRequest", "Cancellation", "Cordon", "DeadChange", "Followed", "GateChange", "Nothing",
    "OfQueue", "OneTask", "SomeDead", "SomeResults", "Submission", "Watched",
]  # fmt: skip
