# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue, as a CentralAgent lends it to agents outside of the cluster."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from agent_runtime.central.served import ServedQueue
from agent_runtime.queue.base import Beat, Claim, Orders, Outcome, Partial, Progress, Worker
from kubeagents_api.task import InstanceInfo, ParentOutcome, QueueStats, TaskRecord, TaskRequest, TaskState

T = TypeVar("T")

Drainable = Callable[[Awaitable[Any]], Awaitable[Any]]
"""Awaits a call; None if the process drains before."""


class LentQueue:
    """A WorkerQueue: the served queue, but whatever waits ends when the process drains. Workers then go elsewhere."""

    def __init__(self, served: ServedQueue, *, unless_drained: Drainable) -> None:
        self.name = served.config.name
        self._served = served
        self._queue = served.queue
        self._unless_drained = unless_drained

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.submit(tasks))

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.cancel(task_ids, by=by, reason=reason))

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See WorkerQueue. None are given once the process drains."""
        call = self._served.ask(self._queue.claim(worker, limit=limit, wait_seconds=wait_seconds))
        return await self._unless_drained(call) or []

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.extend(claims))

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.settle(outcomes))

    async def release(self, claims: Sequence[Claim]) -> None:
        """See WorkerQueue."""
        await self._served.ask(self._queue.release(claims))

    async def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See WorkerQueue. Ends once the process drains."""
        listening: Any = self._queue.revoked(worker)
        async with aclosing(listening):
            while (ids := await self._unless_drained(self._served.ask(anext(listening, None)))) is not None:
                yield ids

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.emit(claim, items))

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.parents(claim))

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See WorkerQueue. When the process drains, the tasks as they are now."""
        found = await self._unless_drained(
            self._served.ask(self._queue.wait(task_ids, timeout_seconds=timeout_seconds))
        )
        return found if found is not None else await self._served.ask(self._queue.wait(task_ids, timeout_seconds=0))

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.instances(timeout_seconds=timeout_seconds))

    async def stats(self) -> QueueStats:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.stats())

    async def beat(self, beat: Beat) -> Orders:
        """See WorkerQueue."""
        return await self._served.ask(self._queue.beat(beat))

    async def leave(self, worker: Worker) -> None:
        """See WorkerQueue."""
        await self._served.ask(self._queue.leave(worker))
