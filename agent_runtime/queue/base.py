# SPDX-License-Identifier: Apache-2.0
"""The seam between everything that uses a queue and what holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kubeagents_api.task import InstanceInfo, QueueStats, TaskRecord, TaskRequest


@dataclass(frozen=True, slots=True)
class Worker:
    """Who claims tasks: one process of an Agent."""

    agent: str
    instance: str
    """Unique among all processes on the queue; in a cluster the pod's name."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt of a task, held under a lease. `token` fences it: a newer attempt makes it worthless."""

    id: str
    type: str
    payload: bytes
    """JSON as it was submitted; decoded by whoever needs the value."""
    priority: int
    attempt: int
    """Counted from 1."""
    max_attempts: int
    timeout_seconds: float
    agent: str | None
    created_at_ms: int
    token: str


@dataclass(frozen=True, slots=True)
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
class Beat:
    """What an agent process says about itself with each heartbeat."""

    worker: Worker
    version: str
    concurrency: int
    running: int
    draining: bool
    started_at_ms: int


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


class TaskQueue(Protocol):
    """One queue. Every method is one round trip (long lists take several), or a blocking wait on top of one.

    All methods raise QueueUnavailableError (QueueAuthError when refused) when the server cannot be reached.
    """

    name: str

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """Queue the tasks atomically, all or none, and return their ids.

        Raises PayloadTooLargeError, DuplicateTaskError or InvalidTaskError, which name the task and field.
        """
        ...

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """Up to `limit` tasks for the worker, best first; waits up to `wait_seconds` for the first one.

        Also moves what is due: scheduled tasks to queued, tasks with an expired lease back to queued (or to dead).
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

    async def get(self, task_id: str) -> TaskRecord:
        """A task and all that is known about it. Raises TaskNotFoundError."""
        ...

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """The tasks, as soon as all are final or the time is over; pushed, not polled. Raises TaskNotFoundError."""
        ...

    async def list_dead(self, *, limit: int) -> list[TaskRecord]:
        """Dead tasks, newest first."""
        ...

    async def stats(self) -> QueueStats:
        """The queue's figures."""
        ...

    async def beat(self, beat: Beat) -> None:
        """Record a heartbeat of an agent process."""
        ...

    async def leave(self, worker: Worker) -> None:
        """Forget an agent process that stops in order."""
        ...

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """All known agent processes; healthy are those whose last beat is at most `timeout_seconds` old."""
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
