# SPDX-License-Identifier: Apache-2.0
"""Pausing, closing, and how many tasks may wait."""

import asyncio
from datetime import timedelta

import pytest

from agent_runtime.queue import TaskQueue
from agent_runtime.queue.base import Gate
from kubeagents_api.errors import QueueClosedError, QueueFullError
from kubeagents_api.limits import QueueLimits
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskRequest, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    FOREVER,
    NOW,
    claim_all,
    claim_one,
    die,
    failed,
    happened,
    payloads,
    states,
    submit,
    succeed,
    succeeded,
    tasks,
    told,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime

# ── gates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nobody_takes_tasks_while_the_queue_is_paused(queue: TaskQueue) -> None:
    await submit(queue, "before")
    running = await claim_one(queue)
    await queue.set_gate(Gate.CLAIMS, shut=True, by="admin")
    await submit(queue, "meanwhile")
    assert await claim_all(queue) == []
    assert await queue.extend([running]) == []
    assert await queue.settle(succeeded([running])) == [True]
    await queue.set_gate(Gate.CLAIMS, shut=False, by="admin")
    assert payloads(await claim_all(queue)) == ["meanwhile"]


async def test_a_gate_is_open_again_when_all_have_opened_it(queue: TaskQueue) -> None:
    await submit(queue, "work")
    for name in ("zoe", "spec", "adam"):
        await queue.set_gate(Gate.CLAIMS, shut=True, by=name)
    assert (await queue.stats()).paused_by == ["adam", "spec", "zoe"]
    for name in ("spec", "zoe", "nobody"):
        await queue.set_gate(Gate.CLAIMS, shut=False, by=name)
        assert await claim_all(queue) == []
    assert (await queue.stats()).paused_by == ["adam"]
    await queue.set_gate(Gate.CLAIMS, shut=False, by="adam")
    assert (await queue.stats()).paused_by == []
    assert payloads(await claim_all(queue)) == ["work"]


async def test_shutting_twice_is_shutting_once(queue: TaskQueue) -> None:
    await submit(queue, "work")
    for _ in range(2):
        await queue.set_gate(Gate.CLAIMS, shut=True, by="admin")
    await queue.set_gate(Gate.CLAIMS, shut=False, by="admin")
    assert payloads(await claim_all(queue)) == ["work"]


async def test_a_worker_that_waits_gets_a_task_when_the_queue_is_resumed(queue: TaskQueue) -> None:
    await queue.set_gate(Gate.CLAIMS, shut=True, by="admin")
    await submit(queue, "work")
    claiming = asyncio.create_task(claim_one(queue, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    assert not claiming.done()
    await queue.set_gate(Gate.CLAIMS, shut=False, by="admin")
    assert payloads([await told(claiming)]) == ["work"]


async def test_a_paused_queue_still_moves_what_is_due(
    open_test_queue: OpenQueue, pass_time: PassTime, now: Now
) -> None:
    queue = open_test_queue(lease_seconds=0.2)
    (lost,) = await submit(queue, "lost", max_attempts=1)
    await claim_one(queue)
    (late,) = await submit(queue, "late", deadline=now() + timedelta(seconds=0.2))
    (delayed,) = await submit(queue, "delayed", delay_seconds=0.2)
    await queue.set_gate(Gate.CLAIMS, shut=True, by="admin")
    await pass_time(0.2)
    assert await queue.claim(ALICE, limit=9, wait_seconds=NOW) == []
    assert await states(queue, [lost, late, delayed]) == [TaskState.DEAD, TaskState.EXPIRED, TaskState.QUEUED]


async def test_a_closed_queue_takes_no_tasks_and_works_off_those_it_has(queue: TaskQueue, now: Now) -> None:
    await submit(queue, "before", id="before")
    await queue.set_gate(Gate.SUBMISSIONS, shut=True, by="admin")
    assert (await queue.stats()).closed_by == ["admin"]
    with pytest.raises(QueueClosedError):
        await submit(queue, "after")
    with pytest.raises(QueueClosedError):
        await queue.fire("hourly", now(), TaskRequest(id="fired"))
    assert await queue.fired() == {}
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    assert await succeed(queue) == "before"
    await queue.set_gate(Gate.SUBMISSIONS, shut=False, by="admin")
    await submit(queue, "after")
    assert (await queue.stats()).submitted_total == 2


async def test_a_closed_queue_replays_its_dead(queue: TaskQueue) -> None:
    (dead,) = await die(queue, "dead")
    await queue.set_gate(Gate.SUBMISSIONS, shut=True, by="admin")
    assert await queue.replay(DeadFilter(), by="admin") == [dead]


async def test_the_gates_are_independent(queue: TaskQueue) -> None:
    await queue.set_gate(Gate.SUBMISSIONS, shut=True, by="admin")
    await queue.set_gate(Gate.CLAIMS, shut=False, by="admin")
    with pytest.raises(QueueClosedError):
        await submit(queue, "work")
    await queue.set_gate(Gate.SUBMISSIONS, shut=False, by="admin")
    await queue.set_gate(Gate.CLAIMS, shut=True, by="admin")
    await submit(queue, "work")
    assert await claim_all(queue) == []


async def test_gates_are_told_by_events(queue: TaskQueue) -> None:
    await queue.set_gate(Gate.CLAIMS, shut=True, by="ann")
    await queue.set_gate(Gate.CLAIMS, shut=False, by="ann")
    await queue.set_gate(Gate.SUBMISSIONS, shut=True, by="bob")
    await queue.set_gate(Gate.SUBMISSIONS, shut=False, by="bob")
    assert [(event.kind, event.by, event.task) for event in await happened(queue)] == [
        (TaskEventKind.PAUSED, "ann", None),
        (TaskEventKind.RESUMED, "ann", None),
        (TaskEventKind.CLOSED, "bob", None),
        (TaskEventKind.OPENED, "bob", None),
    ]


# ── depth ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_does_not_fit_is_refused_as_a_whole(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=3))
    await submit(queue, 1, 2)
    with pytest.raises(QueueFullError):
        await submit(queue, 3, 4)
    stats = await queue.stats()
    assert (stats.queued, stats.submitted_total) == (2, 2)
    await submit(queue, 3)
    with pytest.raises(QueueFullError):
        await submit(queue, 4)


async def test_all_that_wait_count_and_what_runs_or_has_ended_does_not(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=3))
    await submit(queue, "queued", id="queued")
    await submit(queue, "blocked", depends_on=["queued"])
    (scheduled,) = await submit(queue, "scheduled", delay_seconds=60)
    with pytest.raises(QueueFullError):
        await submit(queue, "more")
    claim = await claim_one(queue)
    (more,) = await submit(queue, "more")
    with pytest.raises(QueueFullError):
        await submit(queue, "too many")
    await queue.cancel([scheduled], by="test")
    await submit(queue, "room again")
    await queue.settle(succeeded([claim]))
    assert more != claim.id
    with pytest.raises(QueueFullError):  # the child is queued now
        await submit(queue, "too many")


async def test_retries_releases_and_replays_need_no_room(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1))
    (dead,) = await die(queue, "dead")
    (retried,) = await submit(queue, "retried")
    first = await claim_one(queue)
    (released,) = await submit(queue, "released")
    second = await claim_one(queue)
    (waiting,) = await submit(queue, "waiting")
    await queue.settle(failed(first, delay_seconds=0))
    await queue.release([second])
    assert await queue.replay(DeadFilter(), by="test") == [dead]
    assert await states(queue, [retried, released, waiting, dead]) == [TaskState.QUEUED] * 4
    with pytest.raises(QueueFullError):
        await submit(queue, "more")


async def test_shedding_makes_room_for_higher_priorities(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=5, when_full="Shed"))
    for name, priority in (("a", 4), ("b", 2), ("c", 2), ("d", 3), ("e", 4)):
        await submit(queue, name, id=name, priority=priority)
    await queue.submit([*tasks("x", id="x", priority=9), *tasks("y", id="y", priority=4)])
    # The lowest priority goes first, and inside it the newest.
    assert await states(queue, ["c", "b"]) == [TaskState.CANCELLED] * 2
    record = await queue.get("c")
    assert [failure.code for failure in record.failures] == ["SHED"]
    shed = [(e.task, e.by) for e in await happened(queue) if e.kind is TaskEventKind.CANCELLED]
    assert sorted(shed) == [("b", "shed"), ("c", "shed")]
    assert payloads(await claim_all(queue)) == ["x", "a", "e", "y", "d"]


async def test_the_newest_of_a_priority_is_shed_first(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=3, when_full="Shed"))
    await submit(queue, "old", id="old", priority=1)
    await submit(queue, "middle", id="middle", priority=1, agent="echo")
    await submit(queue, "new", id="new", priority=1, tenant="acme")
    await submit(queue, "high", priority=2)
    assert await states(queue, ["old", "middle", "new"]) == [TaskState.QUEUED, TaskState.QUEUED, TaskState.CANCELLED]
    await submit(queue, "high", priority=2)
    assert await states(queue, ["old", "middle"]) == [TaskState.QUEUED, TaskState.CANCELLED]


async def test_nothing_is_shed_if_that_would_not_be_enough(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=3, when_full="Shed"))
    ids = [
        *await submit(queue, "low", priority=1),
        *await submit(queue, "same", priority=5),
        *await submit(queue, "scheduled", priority=0, delay_seconds=60),
    ]
    with pytest.raises(QueueFullError):
        await submit(queue, 1, 2, priority=5)
    assert await states(queue, ids) == [TaskState.QUEUED, TaskState.QUEUED, TaskState.SCHEDULED]
    # The lowest priority of the batch decides.
    with pytest.raises(QueueFullError):
        await queue.submit([*tasks("high", priority=9), *tasks("low", priority=1)])
    assert (await queue.stats()).cancelled_total == 0


async def test_running_tasks_are_not_shed(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1, when_full="Shed"))
    (running,) = await submit(queue, "running", priority=0)
    await claim_one(queue)
    (waiting,) = await submit(queue, "waiting", priority=1)
    await submit(queue, "high", priority=9)
    assert await states(queue, [running, waiting]) == [TaskState.RUNNING, TaskState.CANCELLED]


async def test_a_submission_waits_for_room(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1, when_full="Block", block_seconds=FOREVER))
    (first,) = await submit(queue, "first")
    submitting = asyncio.create_task(submit(queue, "second"))
    await asyncio.sleep(0.02)
    assert not submitting.done()
    claim = await claim_one(queue)
    (second,) = await told(submitting)
    assert (claim.id, await states(queue, [second])) == (first, [TaskState.QUEUED])

    submitting = asyncio.create_task(submit(queue, "third"))
    await asyncio.sleep(0.02)
    assert not submitting.done()
    await queue.cancel([second], by="test")
    (third,) = await told(submitting)
    assert await states(queue, [third]) == [TaskState.QUEUED]


async def test_several_submissions_that_wait_all_get_their_room(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=2, when_full="Block", block_seconds=FOREVER))
    submitting = [asyncio.create_task(submit(queue, n)) for n in range(10)]
    done: list[str] = []
    while len(done) < 10:
        claim = await claim_one(queue, wait_seconds=20)
        done.append(claim.id)
        await queue.settle(succeeded([claim]))
        assert (await queue.stats()).queued <= 2
    assert sorted(done) == sorted(task_id for (task_id,) in await told(asyncio.gather(*submitting)))


async def test_a_submission_that_has_waited_long_enough_is_refused(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1, when_full="Block", block_seconds=0.2))
    await submit(queue, "first")
    submitting = asyncio.create_task(submit(queue, "second", id="second"))
    await pass_time(0.2)
    with pytest.raises(QueueFullError):
        await told(submitting)
    assert (await queue.stats()).submitted_total == 1


async def test_a_submission_that_waits_can_be_given_up(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1, when_full="Block", block_seconds=FOREVER))
    await submit(queue, "first")
    submitting = asyncio.create_task(submit(queue, "second"))
    await asyncio.sleep(0.02)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await succeed(queue)
    stats = await queue.stats()
    assert (stats.queued, stats.submitted_total) == (0, 1)


async def test_a_fired_task_needs_room_like_any_other(open_test_queue: OpenQueue, now: Now) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1))
    await submit(queue, "first")
    due = now()
    with pytest.raises(QueueFullError):
        await queue.fire("hourly", due, TaskRequest(id="fired"))
    assert await queue.fired() == {}
    await succeed(queue)
    assert await queue.fire("hourly", due, TaskRequest(id="fired")) is True
