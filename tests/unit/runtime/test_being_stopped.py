# SPDX-License-Identifier: Apache-2.0
"""How a handler learns that its attempt is over, and why."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_runtime.agent import Context, StopReason, Task
from agent_runtime.queue.base import Claim, Worker
from agent_runtime.queue.memory import MemoryTaskQueue
from agent_runtime.testing import memory_queue, outcome, running
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest, TaskState
from kubeagents_api.task_queue import RetryPolicy

ONE_TRY = RetryPolicy(max_attempts=1)


class Waiter:
    """A handler that waits until it is stopped, and remembers why."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()
        self.reasons: list[StopReason | None] = []

    async def handle(self, task: Task, ctx: Context) -> None:
        assert not ctx.cancelled
        beside = asyncio.create_task(ctx.cancelled.wait())
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert ctx.cancelled
            assert await beside == ctx.cancelled.reason
            self.reasons.append(ctx.cancelled.reason)
            self.stopped.set()
            raise


async def test_a_cancelled_task_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waiter = Waiter()
    async with memory_queue() as queue, running(waiter.handle, queue):
        (task_id,) = await queue.submit([TaskRequest()])
        await waiter.begun.wait()
        assert await queue.cancel([task_id], by="the test") == [TaskState.CANCELLED]
        await asyncio.wait_for(waiter.stopped.wait(), 5)
        record = await queue.get(task_id)
    assert waiter.reasons == ["cancelled"]
    assert (record.state, record.attempts) == ("cancelled", 1)
    assert caplog.text.count(f"task {task_id} was cancelled: attempt 1 is dropped") == 1
    assert "came too late" not in caplog.text


async def test_a_task_that_takes_too_long_is_stopped_for_that() -> None:
    waiter = Waiter()
    async with memory_queue(retry=ONE_TRY) as queue, running(waiter.handle, queue):
        record = await outcome(queue, TaskRequest(timeout_seconds=0.05))
    assert waiter.reasons == ["timeout"]
    assert (record.state, record.failures[-1].code) == ("dead", "TIMEOUT")


async def test_a_task_whose_deadline_passes_is_stopped_even_if_nobody_else_looks_at_the_queue() -> None:
    waiter = Waiter()
    async with memory_queue() as queue, running(waiter.handle, queue, concurrency=1):
        deadline = datetime.now(UTC) + timedelta(seconds=0.2)
        (task_id,) = await queue.submit([TaskRequest(deadline=deadline)])
        await asyncio.wait_for(waiter.stopped.wait(), 10)
        assert (await queue.get(task_id)).state is TaskState.EXPIRED
    assert waiter.reasons == ["expired"]


async def test_the_end_of_a_drain_stops_what_runs_and_gives_it_back() -> None:
    waiter = Waiter()
    async with memory_queue() as queue:
        async with running(waiter.handle, queue):
            (task_id,) = await queue.submit([TaskRequest()])
            await waiter.begun.wait()
        record = await queue.get(task_id)
    assert waiter.reasons == ["drain"]
    assert (record.state, record.attempts) == (TaskState.QUEUED, 0)


class DeafQueue(MemoryTaskQueue):
    """Loses what it should announce, and says so when the test lets it."""

    def __init__(self) -> None:
        super().__init__(QueueConfig(name="tasks", namespace="test", url_env=""))
        self.broke = asyncio.Event()

    async def revoked(self, worker: Worker) -> Any:
        await self.broke.wait()
        self.broke.clear()
        yield []
        await asyncio.Event().wait()


async def test_after_a_gap_in_the_announcements_the_leases_tell() -> None:
    waiter = Waiter()
    queue = DeafQueue()
    async with running(waiter.handle, queue):
        (task_id,) = await queue.submit([TaskRequest()])
        await waiter.begun.wait()
        await queue.cancel([task_id], by="the test")
        assert not waiter.stopped.is_set()
        queue.broke.set()
        await asyncio.wait_for(waiter.stopped.wait(), 5)
    assert waiter.reasons == ["lost"], "the queue says only that it is not ours"


async def test_a_thread_can_see_that_it_is_to_stop() -> None:
    begun = asyncio.Event()
    turns: list[int] = []
    left = asyncio.Event()

    async def handle(task: Task, ctx: Context) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            count = 0
            while not ctx.cancelled:
                count += 1
            turns.append(count)
            loop.call_soon_threadsafe(left.set)

        await asyncio.to_thread(work)

    async with memory_queue() as queue, running(handle, queue):
        (task_id,) = await queue.submit([TaskRequest()])
        await begun.wait()
        await queue.cancel([task_id], by="the test")
        await asyncio.wait_for(left.wait(), 10)
    assert turns


class RenewalsSeen(MemoryTaskQueue):
    """Remembers which leases it was asked to renew."""

    def __init__(self) -> None:
        super().__init__(QueueConfig(name="tasks", namespace="test", url_env=""))
        self.renewed: list[str] = []
        self.seen = asyncio.Event()

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        self.renewed += [claim.id for claim in claims]
        self.seen.set()
        return await super().extend(claims)


async def test_a_handler_that_goes_on_after_its_task_was_cancelled_gets_no_lease_and_no_result() -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def stubborn(task: Task, ctx: Context) -> str:
        begun.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        return "late"

    queue = RenewalsSeen()
    async with running(stubborn, queue, lease_seconds=0.3, drain_seconds=5):
        (cancelled,) = await queue.submit([TaskRequest()])
        await begun.wait()
        (other,) = await queue.submit([TaskRequest()])
        await queue.cancel([cancelled], by="the test")
        await asyncio.sleep(0)  # the announcement arrives
        for _ in range(3):
            queue.renewed.clear()
            queue.seen.clear()
            await queue.seen.wait()
        assert queue.renewed == [other]
        go_on.set()
        (record,) = await queue.wait([other], timeout_seconds=20)
    assert record.result == "late"
    assert (await queue.get(cancelled)).state is TaskState.CANCELLED
