# SPDX-License-Identifier: Apache-2.0
"""Who holds a task, and what happens when they fall silent."""

import asyncio

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import TaskState
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    FOREVER,
    NOW,
    SOON,
    claim_one,
    failed,
    payloads,
    submit,
    succeeded,
    told,
)
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async


async def test_a_task_of_a_silent_worker_is_given_to_another(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(lease_seconds=0.2)
    (task_id,) = await submit(queue, "work")
    lost = await claim_one(queue, ALICE)
    assert (lost.attempt, lost.id) == (1, task_id)

    again = await claim_one(queue, BOB)
    assert (again.id, again.attempt) == (task_id, 2)
    assert again.token != lost.token
    (failure,) = (await queue.get(task_id)).failures
    assert (failure.code, failure.attempt, failure.worker) == ("LEASE_EXPIRED", 1, "echo-alice")


async def test_a_worker_that_wakes_up_after_its_lease_can_change_nothing(open_test_queue: OpenQueue) -> None:
    hasty = open_test_queue(lease_seconds=0.05)
    queue = open_test_queue()
    (task_id,) = await submit(queue, "work")
    stale = await claim_one(hasty, ALICE)
    current = await claim_one(queue, BOB)

    assert await queue.extend([stale, current]) == [stale]
    assert await queue.settle(succeeded([stale], "stale")) == [False]
    assert await queue.settle(failed(stale, permanent=True)) == [False]
    await queue.release([stale])
    assert (await queue.get(task_id)).worker == "echo-bob"

    assert await queue.settle(succeeded([current], "current")) == [True]
    assert await queue.settle(succeeded([stale], "stale")) == [False]
    record = await queue.get(task_id)
    assert (record.state, record.result, record.attempts) == (TaskState.SUCCEEDED, "current", 2)


async def test_a_lease_that_is_over_but_not_taken_back_still_counts(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(lease_seconds=0.001)
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    assert await queue.settle(succeeded([claim], 1)) == [True]
    assert (await queue.get(task_id)).state is TaskState.SUCCEEDED


async def test_renewing_keeps_a_task_for_longer_than_its_lease(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(lease_seconds=0.3)
    await submit(queue, "long work")
    claim = await claim_one(queue, ALICE)
    rival = asyncio.create_task(claim_one(queue, BOB, wait_seconds=SOON))

    for _ in range(12):
        assert await queue.extend([claim]) == []
        done, _ = await asyncio.wait({rival}, timeout=0.1)
        assert not done
    # From here on nobody renews.
    assert (await rival).attempt == 2


async def test_a_task_that_loses_its_lease_on_its_last_attempt_is_dead(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(lease_seconds=0.05)
    (task_id,) = await submit(queue, "work", max_attempts=2)
    for attempt in (1, 2):
        assert (await claim_one(queue)).attempt == attempt
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    assert await queue.claim(BOB, limit=1, wait_seconds=0.5) == []

    (record,) = await told(waiting)
    assert record.state is TaskState.DEAD
    assert [failure.code for failure in record.failures] == ["LEASE_EXPIRED", "LEASE_EXPIRED"]
    assert await queue.list_dead(limit=10) == [record]


async def test_figures_are_right_where_no_worker_claims(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(lease_seconds=0.05)
    await submit(queue, "work", max_attempts=1)
    await claim_one(queue)

    async def dead() -> bool:
        return (await queue.stats()).dead == 1

    await eventually_async(dead, what="the task is counted as dead")
    assert (await queue.stats()).running == 0


async def test_a_released_task_keeps_its_attempt(queue: TaskQueue) -> None:
    await submit(queue, "work")
    first = await claim_one(queue, ALICE)
    await queue.release([first])
    second = await claim_one(queue, BOB)
    assert (first.attempt, second.attempt) == (1, 1)

    await queue.settle(failed(second, delay_seconds=0))
    third = await claim_one(queue, ALICE)
    await queue.release([third])
    await queue.release([third])
    assert (await queue.stats()).queued == 1
    fourth = await claim_one(queue, BOB)
    assert (third.attempt, fourth.attempt) == (2, 2)
    assert len((await queue.get(fourth.id)).failures) == 1


async def test_claims_beyond_one_call_are_all_renewed_settled_and_released(queue: TaskQueue) -> None:
    await submit(queue, *range(1500))
    claims = []
    while part := await queue.claim(ALICE, limit=5000, wait_seconds=NOW):
        claims += part
    assert payloads(claims) == list(range(1500))
    assert await queue.extend(claims) == []
    await queue.release(claims[1200:])
    assert await queue.settle(succeeded(claims)) == [True] * 1200 + [False] * 300
    assert (await queue.stats()).queued == 300
