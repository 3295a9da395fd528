# SPDX-License-Identifier: Apache-2.0
"""Submitters and workers that go on whatever happens, and count what they were promised."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from agent_runtime.cancellation import end
from agent_runtime.queue import TaskQueue, Worker
from kubeagents_api.task import TaskState
from tests.integration.queue.actors import succeeded, tasks
from tests.support.eventually import eventually_async

BATCH = 5


class Load:
    """One submitter and one worker for each client of a queue."""

    def __init__(self, clients: Sequence[TaskQueue]) -> None:
        self._clients = clients
        self.submitted: list[str] = []
        """Ids that were acknowledged."""
        self.accepted: Counter[str] = Counter()
        """How often an outcome of a task was accepted."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Submit and work until the end of the context; then work until nothing is left."""
        submitters = [asyncio.create_task(self._submit(client)) for client in self._clients]
        workers = [asyncio.create_task(self._work(client, f"w-{n}")) for n, client in enumerate(self._clients)]
        try:
            yield
            await end(*submitters)
            await eventually_async(self._idle, what="all that was submitted is done", timeout=60)
        finally:
            await end(*submitters, *workers)
            for task in (*submitters, *workers):
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def settled(self, more: int) -> None:
        """Return when so many more outcomes have been accepted."""
        goal = self.accepted.total() + more

        async def reached() -> bool:
            assert self.accepted.total() >= goal, f"{self.accepted.total()} of {goal}"
            return True

        await eventually_async(reached, what="the work goes on", timeout=60)

    async def check(self) -> None:
        """Every task that was acknowledged has ended well, and exactly one outcome of it was accepted."""
        for task_id in self.submitted:
            record = await self._clients[0].get(task_id)
            assert record.state is TaskState.SUCCEEDED, record
        assert {task: times for task, times in self.accepted.items() if times != 1} == {}

    async def _idle(self) -> bool:
        stats = await self._clients[0].stats()
        assert (stats.queued, stats.running, stats.scheduled) == (0, 0, 0), stats
        return set(self.accepted) >= set(self.submitted)  # whoever settled has been told so

    async def _submit(self, queue: TaskQueue) -> None:
        while True:
            self.submitted += await queue.submit(tasks(*range(BATCH)))
            await asyncio.sleep(0.02)  # else the queue only grows

    async def _work(self, queue: TaskQueue, name: str) -> None:
        worker = Worker(agent="echo", instance=name)
        while True:
            claims = await queue.claim(worker, limit=BATCH, wait_seconds=1)
            verdicts = await queue.settle(succeeded(claims))
            self.accepted.update(claim.id for claim, held in zip(claims, verdicts, strict=True) if held)
