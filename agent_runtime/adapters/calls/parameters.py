# SPDX-License-Identifier: Apache-2.0
"""What the calls take. Strict and closed, as all models of the API."""

from pydantic import Field

from agent_runtime.adapters.calls.work import (
    ClaimRequest,
    Heartbeat,
    HeldClaims,
    Inbox,
    Message,
    OneClaim,
    OneWorker,
    Outcomes,
    Saying,
)
from agent_runtime.adapters.http.models import AgentsQuery as AgentsQuery
from agent_runtime.adapters.http.models import (
    Author,
    CancelRequest,
    DeadQuery,
    DeadSelection,
    Offset,
    ResultsRequest,
)
from kubeagents_api.model import ApiModel, ObjectName
from kubeagents_api.task import DeadFilter, TaskId, TaskRequest


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


class WorkerOfQueue(OfQueue, OneWorker):
    """A process of a queue."""


class HeartbeatOfQueue(OfQueue, Heartbeat):
    """A sign of life."""


class ClaimOfQueue(OfQueue, ClaimRequest):
    """Who wants tasks of a queue, and how many."""


class HeldClaimsOfQueue(OfQueue, HeldClaims):
    """Attempts that are held."""


class OutcomesOfQueue(OfQueue, Outcomes):
    """How attempts ended."""


class OneClaimOfQueue(OfQueue, OneClaim):
    """An attempt that is held."""


class SayingOfQueue(OfQueue, Saying):
    """What an attempt says while it runs."""


class MessageOfQueue(OfQueue, Message):
    """A message to an Agent."""


class InboxOfQueue(OfQueue, Inbox):
    """Whose messages are wanted, and how many."""
