# SPDX-License-Identifier: Apache-2.0
"""Waiting for results: pushed, not polled."""

import asyncio

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import TaskState
from tests.integration.queue.actors import ALICE, FOREVER, NOW, SOON, calls, claim_one, failed, submit, succeeded, told
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy


async def subscribed(server: RedisServer) -> None:
    """Return once somebody listens for finished tasks."""

    async def heard() -> bool:
        with server.client() as client:
            return bool(client.pubsub_channels())

    await eventually_async(heard, what="a subscription")


async def test_a_waiter_is_told_when_the_task_is_final(queue: TaskQueue, open_test_queue: OpenQueue) -> None:
    worker_side = open_test_queue()
    (task_id,) = await submit(queue, "work")
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    await worker_side.settle(succeeded([await claim_one(worker_side)], {"n": 1}))
    (record,) = await told(waiting)
    assert (record.state, record.result) == (TaskState.SUCCEEDED, {"n": 1})


async def test_a_retry_is_not_the_end(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=2)
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    assert not waiting.done()
    await queue.settle(failed(await claim_one(queue)))
    (record,) = await told(waiting)
    assert record.state is TaskState.DEAD


async def test_waiting_for_what_is_final_returns_at_once(queue: TaskQueue) -> None:
    ids = await submit(queue, 1, 2)
    await queue.settle(succeeded(await queue.claim(ALICE, limit=2, wait_seconds=NOW)))
    records = await queue.wait([ids[1], ids[0], ids[1]], timeout_seconds=0)
    assert [record.id for record in records] == [ids[1], ids[0], ids[1]]
    assert all(record.state.final for record in records)


async def test_a_look_that_does_not_wait_costs_no_connection(queue: TaskQueue, redis_server: RedisServer) -> None:
    ids = await submit(queue, "work")
    await queue.wait(ids, timeout_seconds=0)
    with redis_server.client() as client:
        before = client.info("stats")["total_connections_received"]
        for _ in range(20):
            await queue.wait(ids, timeout_seconds=0)
        assert client.info("stats")["total_connections_received"] == before


async def test_when_the_time_is_over_the_tasks_come_as_they_are(queue: TaskQueue) -> None:
    ids = await submit(queue, 1, 2)
    await queue.settle(succeeded([await claim_one(queue)]))
    records = await queue.wait(ids, timeout_seconds=0.05)
    assert [record.state for record in records] == [TaskState.SUCCEEDED, TaskState.QUEUED]


async def test_waiting_for_an_unknown_task_fails_at_once(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    with pytest.raises(TaskNotFoundError, match="'nobody'"):
        await queue.wait([task_id, "nobody"], timeout_seconds=SOON)


async def test_waiting_for_nothing_returns_nothing(queue: TaskQueue) -> None:
    assert await queue.wait([], timeout_seconds=SOON) == []


async def test_tasks_that_finish_while_waiters_come_and_go_are_never_missed(queue: TaskQueue) -> None:
    async def one(n: int) -> None:
        (task_id,) = await submit(queue, n)
        waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
        for _ in range(n % 7):  # finish it at ever other moments of the waiter's start
            await asyncio.sleep(0)
        await queue.settle(succeeded([await claim_one(queue)], n))
        (record,) = await told(waiting)
        assert record.state.final

    for start in range(0, 200, 20):
        await asyncio.gather(*(one(n) for n in range(start, start + 20)))


async def test_a_thousand_waiters_cost_one_subscription_and_no_polling(
    queue: TaskQueue, open_test_queue: OpenQueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thousand reads at once, in one process: that takes its time on a busy machine.
    monkeypatch.setattr("agent_runtime.queue.exchange.SOCKET_TIMEOUT_SECONDS", 60)
    worker_side = open_test_queue()
    ids = await submit(queue, *range(1000))
    before = calls(redis_server, "subscribe")
    waiters = [asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER)) for task_id in ids]
    await subscribed(redis_server)

    async def settled_down() -> bool:
        reads = calls(redis_server, "zmscore")
        await asyncio.sleep(0.2)
        return calls(redis_server, "zmscore") == reads >= 1000

    await eventually_async(settled_down, what="no more reads while nothing happens")
    assert calls(redis_server, "subscribe") - before == 1

    while claims := await worker_side.claim(ALICE, limit=100, wait_seconds=NOW):
        await worker_side.settle(succeeded(claims, 1))
    assert {records[0].result for records in await asyncio.gather(*map(told, waiters))} == {1}


async def test_what_finishes_while_the_subscription_is_broken_is_not_missed(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    async with TcpProxy(target_port=redis_server.port) as proxy:
        queue = open_test_queue(url=f"redis://127.0.0.1:{proxy.port}/0")
        worker_side = open_test_queue()
        first, second = await submit(worker_side, "first", "second")
        waiting = asyncio.create_task(queue.wait([first, second], timeout_seconds=FOREVER))
        await subscribed(redis_server)
        claims = await worker_side.claim(ALICE, limit=2, wait_seconds=NOW)

        async with proxy.refusing():
            await worker_side.settle(succeeded(claims[:1], 1))
        await worker_side.settle(succeeded(claims[1:], 2))
        assert [record.result for record in await told(waiting)] == [1, 2]
        await queue.aclose()
