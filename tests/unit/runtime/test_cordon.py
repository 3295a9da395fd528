# SPDX-License-Identifier: Apache-2.0
"""A process that is told to take nothing new."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from agent_runtime.agent import BatchContext, Context, Task
from agent_runtime.queue.base import Beat, Claim, Orders, Worker
from agent_runtime.testing import MemoryTaskQueue, running
from kubeagents_api.agent import BatchSettings
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import InstanceInfo, TaskRequest, TaskState
from tests.support.eventually import eventually_async

WORKER = "agent-1"


class Audited(MemoryTaskQueue):
    """Fails the test when a claim is under way, or something is held, while the last heartbeat says otherwise."""

    def __init__(self) -> None:
        super().__init__(QueueConfig(name="main", namespace="tests", url_env=""))
        self.under_way = 0
        self.last: Beat | None = None
        self.beats: list[Beat] = []
        self.settles = asyncio.Event()
        self.settles.set()

    async def beat(self, beat: Beat) -> Orders:
        await asyncio.sleep(0)  # on its way
        orders = await super().beat(beat)
        self.last = beat
        self.beats.append(beat)
        self.audit()
        await asyncio.sleep(0)
        return orders

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        self.under_way += 1
        self.audit()
        try:
            await asyncio.sleep(0)
            return await super().claim(worker, limit=limit, wait_seconds=wait_seconds)
        finally:
            self.under_way -= 1

    async def settle(self, outcomes: Any) -> list[bool]:
        await self.settles.wait()
        return await super().settle(outcomes)

    def audit(self) -> None:
        if self.last is None or not self.last.cordoned:
            return
        assert self.under_way == 0, "it says that it is cordoned, and asks for tasks"
        if self.last.running == 0:
            assert self._ledger.counts[TaskState.RUNNING] == 0, "it says that nothing runs"


@pytest.fixture
def queue() -> Audited:
    return Audited()


async def known(queue: MemoryTaskQueue) -> InstanceInfo:
    """What the registry knows of the process."""
    (info,) = await queue.instances(timeout_seconds=60)
    return info


async def seen(queue: MemoryTaskQueue, *, cordoned: bool, running: int = 0) -> None:
    """Wait until the process has said so."""

    async def probe() -> bool:
        info = await known(queue)
        return (info.cordoned, info.running) == (cordoned, running)

    await eventually_async(probe, what=f"cordoned={cordoned} running={running}", timeout=5, every=0.01)


class Gate:
    """A handler that holds its tasks until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, task: Task, ctx: Context) -> Any:
        await self.open.wait()
        return task.payload


async def test_an_idle_process_stops_asking_and_says_so_at_once(queue: Audited) -> None:
    async with running(Gate(), queue, agent="agent", heartbeat_seconds=60) as consumer:
        await queue.cordon([WORKER], by="test")
        await seen(queue, cordoned=True)
        assert queue.under_way == 0
        (task_id,) = await queue.submit([TaskRequest()])
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await queue.get(task_id)).state == "queued"
        report = consumer.ready()
        assert report.ok, report
        assert "takes no new tasks" in report.checks["cordoned"]


async def test_it_finishes_what_it_runs_and_says_so_at_once(queue: Audited) -> None:
    gate = Gate()
    async with running(gate, queue, agent="agent", heartbeat_seconds=60):
        ids = await queue.submit([TaskRequest(payload=number) for number in range(2)])
        await eventually_async(lambda: _runs(queue, 2), what="both run")
        await queue.cordon([WORKER], by="test")
        await seen(queue, cordoned=True, running=2)
        gate.open.set()
        await seen(queue, cordoned=True, running=0)
        assert [record.state for record in await queue.wait(ids, timeout_seconds=5)] == ["succeeded"] * 2
        info = await known(queue)
        assert (info.succeeded, info.failed) == (2, 0)


async def test_an_outcome_that_is_not_recorded_yet_counts_as_running(queue: Audited) -> None:
    gate = Gate()
    async with running(gate, queue, agent="agent", heartbeat_seconds=1):
        await queue.submit([TaskRequest()])
        await eventually_async(lambda: _runs(queue, 1), what="it runs")
        await queue.cordon([WORKER], by="test")
        queue.settles.clear()
        gate.open.set()
        await seen(queue, cordoned=True, running=1)
        beats = len(queue.beats)
        await eventually_async(lambda: _as_true(len(queue.beats) > beats), what="it goes on to beat")
        assert (await known(queue)).running == 1
        queue.settles.set()
        await seen(queue, cordoned=True, running=0)


async def test_it_takes_tasks_again_once_it_is_not_cordoned_any_more(queue: Audited) -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate, queue, agent="agent", heartbeat_seconds=60) as consumer:
        for turn in range(20):
            await queue.cordon([WORKER], by="test")
            await seen(queue, cordoned=True)
            ids = await queue.submit([TaskRequest(payload=turn)])
            await queue.uncordon([WORKER], by="test")
            (record,) = await queue.wait(ids, timeout_seconds=5)
            assert record.result == turn
            await seen(queue, cordoned=False)
        assert "cordoned" not in consumer.ready().checks


async def test_orders_that_change_quickly_never_make_it_say_what_is_not_so(queue: Audited) -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate, queue, agent="agent", heartbeat_seconds=60):
        for turn in range(300):
            await (queue.cordon if turn % 2 == 0 else queue.uncordon)([WORKER], by="test")
            await queue.submit([TaskRequest(payload=turn)])
            for _ in range(turn % 7):
                await asyncio.sleep(0)
        await queue.uncordon([WORKER], by="test")
        await eventually_async(lambda: _is_empty(queue), what="all is done")
        await seen(queue, cordoned=False)
    assert any(beat.cordoned for beat in queue.beats)


async def test_a_process_that_is_cordoned_before_it_starts_takes_nothing_and_is_ready(queue: Audited) -> None:
    await queue.cordon([WORKER], by="test")
    (task_id,) = await queue.submit([TaskRequest()])
    async with running(Gate(), queue, agent="agent", heartbeat_seconds=60) as consumer:
        await seen(queue, cordoned=True)
        assert consumer.ready().ok
        assert (await queue.get(task_id)).state == "queued"
        assert (await known(queue)).claimed_at is not None


async def test_a_batch_that_gathers_begins_when_the_process_is_cordoned(queue: Audited) -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        return [task.payload for task in tasks]

    batch = BatchSettings(max_tasks=10, wait_seconds=60)
    async with running(handle, queue, agent="agent", batch=batch, concurrency=10, heartbeat_seconds=60):
        ids = await queue.submit([TaskRequest(payload=1)])
        await eventually_async(lambda: _runs(queue, 1), what="it gathers")
        await queue.cordon([WORKER], by="test")
        assert (await queue.wait(ids, timeout_seconds=5))[0].result == 1
        await seen(queue, cordoned=True, running=0)


async def test_a_cordoned_process_is_not_sent_broadcasts(queue: Audited) -> None:
    async def handle(task: Task, ctx: Context) -> Any:
        return await ctx.broadcast(None, agent="other")

    await queue.beat(Beat(Worker("other", "other-1"), "1", concurrency=1, running=0, draining=False, started_at_ms=0))
    await queue.beat(Beat(Worker("other", "other-2"), "1", concurrency=1, running=0, draining=False, started_at_ms=0))
    await queue.cordon(["other-1"], by="test")
    async with running(handle, queue, agent="agent") as _:
        (record,) = await queue.wait(await queue.submit([TaskRequest(agent="agent")]), timeout_seconds=5)
    assert isinstance(record.result, list)
    (sent,) = record.result
    assert (await queue.get(str(sent))).instance == "other-2"


class Away(Audited):
    """Does not answer heartbeats or claims while `away`."""

    away = False

    async def beat(self, beat: Beat) -> Orders:
        if self.away:
            raise QueueUnavailableError("away")
        return await super().beat(beat)

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        if self.away:
            raise QueueUnavailableError("away")
        return await super().claim(worker, limit=limit, wait_seconds=wait_seconds)


async def test_a_process_stays_cordoned_while_the_queue_does_not_answer() -> None:
    queue = Away()
    gate = Gate()
    gate.open.set()
    async with running(gate, queue, agent="agent", heartbeat_seconds=1) as consumer:
        await queue.cordon([WORKER], by="test")
        await seen(queue, cordoned=True)
        queue.away = True
        await queue.uncordon([WORKER], by="test")
        ids = await queue.submit([TaskRequest(payload="later")])
        await eventually_async(lambda: _as_true(not consumer.ready().ok), what="it misses the answers")
        assert "cordoned" in consumer.ready().checks
        queue.away = False
        assert (await queue.wait(ids, timeout_seconds=10))[0].result == "later"


async def _runs(queue: MemoryTaskQueue, count: int) -> bool:
    return (await queue.stats()).running == count


async def _is_empty(queue: MemoryTaskQueue) -> bool:
    stats = await queue.stats()
    return stats.running + stats.queued == 0


def _as_true(value: bool) -> Awaitable[bool]:
    async def answer() -> bool:
        return value

    return answer()
