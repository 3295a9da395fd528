# SPDX-License-Identifier: Apache-2.0
"""The seam between everything that uses a queue and what holds it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from kubeagents_api.interface import Interface, InterfaceInfo
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    ParentOutcome,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
    TaskState,
)


@dataclass(frozen=True, slots=True)
class Worker:
    """Who claims tasks: one process of an Agent."""

    agent: str
    instance: str
    """Unique among all processes on the queue; in a cluster the pod's name."""
    capabilities: tuple[str, ...] = ()
    """What it is able to do."""


# Not frozen, though nobody may change them: frozen ones take three times as long to make, and every task needs two.
@dataclass(slots=True, unsafe_hash=True)
class Claim:
    """One attempt of a task, held under a lease. `token` fences it: a newer attempt makes it worthless."""

    id: str
    type: str
    payload: bytes
    """JSON as it was submitted; decoded by whoever needs the value."""
    priority: int
    attempt: int
    """Counted from 1; from the last replay on, if the task was dead before."""
    max_attempts: int
    timeout_seconds: float
    agent: str | None
    created_at_ms: int
    token: str
    tenant: str | None = None
    depends_on: tuple[str, ...] = ()
    deadline_ms: int | None = None


@dataclass(slots=True, unsafe_hash=True)
class Succeeded:
    """The attempt is done. `result` is JSON."""

    claim: Claim
    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. Retried by the queue's policy, unless `permanent` or its attempts are used up."""

    claim: Claim
    code: str
    message: str
    permanent: bool = False
    delay_seconds: float | None = None
    """Seconds until the next attempt, instead of the queue's backoff."""


Outcome = Succeeded | Failed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task is. The newest one also shows in the task's record."""

    fraction: float | None
    """0 to 1; None if that is not known."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """A part of a running task's result. `data` is JSON."""

    data: bytes


class Gate(StrEnum):
    """What can be shut on a queue. Each may be shut by several at once; it is open when all have opened it again."""

    CLAIMS = "claims"
    """Shut: nobody takes tasks (paused)."""
    SUBMISSIONS = "submissions"
    """Shut: new tasks are refused with QueueClosedError (closed, to be drained)."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What an agent process says about itself with each heartbeat."""

    worker: Worker
    version: str
    concurrency: int
    running: int
    """What it works on; while cordoned also what it has not been able to record yet."""
    draining: bool
    started_at_ms: int
    claimed_at_ms: int | None = None
    """When the queue last answered a claim, or there was no room for more, by the clock of the process."""
    succeeded: int = 0
    failed: int = 0
    """Attempts since the process began; those that were taken away or given back count as neither."""
    revision: str = ""
    """Which version of its Agent the process is."""
    cordoned: bool = False
    """It takes nothing new, and no claim of it is under way."""
    interface: Interface | None = None
    """What its Agent does; None if it does not say."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What an agent process is told with the answer to its heartbeat."""

    cordoned: bool = False
    """It shall take nothing new, until a later answer says otherwise."""


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """What holds the queue, and whether it keeps what it acknowledged."""

    server: str
    """For example `redis 7.4.1` or `valkey 8.1.0`."""
    eviction_policy: str | None
    """`maxmemory-policy`; None where the server does not tell (some managed services forbid CONFIG)."""
    append_only: bool
    latency_ms: float
    """One round trip."""


class WorkerQueue(Protocol):
    """What an agent's process needs of a queue. Also there over a wire, for processes outside of the cluster.

    All methods raise QueueUnavailableError (QueueAuthError when refused) when the server cannot be reached.
    """

    name: str

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """Queue the tasks atomically, all or none, and return their ids.

        For a task that is merged with an earlier one of the same idempotency key it is the earlier one's id.
        Raises PayloadTooLargeError, DuplicateTaskError or InvalidTaskError, which name the task and field;
        QueueClosedError; QueueFullError if they do not fit, with `limits.whenFull: Block` after waiting.
        """
        ...

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """End tasks that are blocked, scheduled, queued or running, and return the state each is in now.

        That is CANCELLED, or how it had ended before. Who runs one is told at once (`revoked`), and its lease is over.
        Raises TaskNotFoundError, and has changed nothing then.
        """
        ...

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """Up to `limit` tasks for the worker, best first; waits up to `wait_seconds` for the first one.

        Also moves what is due: scheduled tasks to queued, tasks with an expired lease back to queued (or to dead).
        Raises CordonedError at once, also in the midst of its wait, while the worker is cordoned.
        """
        ...

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """Renew the leases. Returns the claims that are no longer held: their work must be abandoned."""
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Record how attempts ended. False for each one that was no longer held: it changed nothing."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give back what cannot be finished, to the places it had in the queue, without spending an attempt."""
        ...

    def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """Ids of tasks that were taken away from the worker: cancelled, or expired. Ends when closed.

        An empty list says that there may be more to know: some may have been missed (the connection broke), or there
        are new orders. `extend` tells which are gone, and `beat` the orders.
        """
        ...

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """Add to what the attempt says while it runs. False if it is no longer held: nothing was added.

        Raises PayloadTooLargeError if one item is over the queue's limit.
        """
        ...

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """How the tasks ended that this one depends on. They are kept for it until it has ended, whatever their TTL."""
        ...

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """The tasks, as soon as all are final or the time is over; pushed, not polled. Raises TaskNotFoundError."""
        ...

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """All known agent processes; healthy are those whose last beat is at most `timeout_seconds` old."""
        ...

    async def stats(self) -> QueueStats:
        """The queue's figures."""
        ...

    async def beat(self, beat: Beat) -> Orders:
        """Record a heartbeat of an agent process, and tell it what it is to do."""
        ...

    async def leave(self, worker: Worker) -> None:
        """Forget an agent process that stops in order, and that it was cordoned."""
        ...


class TaskQueue(WorkerQueue, Protocol):
    """One queue. Every method is one round trip (long lists take several), or a blocking wait on top of one."""

    async def fire(self, schedule: str, due: datetime, task: TaskRequest) -> bool:
        """Submit the task of a schedule, unless the schedule has fired for this due time or a later one.

        Both in one step, so that each due time fires once, whoever leads. Raises what `submit` raises; then it has not
        fired.
        """
        ...

    async def fired(self) -> dict[str, datetime]:
        """The last due time that each schedule fired for."""
        ...

    def stream(self, task_id: str, *, after: str = "") -> AsyncIterator[StreamItem]:
        """What a task says, from the offset on, or from the beginning; ends after the task has ended.

        Pushed, not polled; any number may listen. Raises TaskNotFoundError, InvalidTaskError for a bad offset.
        """
        ...

    async def get(self, task_id: str) -> TaskRecord:
        """A task and all that is known about it. Raises TaskNotFoundError."""
        ...

    async def list_dead(self, which: DeadFilter | None = None, *, limit: int, after: str = "") -> list[TaskRecord]:
        """Dead tasks, newest first. `after` is the id of the last one of the page before."""
        ...

    async def replay(self, which: DeadFilter, *, by: str) -> list[str]:
        """Queue dead tasks again, with all their attempts, and return their ids. What is not dead is left alone."""
        ...

    async def purge(self, which: DeadFilter, *, by: str) -> list[str]:
        """Remove dead tasks for good, and return their ids."""
        ...

    async def set_gate(self, gate: Gate, *, shut: bool, by: str) -> None:
        """Shut a gate of the queue, or open it again as far as `by` had shut it."""
        ...

    async def events(self, *, after: str = "", limit: int, wait_seconds: float = 0.0) -> list[TaskEvent]:
        """Up to about `limit` events after the offset, oldest first; waits up to `wait_seconds` for the first.

        An empty `after` begins with the oldest that is kept, `$` with the newest one.
        Raises InvalidTaskError for a bad offset.
        """
        ...

    async def cordon(self, instances: Sequence[str], *, by: str) -> None:
        """Have agent processes take nothing new. They need not be known yet.

        Once this has returned, no claim of theirs gets anything. What they run goes on. They hear of it at once
        (`revoked`) and say so with a heartbeat. It holds until everybody who cordoned them has lifted it, or the
        process leaves or is forgotten; for one that never showed up, an hour.
        """
        ...

    async def uncordon(self, instances: Sequence[str], *, by: str) -> None:
        """Let agent processes take tasks again, as far as `by` had cordoned them. They hear of it at once."""
        ...

    async def interfaces(self) -> list[InterfaceInfo]:
        """What the Agents of the queue have said about themselves, one for each, sorted by name.

        Also of those whose last process has been gone for less than a day.
        """
        ...

    async def forget_silent(self, *, silent_seconds: float) -> list[str]:
        """Drop the processes that have been silent for longer than that; returns their instance names."""
        ...

    async def storage(self) -> StorageInfo:
        """What holds the queue."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
