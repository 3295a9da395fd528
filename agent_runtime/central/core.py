# SPDX-License-Identifier: Apache-2.0
"""The core that the adapters call."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from agent_runtime.central.schedules import Plan
from agent_runtime.central.served import ServedQueue
from agent_runtime.central.workers import LentQueue
from agent_runtime.leader.base import Elector
from agent_runtime.queue.base import Gate, Worker, WorkerQueue
from agent_runtime.queue.sharding import choose_shard, made_up_ids
from kubeagents_api.errors import QueueNotFoundError
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.runtime_config import CentralAgentConfig
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

T = TypeVar("T")


class Central:
    """A CentralAgent's process: stateless, in front of its queues."""

    def __init__(
        self, config: CentralAgentConfig, *, instance: str, queues: Sequence[ServedQueue], elector: Elector
    ) -> None:
        self._config = config
        self._instance = instance
        self._queues: Mapping[str, ServedQueue] = {served.config.name: served for served in queues}
        self._elector = elector
        self._plans = {name: [Plan.of(found) for found in schedules] for name, schedules in config.schedules.items()}
        self._interfaces: dict[str, tuple[float, Sequence[InterfaceInfo]]] = {}
        """What Agents have said, by queue, and when it was asked for."""
        self._drained = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()

    @property
    def name(self) -> str:
        """Name of the CentralAgent."""
        return self._config.name

    @property
    def instance(self) -> str:
        """Name of this process."""
        return self._instance

    @property
    def queue_names(self) -> Sequence[str]:
        """The queues, the default one first."""
        return tuple(self._queues)

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that any queue takes."""
        return max(served.config.max_payload_bytes for served in self._queues.values())

    @property
    def draining(self) -> bool:
        """Whether `drain` has been called."""
        return self._drained.is_set()

    async def drained(self) -> None:
        """Return once `drain` has been called."""
        await self._drained.wait()

    @property
    def leader(self) -> str | None:
        """The instance that leads, as far as this one knows."""
        return self._elector.holder

    @property
    def waiting(self) -> int:
        """How many calls wait for results, events or parts of results."""
        return len(self._waits)

    def drain(self) -> None:
        """Answer all waits now, and from now on."""
        self._drained.set()
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    def trouble(self, queue: str) -> str | None:
        """Why the queue does not answer, as last seen."""
        return self._served(queue).link.trouble

    def may_block(self, queue: str) -> bool:
        """Whether a submission may wait until there is room for it."""
        return self._served(queue).config.limits.when_full == "Block"

    def named(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[TaskRequest]:
        """The tasks; those with an idempotency key have an id, so that one can tell whether they were merged."""
        if not any(task.idempotency_key and not task.id for task in tasks):
            return tasks
        config = self._served(queue).config
        made_up = iter(made_up_ids(len(tasks), shard=choose_shard(tasks, config) or 0, shards=config.shards))
        return [
            task.model_copy(update={"id": next(made_up)}) if task.idempotency_key and not task.id else task
            for task in tasks
        ]

    async def submit(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[str]:
        """Queue the tasks, all or none, and return their ids."""
        served = self._served(queue)
        return await served.ask(served.queue.submit(tasks))

    async def task(self, queue: str, task_id: str) -> TaskRecord:
        """One task."""
        served = self._served(queue)
        return await served.ask(served.queue.get(task_id))

    async def results(self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float) -> Sequence[TaskRecord]:
        """The tasks, once all are final, the time is over, or the process drains."""
        served = self._served(queue)
        found = await self._unless_drained(served.ask(served.queue.wait(task_ids, timeout_seconds=timeout_seconds)))
        return found if found is not None else await served.ask(served.queue.wait(task_ids, timeout_seconds=0))

    async def cancel(self, queue: str, task_ids: Sequence[str], *, by: str, reason: str) -> Sequence[TaskState]:
        """End tasks that have not ended, and return the state each is in now."""
        served = self._served(queue)
        return await served.ask(served.queue.cancel(task_ids, by=by, reason=reason))

    async def stream(self, queue: str, task_id: str, *, after: str) -> AsyncIterator[StreamItem]:
        """What a task says, until it has ended or the process drains."""
        served = self._served(queue)
        items = served.queue.stream(task_id, after=after)
        try:
            while (item := await self._unless_drained(served.ask(anext(items, None)))) is not None:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def dead(self, queue: str, which: DeadFilter, *, limit: int, after: str) -> Sequence[TaskRecord]:
        """Dead tasks, newest first."""
        served = self._served(queue)
        return await served.ask(served.queue.list_dead(which, limit=limit, after=after))

    async def replay(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """Queue dead tasks again."""
        served = self._served(queue)
        return await served.ask(served.queue.replay(which, by=by))

    async def purge(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """Remove dead tasks for good."""
        served = self._served(queue)
        return await served.ask(served.queue.purge(which, by=by))

    async def set_gate(self, queue: str, gate: Gate, *, shut: bool, by: str) -> None:
        """Shut a gate of the queue, or open it again."""
        served = self._served(queue)
        await served.ask(served.queue.set_gate(gate, shut=shut, by=by))

    async def events(self, queue: str, *, after: str, limit: int, wait_seconds: float) -> Sequence[TaskEvent]:
        """What happened after the offset; none if the time is over or the process drains."""
        served = self._served(queue)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        while True:
            left = max(0.0, until - loop.time())
            call = served.queue.events(after=after, limit=limit, wait_seconds=left)
            found = await self._unless_drained(served.ask(call))
            if found or found is None or left == 0:
                return found or []

    async def schedules(self, queue: str) -> Sequence[ScheduleInfo]:
        """The schedules of a queue."""
        served = self._served(queue)
        plans = self._plans.get(queue)
        if not plans:
            return []
        fired = await served.ask(served.queue.fired())
        now = datetime.fromtimestamp(time.time(), UTC)
        return [plan.info(queue, fired=fired.get(plan.schedule.name), now=now) for plan in plans]

    async def stats(self, queue: str) -> QueueStats:
        """The figures of one queue."""
        served = self._served(queue)
        return await served.ask(served.queue.stats())

    async def set_cordon(self, queue: str, instances: Sequence[str], *, cordoned: bool, by: str) -> None:
        """Let agent processes take nothing new, or take tasks again."""
        served = self._served(queue)
        change = served.queue.cordon if cordoned else served.queue.uncordon
        await served.ask(change(instances, by=by))

    async def instances(self, *, queue: str | None, agent: str | None) -> Sequence[InstanceInfo]:
        """The known agent processes."""
        asked = list(self._queues.values()) if queue is None else [self._served(queue)]
        timeout = self._config.agent_timeout_seconds
        answers = await asyncio.gather(
            *(served.ask(served.queue.instances(timeout_seconds=timeout)) for served in asked)
        )
        return [found for answer in answers for found in answer if agent is None or found.agent == agent]

    def register(self, queue: str, worker: Worker) -> Terms:
        """What an agent's process outside of the cluster has to know of the queue."""
        config = self._served(queue).config
        return Terms(
            queue=config.name,
            namespace=config.namespace,
            lease_seconds=config.lease_seconds,
            agent_timeout_seconds=self._config.agent_timeout_seconds,
            max_payload_bytes=config.max_payload_bytes,
        )

    def worker_queue(self, queue: str) -> WorkerQueue:
        """The worker's half of the queue, for such processes."""
        return LentQueue(self._served(queue), unless_drained=self._unless_drained)

    async def interfaces(self, *, queue: str | None, max_age_seconds: float = 0.0) -> Sequence[InterfaceInfo]:
        """What Agents say about themselves."""
        asked = list(self._queues.values()) if queue is None else [self._served(queue)]
        answers = await asyncio.gather(*(self._interfaces_of(served, max_age_seconds) for served in asked))
        return [found for answer in answers for found in answer]

    async def _interfaces_of(self, served: ServedQueue, max_age_seconds: float) -> Sequence[InterfaceInfo]:
        asked_at, known = self._interfaces.get(served.config.name, (-math.inf, ()))
        if time.monotonic() - asked_at > max_age_seconds:
            asked_at, known = time.monotonic(), await served.ask(served.queue.interfaces())
            self._interfaces[served.config.name] = (asked_at, known)
        return known

    def may_submit(self, queue: str, agent: str | None) -> bool:
        """Whether tasks may be submitted to the queue. Raises QueueNotFoundError."""
        self._served(queue)
        return True

    async def _unless_drained(self, call: Awaitable[T]) -> T | None:
        """What the call returns; None if the process drains before."""
        wait = asyncio.timeout(0 if self.draining else None)
        self._waits.add(wait)
        try:
            async with wait:
                return await call
        except TimeoutError:
            if not wait.expired():
                raise
            return None
        finally:
            self._waits.discard(wait)

    def _served(self, queue: str) -> ServedQueue:
        try:
            return self._queues[queue]
        except KeyError:
            raise QueueNotFoundError(
                f"this CentralAgent does not serve a queue {queue!r}; it serves {', '.join(self._queues)}"
            ) from None
