# SPDX-License-Identifier: Apache-2.0
"""Waiting for tasks and for results: told, not polled."""

import asyncio
from datetime import timedelta

import pytest

from agent_runtime.queue import TaskQueue, Worker
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    NOW,
    SOON,
    claim_one,
    failed,
    ids_of,
    submit,
    succeed,
    succeeded,
    told,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime

# ── for tasks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", [{}, {"agent": "echo"}, {"capability": "ocr"}, {"instance": "echo-1"}], ids=str)
async def test_a_worker_that_waits_gets_what_is_submitted(queue: TaskQueue, target: dict[str, str]) -> None:
    worker = Worker("echo", "echo-1", ("ocr",))
    claiming = asyncio.create_task(claim_one(queue, worker, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    (task_id,) = await submit(queue, "work", **target)
    assert (await told(claiming)).id == task_id


async def test_a_worker_that_waits_is_not_given_what_is_for_others(queue: TaskQueue) -> None:
    claiming = asyncio.create_task(claim_one(queue, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    await submit(queue, "other", agent="count")
    assert (await claim_one(queue, CAROL)).agent == "count"
    assert not claiming.done()
    (task_id,) = await submit(queue, "mine")
    assert (await told(claiming)).id == task_id


async def test_as_many_workers_wake_as_there_is_work_for(queue: TaskQueue) -> None:
    workers = [Worker("echo", f"echo-{n}") for n in range(6)]
    claiming = [asyncio.create_task(claim_one(queue, worker, wait_seconds=FOREVER)) for worker in workers]
    await asyncio.sleep(0.02)
    ids = await submit(queue, *range(6))
    assert sorted(ids_of(await told(asyncio.gather(*claiming)))) == sorted(ids)


async def test_a_worker_that_has_waited_long_enough_gets_nothing(queue: TaskQueue, pass_time: PassTime) -> None:
    claiming = asyncio.create_task(queue.claim(ALICE, limit=1, wait_seconds=0.2))
    await pass_time(0.2)
    assert await told(claiming) == []


async def test_a_claim_that_is_given_up_takes_nothing(queue: TaskQueue) -> None:
    claiming = asyncio.create_task(claim_one(queue, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    (task_id,) = await submit(queue, "work")
    assert (await claim_one(queue, BOB)).id == task_id


async def test_a_worker_that_waits_gets_what_is_released_or_retried(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    await queue.release([claim])
    claim = await told(claiming)
    claiming = asyncio.create_task(claim_one(queue, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    await queue.settle(failed(claim, delay_seconds=0))
    assert (await told(claiming)).id == task_id


# ── for results ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_waiter_is_told_when_all_have_ended(queue: TaskQueue) -> None:
    ids = await submit(queue, 1, 2)
    waiting = asyncio.create_task(queue.wait(ids[::-1], timeout_seconds=FOREVER))
    await asyncio.sleep(0.02)
    await succeed(queue, result="one")
    assert not waiting.done()
    await queue.settle(failed(await claim_one(queue), permanent=True))
    second, first = await told(waiting)
    assert (first.state, first.result) == (TaskState.SUCCEEDED, "one")
    assert (second.state, ids_of([first, second])) == (TaskState.FAILED, ids)


async def test_a_retry_is_not_the_end(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=2)
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await queue.settle(failed(await claim_one(queue)))
    (record,) = await told(waiting)
    assert record.state is TaskState.DEAD


async def test_what_has_ended_is_told_at_once(queue: TaskQueue) -> None:
    ids = await submit(queue, 1, 2)
    await queue.settle(succeeded(await queue.claim(ALICE, limit=2, wait_seconds=NOW)))
    records = await told(queue.wait([ids[1], ids[0], ids[1]], timeout_seconds=FOREVER))
    assert ids_of(records) == [ids[1], ids[0], ids[1]]


async def test_when_the_time_is_over_the_tasks_come_as_they_are(queue: TaskQueue, pass_time: PassTime) -> None:
    ids = await submit(queue, 1, 2)
    await succeed(queue)
    waiting = asyncio.create_task(queue.wait(ids, timeout_seconds=0.2))
    await pass_time(0.2)
    assert [record.state for record in await told(waiting)] == [TaskState.SUCCEEDED, TaskState.QUEUED]


async def test_an_unknown_task_is_told_at_once(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    with pytest.raises(TaskNotFoundError, match="'nobody'"):
        await told(queue.wait([task_id, "nobody"], timeout_seconds=FOREVER))
    with pytest.raises(TaskNotFoundError, match="'nobody'"):
        await queue.get("nobody")


async def test_waiting_for_nothing_returns_nothing(queue: TaskQueue) -> None:
    assert await queue.wait([], timeout_seconds=SOON) == []


async def test_a_waiter_is_told_of_an_end_by_deadline(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=0.2))
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    await pass_time(0.2)
    await queue.stats()
    (record,) = await told(waiting)
    assert record.state is TaskState.EXPIRED


async def test_a_waiter_is_told_of_a_child_that_ends_with_its_parent(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent")
    await submit(queue, "child", id="child", depends_on=["parent"])
    waiting = asyncio.create_task(queue.wait(["child"], timeout_seconds=FOREVER))
    await asyncio.sleep(0.02)
    await queue.settle(failed(await claim_one(queue), permanent=True))
    (record,) = await told(waiting)
    assert (record.state, record.failures[0].code) == (TaskState.FAILED, "PARENT_FAILED")


async def test_many_may_wait_for_the_same_task(queue: TaskQueue, open_test_queue: OpenQueue) -> None:
    worker_side = open_test_queue()
    (task_id,) = await submit(queue, "work")
    waiting = [asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER)) for _ in range(20)]
    await asyncio.sleep(0.02)
    await succeed(worker_side, result=7)
    assert {records[0].result for records in await told(asyncio.gather(*waiting))} == {7}
