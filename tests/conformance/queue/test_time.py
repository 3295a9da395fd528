# SPDX-License-Identifier: Apache-2.0
"""Delays, deadlines and leases: what happens by the queue's clock."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    FOREVER,
    NOW,
    claim_all,
    claim_one,
    failed,
    ids_of,
    payloads,
    revoked_from,
    states,
    story,
    submit,
    succeed,
    succeeded,
    told,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime

SHORT = 0.25
"""Seconds that pass for real on a server."""
HOUR = timedelta(hours=1)


# ── delays ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_delayed_task_is_scheduled_until_it_is_due(queue: TaskQueue, pass_time: PassTime) -> None:
    (task_id,) = await submit(queue, "work", delay_seconds=SHORT)
    record = await queue.get(task_id)
    assert record.state is TaskState.SCHEDULED
    assert record.due_at == record.created_at + timedelta(seconds=SHORT)
    assert await claim_all(queue) == []
    assert (await queue.stats()).scheduled == 1
    await pass_time(SHORT)
    assert ids_of(await claim_all(queue)) == [task_id]


async def test_not_before_is_a_time_of_day(queue: TaskQueue, now: Now) -> None:
    future, past = now() + HOUR, now() - HOUR
    (later,) = await submit(queue, "later", not_before=future)
    (at_once,) = await submit(queue, "at once", not_before=past)
    record = await queue.get(later)
    assert record.state is TaskState.SCHEDULED
    assert record.due_at is not None
    assert abs(record.due_at - future) < timedelta(milliseconds=1)
    assert ids_of(await claim_all(queue)) == [at_once]


async def test_asking_for_the_figures_moves_what_is_due(queue: TaskQueue, pass_time: PassTime) -> None:
    (task_id,) = await submit(queue, "work", delay_seconds=SHORT)
    await pass_time(SHORT)
    stats = await queue.stats()
    assert (stats.scheduled, stats.queued) == (0, 1)
    record = await queue.get(task_id)
    assert (record.state, record.due_at) == (TaskState.QUEUED, None)


async def test_a_worker_that_waits_gets_what_becomes_due(queue: TaskQueue, pass_time: PassTime) -> None:
    (task_id,) = await submit(queue, "work", delay_seconds=SHORT)
    claiming = asyncio.create_task(claim_one(queue, wait_seconds=FOREVER))
    await pass_time(SHORT)
    assert (await told(claiming)).id == task_id


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.SCHEDULED, TaskState.BLOCKED])
async def test_a_waiting_task_expires_at_its_deadline(
    queue: TaskQueue, pass_time: PassTime, now: Now, state: TaskState
) -> None:
    await submit(queue, "parent", id="parent", agent="count")
    extras: dict[TaskState, dict[str, Any]] = {
        TaskState.SCHEDULED: {"delay_seconds": 60},
        TaskState.BLOCKED: {"depends_on": ["parent"]},
    }
    deadline = now() + timedelta(seconds=SHORT)
    (task_id,) = await submit(queue, "work", deadline=deadline, **extras.get(state, {}))
    record = await queue.get(task_id)
    assert record.state is state
    assert record.deadline is not None
    assert abs(record.deadline - deadline) < timedelta(milliseconds=1)

    await pass_time(SHORT)
    stats = await queue.stats()
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.EXPIRED, 0, None)
    (failure,) = record.failures
    assert (failure.code, failure.attempt, failure.worker) == ("DEADLINE_EXCEEDED", 0, None)
    assert record.finished_at is not None
    assert (stats.expired_total, stats.queued, stats.scheduled, stats.blocked) == (1, 1, 0, 0)
    assert (await story(queue, task_id))[-1] is TaskEventKind.EXPIRED


async def test_nobody_is_given_a_task_whose_deadline_has_passed(
    queue: TaskQueue, pass_time: PassTime, now: Now
) -> None:
    (late,) = await submit(queue, "late", deadline=now() + timedelta(seconds=SHORT))
    await submit(queue, "good", deadline=now() + HOUR)
    await pass_time(SHORT)
    claims = await claim_all(queue)
    assert payloads(claims) == ["good"]
    assert claims[0].deadline_ms is not None
    assert await states(queue, [late]) == [TaskState.EXPIRED]


async def test_a_running_task_expires_and_its_worker_is_told(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=2 * SHORT))
    claim = await claim_one(queue)
    listening = asyncio.create_task(revoked_from(queue, ALICE, claim))
    await pass_time(2 * SHORT)
    assert (await queue.stats()).running == 0
    await told(listening)

    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.EXPIRED, 1, ALICE.instance)
    (failure,) = record.failures
    assert (failure.code, failure.attempt, failure.worker) == ("DEADLINE_EXCEEDED", 1, ALICE.instance)
    assert await queue.settle(succeeded([claim])) == [False]
    assert await queue.extend([claim]) == [claim]
    await queue.release([claim])
    assert await states(queue, [task_id]) == [TaskState.EXPIRED]


async def test_an_outcome_counts_if_nobody_has_noticed_the_deadline_yet(
    queue: TaskQueue, pass_time: PassTime, now: Now
) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=2 * SHORT))
    claim = await claim_one(queue)
    await pass_time(2 * SHORT)
    assert await queue.settle(succeeded([claim], "ok")) == [True]
    stats = await queue.stats()
    assert (stats.succeeded_total, stats.expired_total) == (1, 0)
    assert await states(queue, [task_id]) == [TaskState.SUCCEEDED]


async def test_the_queue_gives_a_deadline_to_tasks_that_have_none(
    open_test_queue: OpenQueue, pass_time: PassTime, now: Now
) -> None:
    queue = open_test_queue(task_ttl_seconds=SHORT)
    (own,) = await submit(queue, "own", deadline=now() + HOUR)
    (ttl,) = await submit(queue, "ttl")
    record = await queue.get(ttl)
    assert record.deadline == record.created_at + timedelta(seconds=SHORT)
    await pass_time(SHORT)
    assert ids_of(await claim_all(queue)) == [own]
    assert await states(queue, [ttl]) == [TaskState.EXPIRED]


async def test_a_retried_task_keeps_its_deadline(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=2 * SHORT))
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    await pass_time(2 * SHORT)
    await queue.stats()
    record = await queue.get(task_id)
    assert record.state is TaskState.EXPIRED
    assert [(failure.code, failure.attempt) for failure in record.failures] == [
        ("FAILED", 1),
        ("DEADLINE_EXCEEDED", 0),
    ]


async def test_a_replayed_task_has_no_deadline_any_more(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=2 * SHORT), max_attempts=1)
    await queue.settle(failed(await claim_one(queue)))
    await pass_time(2 * SHORT)
    assert await queue.replay(DeadFilter(), by="test") == [task_id]
    assert (await queue.get(task_id)).deadline is None
    claim = await claim_one(queue)
    assert (claim.id, claim.deadline_ms) == (task_id, None)


async def test_ended_tasks_do_not_expire(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    (task_id,) = await submit(queue, "work", deadline=now() + timedelta(seconds=2 * SHORT))
    await succeed(queue)
    await pass_time(2 * SHORT)
    assert (await queue.stats()).expired_total == 0
    assert await states(queue, [task_id]) == [TaskState.SUCCEEDED]


# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_whose_lease_is_over_runs_again_and_the_attempt_counts(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(lease_seconds=SHORT)
    (task_id,) = await submit(queue, "work")
    lost = await claim_one(queue)
    await pass_time(SHORT)
    claim = await claim_one(queue, BOB)
    assert (claim.id, claim.attempt) == (task_id, 2)
    (failure,) = (await queue.get(task_id)).failures
    assert (failure.code, failure.attempt, failure.worker) == ("LEASE_EXPIRED", 1, ALICE.instance)
    assert claim.token != lost.token
    assert (await story(queue, task_id))[-2:] == [TaskEventKind.LEASE_EXPIRED, TaskEventKind.STARTED]


async def test_a_stale_token_changes_nothing(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(lease_seconds=SHORT)
    (task_id,) = await submit(queue, "work")
    lost = await claim_one(queue)
    await pass_time(SHORT)
    claim = await claim_one(queue, BOB)
    assert await queue.extend([lost]) == [lost]
    assert await queue.settle([*succeeded([lost], "old"), *failed(lost, permanent=True)]) == [False, False]
    await queue.release([lost])
    assert await queue.emit(lost, []) is False
    record = await queue.get(task_id)
    assert (record.state, record.worker, record.attempts) == (TaskState.RUNNING, BOB.instance, 2)
    assert await queue.settle(succeeded([claim], "new")) == [True]
    assert (await queue.get(task_id)).result == "new"


async def test_a_task_is_dead_when_the_lease_of_its_last_attempt_is_over(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(lease_seconds=SHORT)
    (task_id,) = await submit(queue, "work", max_attempts=1)
    await claim_one(queue)
    await pass_time(SHORT)
    assert (await queue.stats()).dead == 1
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.failures[-1].code) == (TaskState.DEAD, 1, "LEASE_EXPIRED")
    assert (await story(queue, task_id))[-2:] == [TaskEventKind.LEASE_EXPIRED, TaskEventKind.DEAD]


async def test_a_lease_that_nobody_has_taken_back_still_counts(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(lease_seconds=SHORT)
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    await pass_time(SHORT)
    assert await queue.extend([claim]) == []
    assert await queue.settle(succeeded([claim])) == [True]
    assert (await queue.get(task_id)).attempts == 1


async def test_a_renewed_lease_lasts_longer(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(lease_seconds=1.5)
    await submit(queue, "work")
    claim = await claim_one(queue)
    await pass_time(0.8)
    assert await queue.extend([claim]) == []
    await pass_time(0.8)
    assert await queue.claim(BOB, limit=1, wait_seconds=NOW) == []
    assert (await queue.stats()).running == 1


async def test_a_released_attempt_does_not_count(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=1)
    claim = await claim_one(queue)
    await queue.release([claim])
    assert (await queue.get(task_id)).attempts == 0
    assert await queue.settle(failed(claim)) == [False]
    again = await claim_one(queue, BOB)
    assert (again.attempt, again.max_attempts) == (1, 1)
    assert await story(queue, task_id) == [
        TaskEventKind.SUBMITTED,
        TaskEventKind.STARTED,
        TaskEventKind.RELEASED,
        TaskEventKind.STARTED,
    ]


async def test_a_worker_that_waits_gets_the_task_of_one_that_died(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(lease_seconds=SHORT)
    (task_id,) = await submit(queue, "work")
    await claim_one(queue)
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await pass_time(SHORT)
    assert (await told(claiming)).id == task_id
