# SPDX-License-Identifier: Apache-2.0
"""Idle workers: they sleep until there is work, none of them is forgotten, and sleeping costs next to nothing."""

import asyncio
import contextlib
import json

import pytest

from agent_runtime.cancellation import end
from agent_runtime.queue import Claim, CordonedError, TaskQueue, Worker
from agent_runtime.queue.base import Beat
from agent_runtime.queue.calls import LONGEST_BLOCK_SECONDS
from agent_runtime.queue.keys import Keys
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    SOON,
    calls,
    claim_one,
    failed,
    payloads,
    submit,
    succeeded,
)
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer

# Well below the time after which an idle worker looks for itself: a lost wake-up fails the test.
AWAKE_SECONDS = 3.0


async def asleep(server: RedisServer, workers: int) -> None:
    """Return once so many workers block for work."""

    async def blocked() -> bool:
        with server.client() as client:
            return int(client.info("clients")["blocked_clients"]) == workers

    await eventually_async(blocked, what=f"{workers} idle workers")


async def test_a_task_wakes_an_idle_worker(queue: TaskQueue, redis_server: RedisServer) -> None:
    waiting = asyncio.create_task(claim_one(queue))
    await asleep(redis_server, 1)
    await submit(queue, "work")
    async with asyncio.timeout(AWAKE_SECONDS):
        assert payloads([await waiting]) == ["work"]


async def test_the_wake_up_of_a_worker_that_turns_out_to_be_cordoned_wakes_another(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    cordoned = asyncio.create_task(queue.claim(ALICE, limit=1, wait_seconds=60))
    await asleep(redis_server, 1)
    waiting = asyncio.create_task(claim_one(queue, BOB))
    await asleep(redis_server, 2)
    cordons = Keys("tests", queue.name).name("cordons")
    with redis_server.client() as client:  # as if the order came just after it was woken
        client.hset(cordons, ALICE.instance, '{"test":"0"}')
    await submit(queue, "work")  # the one who has waited for longer is woken
    async with asyncio.timeout(AWAKE_SECONDS):
        with pytest.raises(CordonedError):
            await cordoned
        assert payloads([await waiting]) == ["work"]


async def test_nothing_is_begun_after_a_cordon_whatever_is_under_way(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    async def work(worker: Worker) -> None:
        with contextlib.suppress(CordonedError):
            while True:
                await queue.settle(succeeded(await queue.claim(worker, limit=3, wait_seconds=60)))

    for turn in range(20):
        worker = Worker("echo", f"echo-{turn}")
        await queue.beat(Beat(worker, "1", concurrency=3, running=0, draining=False, started_at_ms=0))
        ids = await submit(queue, *range(100))
        working = [asyncio.create_task(work(worker)) for _ in range(4)]
        await asyncio.sleep(0.001 * (turn % 8))
        await queue.cordon([worker.instance], by="test")
        with redis_server.client() as client:
            (key,) = client.keys("*:cordons")
            since = int(json.loads(str(client.hget(key, worker.instance)))["test"])
        async with asyncio.timeout(AWAKE_SECONDS):
            await asyncio.gather(*working)
        for record in [await queue.get(task_id) for task_id in ids]:
            if record.worker == worker.instance:
                assert record.started_at is not None
                assert record.started_at.timestamp() * 1000 <= since + 0.5
        await queue.leave(worker)


async def test_a_task_for_an_agent_wakes_a_worker_of_that_agent(queue: TaskQueue, redis_server: RedisServer) -> None:
    waiting = {worker.agent: asyncio.create_task(claim_one(queue, worker)) for worker in (ALICE, CAROL)}
    await asleep(redis_server, 2)
    await submit(queue, "for count", agent="count")
    async with asyncio.timeout(AWAKE_SECONDS):
        assert payloads([await waiting["count"]]) == ["for count"]
    assert not waiting["echo"].done()
    await submit(queue, "for anybody")
    async with asyncio.timeout(AWAKE_SECONDS):
        assert payloads([await waiting["echo"]]) == ["for anybody"]


async def test_a_batch_wakes_as_many_idle_workers_as_it_has_tasks(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queues = [open_test_queue() for _ in range(4)]
    waiting = [
        asyncio.create_task(claim_one(queues[n % 4], Worker(agent="echo", instance=f"echo-{n}"))) for n in range(40)
    ]
    await asleep(redis_server, 40)
    await submit(queues[0], *range(40))
    async with asyncio.timeout(AWAKE_SECONDS):
        claims = await asyncio.gather(*waiting)
    assert sorted(payloads(claims)) == list(range(40))


async def test_no_wakeup_is_lost_between_looking_and_falling_asleep(open_test_queue: OpenQueue) -> None:
    queues = [open_test_queue() for _ in range(3)]
    done: asyncio.Queue[Claim] = asyncio.Queue()

    async def work(n: int) -> None:
        worker = Worker(agent="echo", instance=f"echo-{n}")
        while True:
            claims = await queues[n % 3].claim(worker, limit=2, wait_seconds=60)
            await queues[n % 3].settle(succeeded(claims))
            for claim in claims:
                done.put_nowait(claim)

    workers = [asyncio.create_task(work(n)) for n in range(6)]
    for n in range(300):
        await submit(queues[0], n)
        async with asyncio.timeout(AWAKE_SECONDS):
            assert payloads([await done.get()]) == [n]
    await end(*workers)


async def test_a_worker_that_gives_up_waiting_takes_no_wakeup_with_it(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    leaving, staying = open_test_queue(), open_test_queue()
    for n in range(30):
        quitter = asyncio.create_task(leaving.claim(ALICE, limit=1, wait_seconds=SOON))
        other = asyncio.create_task(staying.claim(BOB, limit=1, wait_seconds=SOON))
        await asleep(redis_server, 2)
        submission = asyncio.create_task(submit(leaving, n))
        for _ in range(n):
            await asyncio.sleep(0)
        quitter.cancel()
        await submission
        async with asyncio.timeout(AWAKE_SECONDS):
            try:
                claims = await quitter
            except asyncio.CancelledError:
                claims = await other
            assert payloads(claims) == [n]
        await staying.settle(succeeded(claims))
        if not other.done():
            other.cancel()
            with pytest.raises(asyncio.CancelledError):
                await other


async def test_a_claim_that_is_cancelled_leaves_nothing_leased(queue: TaskQueue) -> None:
    await submit(queue, *range(100))
    for turns in range(40):
        claiming = asyncio.create_task(queue.claim(ALICE, limit=10, wait_seconds=NOW))
        for _ in range(turns):
            await asyncio.sleep(0)
        claiming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await queue.release(await claiming)

    async def all_back() -> bool:
        stats = await queue.stats()
        return (stats.queued, stats.running) == (100, 0)

    await eventually_async(all_back, what="all tasks are queued again")
    claims = await queue.claim(BOB, limit=100, wait_seconds=NOW)
    assert [claim.attempt for claim in claims] == [1] * 100


async def test_a_scheduled_task_wakes_an_idle_worker_when_it_is_due(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    await submit(queue, "again")
    first = await claim_one(queue, ALICE)
    waiting = asyncio.create_task(claim_one(queue, BOB))
    await asleep(redis_server, 1)
    await queue.settle(failed(first, delay_seconds=0.3))
    async with asyncio.timeout(AWAKE_SECONDS):
        assert (await waiting).attempt == 2


async def test_due_times_are_passed_on_when_the_worker_that_knew_them_gets_busy(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    await submit(queue, "again")
    first = await claim_one(queue, BOB)
    alice = asyncio.create_task(claim_one(queue, ALICE))
    await asleep(redis_server, 1)
    carol = asyncio.create_task(claim_one(queue, CAROL))
    await asleep(redis_server, 2)

    # The bell wakes Alice, who has slept for longer: only she knows the due time, and then has something else to do.
    await queue.settle(failed(first, delay_seconds=0.5))
    await submit(queue, "for echo", agent="echo")
    async with asyncio.timeout(AWAKE_SECONDS):
        assert payloads([await alice]) == ["for echo"]
        assert payloads([await carol]) == ["again"]


async def test_an_idle_worker_sends_at_most_two_commands_a_second(
    queue: TaskQueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
    with redis_server.client() as client:
        client.config_resetstat()
        assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
        one_look = client.info("stats")["total_commands_processed"]  # commands inside of scripts are counted too
    sleep = 1
    assert (one_look + sleep) / LONGEST_BLOCK_SECONDS <= 2

    monkeypatch.setattr("agent_runtime.queue.redis.LONGEST_BLOCK_SECONDS", 0.25)
    before = calls(redis_server, "blpop")
    assert await queue.claim(ALICE, limit=1, wait_seconds=1) == []
    assert calls(redis_server, "blpop") - before <= 4


async def test_idle_workers_sleep_through_the_leases_of_others(queue: TaskQueue, redis_server: RedisServer) -> None:
    await submit(queue, *range(100))
    claims = await queue.claim(ALICE, limit=100, wait_seconds=NOW)
    before = calls(redis_server, "blpop")
    waiting = asyncio.create_task(queue.claim(BOB, limit=1, wait_seconds=0.5))
    for _ in range(5):
        assert await queue.extend(claims) == []
    assert await waiting == []
    assert calls(redis_server, "blpop") - before <= 2
