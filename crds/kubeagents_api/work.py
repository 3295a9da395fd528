# SPDX-License-Identifier: Apache-2.0
"""What an agent outside of the cluster and a CentralAgent tell each other, on every wire.

It is the worker's half of a queue: register, beat, claim, extend, settle. A claimed task is held under a lease; its
token fences it, so what is said about an attempt that is not held any more changes nothing.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from kubeagents_api.interface import Interface
from kubeagents_api.model import ApiModel, ObjectName

InstanceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]
"""Name of a process, unique on its queue."""
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
_Count = Annotated[int, Field(ge=0, le=2**53)]
"""What every implementation of JSON can hold."""
_ClaimedId = Annotated[str, Field(min_length=1, max_length=253)]


class WorkerInfo(ApiModel):
    """Who takes tasks: one process of an Agent."""

    agent: ObjectName
    """The Agent it belongs to. There need not be a manifest of that name."""
    instance: InstanceId
    """Its name, unique on the queue."""
    capabilities: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(default_factory=list, max_length=64)
    """What it is able to do."""


class Terms(ApiModel):
    """What a process has to know of the queue that it registers at."""

    queue: str
    """The TaskQueue."""
    namespace: str
    """Its namespace."""
    lease_seconds: float
    """How long a claim is held unless it is extended."""
    agent_timeout_seconds: float
    """Silence for longer than this many seconds makes the process unhealthy."""
    max_payload_bytes: int
    """The largest payload, result or part of one, in bytes of JSON."""


class WorkerBeat(ApiModel):
    """What a process says about itself with each heartbeat."""

    worker: WorkerInfo
    """Who it is."""
    version: str = Field(max_length=100)
    """Version of the runtime."""
    concurrency: int = Field(ge=1, le=100000)
    """How many tasks it works on at most."""
    running: _Count
    """How many it works on now."""
    draining: bool = False
    """It finishes what it runs and takes nothing new, because it stops."""
    started_at_ms: _Count
    """When it started, in milliseconds since 1970, by its own clock."""
    claimed_at_ms: _Count | None = None
    """When the queue last answered it when it asked for tasks, or it had no room for any."""
    succeeded: _Count = 0
    """Attempts that have succeeded since it started."""
    failed: _Count = 0
    """Attempts that have failed."""
    revision: str = Field(default="", max_length=253)
    """Which version of its Agent it is."""
    cordoned: bool = False
    """It takes nothing new, and no claim of it is under way."""
    interface: Interface | None = None
    """What its Agent does, and what it wants for it, for those who look for agents."""


class WorkerOrders(ApiModel):
    """What a process is told with the answer to its heartbeat."""

    cordoned: bool = False
    """It shall take nothing new, until a later answer says otherwise."""


class ClaimRef(ApiModel):
    """One attempt of a task that is held, as whoever holds it names it. All fields are copied from the claimed task."""

    id: _ClaimedId
    """The task."""
    token: Token
    """Proves that it is held."""
    attempt: int = Field(ge=1, le=2**53)
    """Which attempt it is."""
    max_attempts: int = Field(ge=1, le=2**53)
    """How many there may be."""
    timeout_seconds: float = Field(gt=0)
    """How long the attempt may take."""


class ClaimedTask(ClaimRef):
    """A task that has been taken, to be worked on."""

    type: str
    """What kind of task it is."""
    payload: JsonValue
    """What was submitted."""
    priority: int
    """0 to 9."""
    agent: str | None = None
    """The Agent that it names, if it names one."""
    created_at_ms: int
    """When it was submitted, in milliseconds since 1970."""
    tenant: str | None = None
    """Its tenant."""
    depends_on: list[str] = Field(default_factory=list)
    """The tasks that it waited for."""
    deadline_ms: int | None = None
    """When it expires, in milliseconds since 1970."""


class WorkFailure(ApiModel):
    """Why an attempt failed."""

    code: str = Field(min_length=1, max_length=253)
    """Stable word for programs, for example `TIMEOUT`."""
    message: str = Field(max_length=65536)
    """What happened."""
    permanent: bool = False
    """Trying again is useless: the task fails at once."""
    delay_seconds: float | None = Field(default=None, ge=0, le=31_536_000)
    """Seconds until the next attempt, instead of the queue's backoff."""


class WorkOutcome(ApiModel):
    """How an attempt ended: it succeeded with a result, or it failed."""

    claim: ClaimRef
    """Which attempt."""
    result: JsonValue = None
    """What came out; null is a result too."""
    failure: WorkFailure | None = None
    """Why it failed, if it did."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.failure is not None and self.result is not None:
            raise ValueError("an outcome has a result or a failure, not both")
        return self


class WorkItem(ApiModel):
    """One thing that a running task says: how far it is, or a part of its result."""

    kind: Literal["progress", "partial"]
    """Which of both."""
    fraction: float | None = Field(default=None, ge=0, le=1)
    """Of progress: 0 to 1, if it is known."""
    message: str = Field(default="", max_length=65536)
    """Of progress: what is being done."""
    data: JsonValue = None
    """Of a part of the result: the part."""
