# SPDX-License-Identifier: Apache-2.0
"""Processes that are to take nothing new."""

import asyncio
from typing import Any

import pytest

from agent_runtime.queue import Beat, CordonedError, Orders, TaskQueue, Worker
from tests.conformance.queue.actors import ALICE, BOB, FOREVER, NOW, claim_one, submit, succeed, succeeded, told
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime


def beat(worker: Worker, **fields: Any) -> Beat:
    """A heartbeat."""
    known: dict[str, Any] = {"version": "1", "concurrency": 4, "running": 0, "draining": False, "started_at_ms": 1}
    return Beat(worker=worker, **known | fields)


async def is_refused(queue: TaskQueue, worker: Worker = ALICE) -> bool:
    """Whether the queue gives the worker nothing because it is cordoned."""
    try:
        await queue.release(await queue.claim(worker, limit=1, wait_seconds=NOW))
    except CordonedError:
        return True
    return False


async def orders_become(queue: TaskQueue, orders: Orders, worker: Worker = ALICE) -> None:
    """Return once the worker, which looks only when it is told to, has these orders."""
    async for task_ids in queue.revoked(worker):
        if not task_ids and await queue.beat(beat(worker)) == orders:
            return
    raise AssertionError("revoked ended")


async def test_a_cordoned_process_is_given_nothing(queue: TaskQueue) -> None:
    await submit(queue, "work")
    await queue.cordon([ALICE.instance], by="test")
    with pytest.raises(CordonedError, match=ALICE.instance):
        await queue.claim(ALICE, limit=1, wait_seconds=FOREVER)
    assert (await queue.stats()).queued == 1
    assert (await claim_one(queue, BOB)).payload == b'"work"'


async def test_an_uncordoned_process_is_given_tasks_again(queue: TaskQueue) -> None:
    await submit(queue, "work")
    await queue.cordon([ALICE.instance, BOB.instance], by="test")
    await queue.uncordon([ALICE.instance], by="test")
    assert await is_refused(queue, BOB)
    assert (await claim_one(queue)).payload == b'"work"'


async def test_a_process_stays_cordoned_until_all_have_lifted_it(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE))
    for name in ("ada", "bob", "ada"):
        await queue.cordon([ALICE.instance], by=name)
    (known,) = await queue.instances(timeout_seconds=60)
    assert known.cordoned_by == ["ada", "bob"]
    await queue.uncordon([ALICE.instance], by="ada")
    await queue.uncordon([ALICE.instance], by="nobody")
    assert await is_refused(queue)
    await queue.uncordon([ALICE.instance], by="bob")
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []


async def test_the_answer_to_a_heartbeat_has_the_orders(queue: TaskQueue) -> None:
    assert await queue.beat(beat(ALICE)) == Orders(cordoned=False)
    await queue.cordon([ALICE.instance], by="test")
    assert await queue.beat(beat(ALICE)) == Orders(cordoned=True)
    assert await queue.beat(beat(BOB)) == Orders(cordoned=False)
    await queue.uncordon([ALICE.instance], by="test")
    assert await queue.beat(beat(ALICE)) == Orders(cordoned=False)


async def test_what_a_cordoned_process_runs_goes_on(queue: TaskQueue) -> None:
    await submit(queue, "one", "two")
    first, second = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    await queue.cordon([ALICE.instance], by="test")
    assert await queue.extend([first]) == []
    assert await queue.settle(succeeded([first])) == [True]
    await queue.release([second])
    assert (await claim_one(queue, BOB)).id == second.id


async def test_a_process_that_waits_for_work_hears_at_once_that_it_is_cordoned(queue: TaskQueue) -> None:
    waiting = asyncio.create_task(queue.claim(ALICE, limit=1, wait_seconds=FOREVER))
    await asyncio.sleep(0.05)  # until it sleeps; if it does not yet, its first look tells it
    await queue.cordon([ALICE.instance], by="test")
    with pytest.raises(CordonedError):
        await told(waiting)


async def test_a_cordoned_process_swallows_no_wake_up(queue: TaskQueue, open_test_queue: OpenQueue) -> None:
    elsewhere = open_test_queue()
    await queue.cordon([ALICE.instance], by="test")
    sleeping = asyncio.create_task(elsewhere.claim(BOB, limit=1, wait_seconds=FOREVER))
    for number in range(20):
        await submit(queue, number)
        assert await is_refused(queue)
        (claim,) = await told(sleeping)
        assert claim.payload == str(number).encode()
        sleeping = asyncio.create_task(elsewhere.claim(BOB, limit=1, wait_seconds=FOREVER))
        await queue.settle(succeeded([claim]))
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)


async def test_tasks_for_a_cordoned_process_wait_for_it(queue: TaskQueue) -> None:
    await queue.cordon([ALICE.instance], by="test")
    (task_id,) = await submit(queue, "mine", instance=ALICE.instance)
    assert await is_refused(queue)
    await queue.uncordon([ALICE.instance], by="test")
    assert await succeed(queue) == task_id


async def test_orders_are_pushed(queue: TaskQueue) -> None:
    cordoned = asyncio.create_task(orders_become(queue, Orders(cordoned=True)))
    await asyncio.sleep(0)
    await queue.cordon([ALICE.instance], by="test")
    await told(cordoned)
    uncordoned = asyncio.create_task(orders_become(queue, Orders(cordoned=False)))
    await asyncio.sleep(0)
    await queue.uncordon([ALICE.instance], by="test")
    await told(uncordoned)


async def test_a_process_that_leaves_takes_its_orders_with_it(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE))
    await queue.cordon([ALICE.instance], by="test")
    await queue.leave(ALICE)
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
    assert await queue.beat(beat(ALICE)) == Orders()


async def test_a_process_that_is_forgotten_takes_its_orders_with_it(queue: TaskQueue, pass_time: PassTime) -> None:
    await queue.beat(beat(ALICE))
    await queue.cordon([ALICE.instance, BOB.instance], by="test")
    await pass_time(0.1)
    assert await queue.forget_silent(silent_seconds=0.05) == [ALICE.instance]
    assert not await is_refused(queue)
    assert await is_refused(queue, BOB)  # it may show up yet


async def test_a_heartbeat_tells_what_the_process_has_done(queue: TaskQueue, now: Now) -> None:
    claimed_at_ms = round(now().timestamp() * 1000)
    await queue.beat(beat(ALICE))
    await queue.beat(beat(BOB, claimed_at_ms=claimed_at_ms, succeeded=5, failed=2, revision="7d9f", cordoned=True))
    alice, bob = await queue.instances(timeout_seconds=60)
    assert (alice.claimed_at, alice.succeeded, alice.failed, alice.revision, alice.cordoned) == (None, 0, 0, "", False)
    assert bob.claimed_at is not None
    assert round(bob.claimed_at.timestamp() * 1000) == claimed_at_ms
    assert (bob.succeeded, bob.failed, bob.revision, bob.cordoned) == (5, 2, "7d9f", True)
    assert bob.cordoned_by == []
