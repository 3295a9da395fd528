# SPDX-License-Identifier: Apache-2.0
"""Ending tasks before their time."""

import asyncio
from typing import Any

import pytest

from agent_runtime.queue import TaskQueue
from agent_runtime.queue.base import Progress
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import TaskEventKind, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    FOREVER,
    NOW,
    claim_all,
    claim_one,
    die,
    failed,
    happened,
    revoked_from,
    states,
    submit,
    succeed,
    succeeded,
    told,
)


async def waiting(queue: TaskQueue, state: TaskState) -> str:
    """A task in that state."""
    if state is TaskState.BLOCKED:
        await submit(queue, "parent", id="parent", agent="nobody")
    extras: dict[TaskState, dict[str, Any]] = {
        TaskState.SCHEDULED: {"delay_seconds": 60.0},
        TaskState.BLOCKED: {"depends_on": ["parent"]},
    }
    (task_id,) = await submit(queue, "work", **extras.get(state, {}))
    assert await states(queue, [task_id]) == [state]
    return task_id


@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.SCHEDULED, TaskState.BLOCKED])
async def test_a_waiting_task_is_cancelled(queue: TaskQueue, state: TaskState) -> None:
    task_id = await waiting(queue, state)
    assert await queue.cancel([task_id], by="operator", reason="not needed") == [TaskState.CANCELLED]
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.CANCELLED, 0, None)
    assert record.finished_at is not None
    assert record.due_at is None
    (failure,) = record.failures
    assert (failure.code, failure.attempt, failure.worker) == ("CANCELLED", 0, None)
    assert "operator" in failure.message
    assert "not needed" in failure.message
    assert await claim_all(queue) == []
    stats = await queue.stats()
    assert stats.cancelled_total == 1
    assert (stats.queued + stats.scheduled + stats.blocked) == (1 if state is TaskState.BLOCKED else 0)
    event = (await happened(queue))[-1]
    assert (event.kind, event.task, event.by) == (TaskEventKind.CANCELLED, task_id, "operator")


async def test_a_running_task_is_taken_from_its_worker_at_once(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    await queue.emit(claim, [Progress(0.5)])
    listening = asyncio.create_task(revoked_from(queue, ALICE, claim))
    await asyncio.sleep(0)
    assert await queue.cancel([task_id], by="test") == [TaskState.CANCELLED]
    await told(listening)
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.CANCELLED, 1, ALICE.instance)
    assert record.progress is None
    assert record.started_at is not None
    (failure,) = record.failures
    assert (failure.code, failure.attempt, failure.worker) == ("CANCELLED", 1, ALICE.instance)
    assert (await queue.stats()).running == 0


async def test_what_a_cancelled_attempt_still_sends_changes_nothing(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    await queue.cancel([task_id], by="test")
    assert await queue.settle(succeeded([claim], "too late")) == [False]
    assert await queue.settle(failed(claim, delay_seconds=0)) == [False]
    assert await queue.extend([claim]) == [claim]
    assert await queue.emit(claim, [Progress(1.0)]) is False
    await queue.release([claim])
    record = await queue.get(task_id)
    assert (record.state, record.result, len(record.failures)) == (TaskState.CANCELLED, None, 1)
    assert await claim_all(queue) == []


async def test_what_has_ended_stays_as_it_is(queue: TaskQueue) -> None:
    (good,) = await submit(queue, "good")
    await succeed(queue, result=1)
    (bad,) = await submit(queue, "bad")
    await queue.settle(failed(await claim_one(queue), permanent=True))
    (dead,) = await die(queue, "dead")
    (gone,) = await submit(queue, "gone")
    await queue.cancel([gone], by="first")
    before = [await queue.get(task_id) for task_id in (good, bad, dead, gone)]
    assert await queue.cancel([good, bad, dead, gone], by="test") == [
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.DEAD,
        TaskState.CANCELLED,
    ]
    assert [await queue.get(task_id) for task_id in (good, bad, dead, gone)] == before
    assert (await queue.stats()).cancelled_total == 1


async def test_an_unknown_id_keeps_all_from_being_cancelled(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    with pytest.raises(TaskNotFoundError, match="'nobody'"):
        await queue.cancel([task_id, "nobody"], by="test")
    assert await states(queue, [task_id]) == [TaskState.QUEUED]
    assert (await queue.stats()).cancelled_total == 0


async def test_cancelling_nothing_does_nothing(queue: TaskQueue) -> None:
    assert await queue.cancel([], by="test") == []


async def test_several_are_cancelled_in_one_call(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(5))
    claims = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    assert await queue.cancel(ids[:4], by="test") == [TaskState.CANCELLED] * 4
    assert await states(queue, ids) == [TaskState.CANCELLED] * 4 + [TaskState.QUEUED]
    assert await queue.extend(claims) == claims


async def test_cancelling_a_parent_ends_its_children(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent")
    await submit(queue, "child", id="child", depends_on=["parent"])
    await submit(queue, "child", id="skipped", depends_on=["parent"], on_parent_failure="Skip")
    await queue.cancel(["parent"], by="test")
    assert await states(queue, ["child", "skipped"]) == [TaskState.FAILED, TaskState.CANCELLED]


async def test_parent_and_child_can_be_cancelled_together(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent")
    await submit(queue, "child", id="child", depends_on=["parent"])
    assert await queue.cancel(["child", "parent"], by="test") == [TaskState.CANCELLED, TaskState.CANCELLED]


async def test_who_waits_for_a_cancelled_task_is_told(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    waiter = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    await asyncio.sleep(0)
    await queue.cancel([task_id], by="test")
    (record,) = await told(waiter)
    assert record.state is TaskState.CANCELLED


async def test_a_worker_hears_of_its_own_tasks_only(queue: TaskQueue) -> None:
    await submit(queue, *range(2))
    (hers,) = await queue.claim(ALICE, limit=1, wait_seconds=NOW)
    (his,) = await queue.claim(BOB, limit=1, wait_seconds=NOW)
    heard: list[str] = []

    async def listen() -> None:
        async for task_ids in queue.revoked(BOB):
            heard.extend(task_ids)
            if his.id in heard or (not task_ids and await queue.extend([his])):
                return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await queue.cancel([hers.id, his.id], by="test")
    await told(listening)
    assert hers.id not in heard


async def test_a_worker_hears_nothing_more_once_the_queue_is_closed(queue: TaskQueue) -> None:
    async def listen() -> None:
        async for _ in queue.revoked(ALICE):
            pass

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await queue.aclose()
    await told(listening)
