# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue as one caller may use it.

Who may work for some Agents only, shows itself and takes tasks as those only. What has been claimed is fenced by its
token, which nobody else knows. That a process came and went is noted in the audit log, and so is each denied call; what
becomes of the tasks is in the events of the queue.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from agent_runtime.queue.base import Beat, Claim, Orders, Outcome, Partial, Progress, Worker, WorkerQueue
from kubeagents_api.task import InstanceInfo, ParentOutcome, QueueStats, TaskRecord, TaskRequest, TaskState

if TYPE_CHECKING:
    from agent_runtime.security.guard import GuardedCore


class GuardedWorkers:
    """A WorkerQueue. All methods also raise ForbiddenError, and UnauthenticatedError if the key is revoked."""

    def __init__(self, queue: WorkerQueue, core: "GuardedCore") -> None:
        self.name = queue.name
        self._queue = queue
        self._core = core

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See WorkerQueue."""
        return list(await self._core.submit(self.name, tasks))

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See WorkerQueue."""
        return list(await self._core.cancel(self.name, task_ids, by=by, reason=reason))

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See WorkerQueue."""
        self._core.may_work("claim", self.name, worker)
        call = self._queue.claim(worker, limit=limit, wait_seconds=wait_seconds)
        return await (self._core.while_valid(call) if wait_seconds else call)

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See WorkerQueue."""
        self._core.may_work("extend", self.name)
        return await self._queue.extend(claims)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See WorkerQueue."""
        self._core.may_work("settle", self.name)
        return await self._queue.settle(outcomes)

    async def release(self, claims: Sequence[Claim]) -> None:
        """See WorkerQueue."""
        self._core.may_work("release", self.name)
        await self._queue.release(claims)

    async def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See WorkerQueue."""
        self._core.may_work("listen", self.name, worker)
        listening: Any = self._queue.revoked(worker)
        async with aclosing(listening), aclosing(self._core.items_while_valid(listening)) as items:
            async for ids in items:
                yield ids

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See WorkerQueue."""
        self._core.may_work("emit", self.name)
        return await self._queue.emit(claim, items)

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See WorkerQueue."""
        self._core.may_work("parents", self.name)
        return await self._queue.parents(claim)

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See WorkerQueue."""
        return list(await self._core.results(self.name, task_ids, timeout_seconds=timeout_seconds))

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See WorkerQueue. `timeout_seconds` is the CentralAgent's own."""
        del timeout_seconds
        return list(await self._core.instances(queue=self.name, agent=None))

    async def stats(self) -> QueueStats:
        """See WorkerQueue."""
        return await self._core.stats(self.name)

    async def beat(self, beat: Beat) -> Orders:
        """See WorkerQueue."""
        self._core.may_work("beat", self.name, beat.worker)
        return await self._queue.beat(beat)

    async def leave(self, worker: Worker) -> None:
        """See WorkerQueue."""
        with self._core.working("leave", self.name, worker):
            await self._queue.leave(worker)
