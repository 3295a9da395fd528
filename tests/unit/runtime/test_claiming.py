# SPDX-License-Identifier: Apache-2.0
"""How much is claimed, and when."""

import asyncio
from collections.abc import Sequence

import pytest

from agent_runtime.agent import Context, Task
from agent_runtime.queue.base import Claim, Outcome, Worker
from agent_runtime.queue.memory import MemoryTaskQueue
from agent_runtime.testing import running
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest


class Watched(MemoryTaskQueue):
    """Remembers how many claims were under way at once, and how many tasks were held."""

    def __init__(self) -> None:
        super().__init__(QueueConfig(name="tasks", namespace="test", url_env=""))
        self.under_way = 0
        self.most_under_way = 0
        self.asked: list[int] = []
        self.running = 0
        self.most_running = 0

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.asked.append(limit)
        try:
            await asyncio.sleep(0.001)  # a round trip
            return await super().claim(worker, limit=limit, wait_seconds=wait_seconds)
        finally:
            self.under_way -= 1

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        await asyncio.sleep(0.001)
        return await super().settle(outcomes)


@pytest.mark.parametrize("concurrency", [1, 16, 200, 1000])
@pytest.mark.parametrize("waits", [False, True])
async def test_no_more_is_held_than_allowed_and_all_is_done(concurrency: int, waits: bool) -> None:
    queue = Watched()

    async def handle(task: Task, ctx: Context) -> int:
        queue.running += 1
        queue.most_running = max(queue.most_running, queue.running)
        assert (await queue.stats()).running <= 2 * concurrency, "held, and ended but not settled yet"
        if waits:
            await asyncio.sleep(0.001)
        queue.running -= 1
        number: int = task.payload
        return number

    count = min(3000, 100 * concurrency)
    async with running(handle, queue, concurrency=concurrency):
        ids = await queue.submit([TaskRequest(payload=number) for number in range(count)])
        records = await queue.wait(ids, timeout_seconds=60)
    assert [record.result for record in records] == list(range(count))
    assert queue.most_running <= concurrency
    assert max(queue.asked) <= concurrency
    assert queue.most_under_way == (2 if concurrency >= 128 else 1)


async def test_an_idle_process_has_one_claim_under_way() -> None:
    queue = Watched()

    async def handle(task: Task, ctx: Context) -> None:
        return None

    async with running(handle, queue, concurrency=1000):
        await queue.wait(await queue.submit([TaskRequest()]), timeout_seconds=10)
        asked = len(queue.asked)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert queue.under_way == 1
        assert len(queue.asked) <= asked + 1
