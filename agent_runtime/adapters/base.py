# SPDX-License-Identifier: Apache-2.0
"""The two sides of an adapter: what the process is to it, and what it is to the process."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry

from agent_runtime.queue.base import Gate, Worker, WorkerQueue
from agent_runtime.telemetry.http_server import AsgiApp
from kubeagents_api.endpoints import Endpoint
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
    TaskState,
)
from kubeagents_api.work import Terms

if TYPE_CHECKING:  # it is around a core
    from agent_runtime.queue.push_store import PushStore
    from agent_runtime.security import Guard, Tls


class Core(Protocol):
    """What a CentralAgent can do, whatever the wire.

    All methods raise QueueNotFoundError for a queue that is not served, and QueueUnavailableError when its Redis does
    not answer.
    """

    @property
    def name(self) -> str:
        """Name of the CentralAgent."""
        ...

    @property
    def instance(self) -> str:
        """Name of this process; in a cluster the pod's name."""
        ...

    @property
    def queue_names(self) -> Sequence[str]:
        """The queues that are served. The first one is for tasks that name none."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that any of them takes."""
        ...

    @property
    def draining(self) -> bool:
        """The process is stopping: clients should go elsewhere."""
        ...

    async def drained(self) -> None:
        """Return once the process is stopping."""
        ...

    @property
    def leader(self) -> str | None:
        """The instance that leads, as far as this one knows."""
        ...

    def trouble(self, queue: str) -> str | None:
        """Why the queue does not answer, as last seen; None if it does. Asks nobody, so it is never slow."""
        ...

    def may_block(self, queue: str) -> bool:
        """Whether a submission may wait until there is room for it."""
        ...

    def named(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[TaskRequest]:
        """The tasks; those with an idempotency key have an id.

        If `submit` returns another id for one that has an id, it was merged with that earlier task. Raises
        InvalidTaskError for a batch that no shard of the queue takes.
        """
        ...

    async def submit(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[str]:
        """Queue the tasks, all or none, and return their ids; for merged ones, those of the earlier tasks.

        Raises InvalidTaskError and its kinds, QueueClosedError, QueueFullError.
        """
        ...

    async def task(self, queue: str, task_id: str) -> TaskRecord:
        """One task. Raises TaskNotFoundError."""
        ...

    async def results(self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float) -> Sequence[TaskRecord]:
        """The tasks, once all are final, the time is over, or the process drains. Raises TaskNotFoundError."""
        ...

    async def cancel(self, queue: str, task_ids: Sequence[str], *, by: str, reason: str) -> Sequence[TaskState]:
        """End tasks that have not ended, and return the state each is in now. Raises TaskNotFoundError, then none is
        cancelled."""
        ...

    def stream(self, queue: str, task_id: str, *, after: str) -> AsyncIterator[StreamItem]:
        """What a task says, after the offset or from the beginning; ends when the task has ended or the process drains.

        Raises TaskNotFoundError, InvalidTaskError for a bad offset.
        """
        ...

    async def dead(self, queue: str, which: DeadFilter, *, limit: int, after: str) -> Sequence[TaskRecord]:
        """Dead tasks, newest first, after the one with the id `after`."""
        ...

    async def replay(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """Queue dead tasks again with all their attempts; their ids."""
        ...

    async def purge(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """Remove dead tasks for good; their ids."""
        ...

    async def set_gate(self, queue: str, gate: Gate, *, shut: bool, by: str) -> None:
        """Shut a gate of the queue, or open it again as far as `by` had shut it."""
        ...

    async def events(self, queue: str, *, after: str, limit: int, wait_seconds: float) -> Sequence[TaskEvent]:
        """What happened after the offset, oldest first; empty for the oldest that is kept, `$` for the newest. Waits
        for the first one; none if the time is over or the process drains. Raises InvalidTaskError for a bad offset."""
        ...

    async def schedules(self, queue: str) -> Sequence[ScheduleInfo]:
        """The schedules of a queue and when they fire."""
        ...

    async def stats(self, queue: str) -> QueueStats:
        """The figures of one queue."""
        ...

    async def set_cordon(self, queue: str, instances: Sequence[str], *, cordoned: bool, by: str) -> None:
        """Let agent processes take nothing new, or take tasks again as far as `by` had cordoned them."""
        ...

    async def instances(self, *, queue: str | None, agent: str | None) -> Sequence[InstanceInfo]:
        """The known agent processes; of one queue or of all (None), of one Agent or of all."""
        ...

    def register(self, queue: str, worker: Worker) -> Terms:
        """What an agent's process outside of the cluster has to know of the queue. Its first heartbeat shows it."""
        ...

    def worker_queue(self, queue: str) -> WorkerQueue:
        """The worker's half of the queue, for such processes."""
        ...

    async def interfaces(self, *, queue: str | None, max_age_seconds: float = 0.0) -> Sequence[InterfaceInfo]:
        """What Agents say about themselves; those of one queue or of all (None). It may have been true so long ago."""
        ...

    def may_submit(self, queue: str, agent: str | None) -> bool:
        """Whether the caller may submit tasks for an Agent, or that name none (None), to the queue."""
        ...


class Web(Protocol):
    """The HTTP port, which several adapters share."""

    def mount(self, prefix: str, app: AsgiApp, *, public: Collection[str] = ()) -> None:
        """Let `app` answer what is at the prefix or below it. The `public` paths need no key; `*` in one stands for
        what is between two slashes."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an adapter is built from."""

    core: Core
    guard: "Guard | None"
    """Admits callers; None where whoever reaches the port may do everything."""
    web: Web
    """For protocols that ride on HTTP."""
    host: str
    """Where to listen, for those that have a port of their own."""
    port: int
    """That port; 0 chooses a free one, and for those that ride on HTTP."""
    registry: CollectorRegistry
    tls: "Tls | None" = None
    """For protocols with a port of their own; None where nothing is encrypted."""
    endpoints: Mapping[Endpoint, int] = field(default_factory=dict)
    """All protocols of the process and their own ports, once it has started; 0 for those that ride on HTTP."""
    push_store: "PushStore | None" = None
    """Who wants to be told of tasks; None where nobody is."""


class Adapter(Protocol):
    """One protocol. Translates between its wire and the core, and nothing else."""

    def __init__(self, surroundings: Surroundings) -> None: ...

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if the address cannot be had."""
        ...

    async def stop(self, *, grace_seconds: float) -> None:
        """Take nothing new, let running calls end within the grace, then cut them."""
        ...


@runtime_checkable
class Listening(Protocol):
    """An adapter with a port of its own."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        ...
