# SPDX-License-Identifier: Apache-2.0
"""What a handler says while it runs: progress and partial results."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from agent_runtime.agent import Context, Task
from agent_runtime.queue.base import Claim, Partial, Progress, TaskQueue
from agent_runtime.queue.memory import MemoryTaskQueue
from agent_runtime.testing import memory_queue, outcome, result, running
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import RetryPolicy

ONE_TRY = RetryPolicy(max_attempts=1)


async def said(queue: TaskQueue, task_id: str) -> list[Any]:
    """All that a task says until it ends: parts, and (fraction, message) of progress."""
    items = [item async for item in queue.stream(task_id)]
    return [
        (item.data["fraction"], item.data["message"])
        if item.kind == "progress" and isinstance(item.data, dict)
        else item.data
        for item in items
    ]


async def test_a_subscriber_hears_what_is_said_while_the_task_runs() -> None:
    heard = asyncio.Event()

    async def handle(task: Task, ctx: Context) -> str:
        await ctx.progress(0.5, "half")
        await ctx.partial({"n": 1})
        await heard.wait()
        return "done"

    async with memory_queue() as queue, running(handle, queue):
        (task_id,) = await queue.submit([TaskRequest()])
        items = []
        async for item in queue.stream(task_id):
            items.append((item.kind, item.data))
            if len(items) == 2:
                record = await queue.get(task_id)
                assert record.progress is not None
                assert (record.progress.fraction, record.progress.message) == (0.5, "half")
                heard.set()
    assert items == [("progress", {"fraction": 0.5, "message": "half"}), ("partial", {"n": 1})]


async def test_everything_has_arrived_before_the_task_has_ended() -> None:
    async def handle(task: Task, ctx: Context) -> None:
        for number in range(1000):
            await ctx.partial(number)
        if task.payload == "fails":
            raise ValueError

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue):
        for payload in ("succeeds", "fails"):
            record = await outcome(queue, TaskRequest(payload=payload))
            assert await said(queue, record.id) == list(range(1000))


async def test_of_progress_made_faster_than_it_travels_the_newest_is_sent() -> None:
    async def handle(task: Task, ctx: Context) -> None:
        for percent in range(101):
            await ctx.progress(percent / 100)
        await ctx.partial("part")
        await ctx.progress(None, "cleaning up")

    async with memory_queue() as queue, running(handle, queue):
        record = await outcome(queue, TaskRequest())
    assert await said(queue, record.id) == [(1.0, ""), "part", (None, "cleaning up")]


class SlowQueue(MemoryTaskQueue):
    """Takes what is said when the test lets it, and fails as the test wants."""

    def __init__(self, config: QueueConfig) -> None:
        super().__init__(config)
        self.open = asyncio.Event()
        self.asked = asyncio.Event()
        self.calls: list[int] = []
        self.errors: list[Exception] = []

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        self.asked.set()
        await self.open.wait()
        if self.errors:
            raise self.errors.pop()
        self.calls.append(len(items))
        return await super().emit(claim, items)


def slow_queue() -> SlowQueue:
    return SlowQueue(QueueConfig(name="tasks", namespace="test", url_env="", retry=ONE_TRY))


async def test_a_handler_that_outruns_the_queue_waits() -> None:
    spoken = 0

    async def handle(task: Task, ctx: Context) -> int:
        nonlocal spoken
        for number in range(2000):
            await ctx.partial(number)
            spoken += 1
        return spoken

    queue = slow_queue()
    async with running(handle, queue):
        (task_id,) = await queue.submit([TaskRequest()])
        await queue.asked.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert spoken < 600
        queue.open.set()
        (record,) = await queue.wait([task_id], timeout_seconds=20)
    assert record.result == 2000
    assert sum(queue.calls) == 2000
    assert len(queue.calls) < 20, "what waits together travels together"


async def test_words_on_their_way_hold_up_no_other_task() -> None:
    both = asyncio.Event()
    begun = 0

    async def handle(task: Task, ctx: Context) -> None:
        nonlocal begun
        begun += 1
        await ctx.partial(task.payload)
        if begun == 2:
            both.set()

    queue = slow_queue()
    ids = await queue.submit([TaskRequest(), TaskRequest()])
    async with running(handle, queue):
        await asyncio.wait_for(both.wait(), 10)
        assert [(await queue.get(task_id)).state for task_id in ids] == ["running", "running"]
        queue.open.set()
        records = await queue.wait(ids, timeout_seconds=20)
    assert [record.state for record in records] == ["succeeded", "succeeded"]


async def test_what_is_said_while_the_queue_is_away_arrives_once_it_is_back() -> None:
    async def handle(task: Task, ctx: Context) -> str:
        await ctx.partial("kept")
        return "done"

    queue = slow_queue()
    queue.open.set()
    queue.errors = [QueueUnavailableError("away"), QueueUnavailableError("away")]
    async with running(handle, queue):
        record = await outcome(queue, TaskRequest())
    assert (record.result, await said(queue, record.id)) == ("done", ["kept"])


async def test_what_the_queue_refuses_to_hear_fails_the_attempt() -> None:
    async def handle(task: Task, ctx: Context) -> str:
        await ctx.progress(0.1, "x" * 2_000_000)
        return "done"

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue):
        record = await outcome(queue, TaskRequest())
    assert (record.state, record.failures[-1].code) == ("failed", "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("value", "code"), [({1, 2}, "RESULT_NOT_JSON"), ("x" * 2_000_000, "PAYLOAD_TOO_LARGE")], ids=["set", "large"]
)
async def test_a_part_that_cannot_be_sent_fails_the_task_for_good(value: Any, code: str) -> None:
    async def handle(task: Task, ctx: Context) -> None:
        await ctx.partial(value)

    async with memory_queue() as queue, running(handle, queue):
        record = await outcome(queue, TaskRequest())
    assert (record.state, record.failures[-1].code) == ("failed", code)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf])
async def test_a_fraction_is_from_0_to_1(fraction: float) -> None:
    async def handle(task: Task, ctx: Context) -> str:
        with pytest.raises(ValueError, match="must be from 0 to 1"):
            await ctx.progress(fraction)
        return "checked"

    async with memory_queue() as queue, running(handle, queue):
        assert await result(queue, TaskRequest()) == "checked"


async def test_nothing_can_be_said_after_the_end() -> None:
    contexts: list[Context] = []

    async def handle(task: Task, ctx: Context) -> None:
        await ctx.partial(1)
        contexts.append(ctx)

    async with memory_queue() as queue, running(handle, queue):
        await result(queue, TaskRequest())
        with pytest.raises(RuntimeError, match="has ended, it can say nothing more"):
            await contexts[0].partial(2)


async def test_who_has_lost_its_task_is_told_when_it_speaks() -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()
    reasons: list[Any] = []

    async def handle(task: Task, ctx: Context) -> None:
        if task.attempt > 1:
            return
        begun.set()
        await go_on.wait()
        try:
            while True:
                await ctx.partial("still here")
                await asyncio.sleep(0)
        finally:
            reasons.append(ctx.cancelled.reason)
            with pytest.raises(asyncio.CancelledError):
                await ctx.progress(1)

    async with memory_queue(lease_seconds=1) as queue, running(handle, queue, lease_seconds=3000):
        (task_id,) = await queue.submit([TaskRequest()])
        await begun.wait()
        async with asyncio.timeout(10):
            while (await queue.get(task_id)).state == "running":  # its lease is not renewed, so it ends
                await asyncio.sleep(0.05)
                await queue.stats()
        go_on.set()
        await queue.wait([task_id], timeout_seconds=20)
    assert reasons == ["lost"]
