# SPDX-License-Identifier: Apache-2.0
"""How attempts end, and what is kept of them."""

from datetime import timedelta

import orjson
import pytest

from agent_runtime.queue import Failed, Outcome, TaskQueue, open_queue
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import TaskState
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.conftest import queue_config
from tests.integration.queue.actors import ALICE, BOB, NOW, claim_one, failed, submit, succeeded, tasks
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer


async def test_a_task_keeps_its_result_and_its_story(queue: TaskQueue) -> None:
    payload = {
        "text": 'a "quoted" word, ","payload":" and ,"outcome":{"token":""}',
        "n": [1, 2.5, None, True],
        "ü": "✓",
    }
    (task_id,) = await queue.submit(
        tasks(payload, id="my-task", type='say ","payload":', priority=7, timeout_seconds=12.5, max_attempts=4)
    )
    queued = await queue.get(task_id)
    assert (queued.state, queued.payload, queued.attempts) == (TaskState.QUEUED, payload, 0)

    claim = await claim_one(queue)
    assert orjson.loads(claim.payload) == payload
    assert (claim.id, claim.type, claim.priority) == ("my-task", 'say ","payload":', 7)
    assert (claim.max_attempts, claim.timeout_seconds, claim.agent) == (4, 12.5, None)
    running = await queue.get(task_id)
    assert (running.state, running.worker, running.attempts) == (TaskState.RUNNING, "echo-alice", 1)

    result = {"words": 3, "echo": payload}
    assert await queue.settle(succeeded([claim], result)) == [True]
    record = await queue.get(task_id)
    assert (record.state, record.result, record.payload) == (TaskState.SUCCEEDED, result, payload)
    assert (record.worker, record.attempts, record.failures) == ("echo-alice", 1, [])
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.created_at <= record.started_at <= record.finished_at
    stats = await queue.stats()
    assert (stats.queued, stats.running, stats.succeeded_total, stats.failed_total) == (0, 0, 1, 0)


async def test_a_task_that_fails_is_retried_after_its_backoff(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(retry=RetryPolicy(max_attempts=3, initial_seconds=0.2, max_seconds=10))
    (task_id,) = await submit(queue, "work")
    assert await queue.settle(failed(await claim_one(queue), message="ValueError: ü\udcff")) == [True]

    scheduled = await queue.get(task_id)
    assert (scheduled.state, scheduled.attempts, scheduled.worker) == (TaskState.SCHEDULED, 1, "echo-alice")
    (failure,) = scheduled.failures
    assert (failure.code, failure.message) == ("FAILED", "ValueError: ü\\udcff")
    assert scheduled.due_at is not None
    assert timedelta(seconds=0.2) <= scheduled.due_at - failure.at <= timedelta(seconds=0.2 * 1.2 + 0.001)
    assert (await queue.stats()).scheduled == 1
    assert await queue.claim(BOB, limit=1, wait_seconds=NOW) == []

    second = await claim_one(queue, BOB)
    assert second.attempt == 2
    started = (await queue.get(task_id)).started_at
    assert started is not None
    assert started >= scheduled.due_at

    await queue.settle(failed(second))
    scheduled = await queue.get(task_id)
    assert scheduled.due_at is not None
    assert timedelta(seconds=0.4) <= scheduled.due_at - scheduled.failures[1].at <= timedelta(seconds=0.4 * 1.2 + 0.001)


async def test_the_backoff_has_a_limit(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(retry=RetryPolicy(max_attempts=9, initial_seconds=50, max_seconds=60))
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    await queue.settle(failed(await claim_one(queue)))
    record = await queue.get(task_id)
    assert record.due_at is not None
    assert 60 <= (record.due_at - record.failures[1].at).total_seconds() <= 72.001


async def test_a_failure_may_choose_its_own_delay(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue), delay_seconds=1000.5))
    record = await queue.get(task_id)
    assert record.due_at is not None
    assert (record.due_at - record.failures[0].at).total_seconds() == 1000.5


async def test_a_task_that_has_used_up_its_attempts_is_dead_and_kept(queue: TaskQueue) -> None:
    first, second = await submit(queue, "first", "second", max_attempts=2)
    for task_id in (first, second):
        for attempt in (1, 2):
            claim = await claim_one(queue)
            assert (claim.id, claim.attempt) == (task_id, attempt)
            assert await queue.settle(failed(claim, code="TIMEOUT", delay_seconds=0)) == [True]

    dead = await queue.list_dead(limit=10)
    assert [record.id for record in dead] == [second, first]
    for record in dead:
        assert (record.state, record.attempts) == (TaskState.DEAD, 2)
        assert [(failure.attempt, failure.code) for failure in record.failures] == [(1, "TIMEOUT"), (2, "TIMEOUT")]
    assert [record.id for record in await queue.list_dead(limit=1)] == [second]
    stats = await queue.stats()
    assert (stats.dead, stats.failed_total, stats.scheduled, stats.queued) == (2, 2, 0, 0)


async def test_dead_tasks_do_not_expire_and_others_do(open_test_queue: OpenQueue, redis_server: RedisServer) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    good, bad, dead = await submit(queue, "good", "bad", "dead", max_attempts=1)
    claims = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
    outcomes: list[Outcome] = [*succeeded(claims[:1], 1), *failed(claims[1], permanent=True), *failed(claims[2])]
    assert await queue.settle(outcomes) == [True, True, True]
    assert (await queue.get(bad)).state is TaskState.FAILED
    assert (await queue.get(dead)).state is TaskState.DEAD

    async def gone() -> bool:
        with redis_server.client() as client:
            return len(list(client.scan_iter("*:t:*"))) == 1

    await eventually_async(gone, what="results expire")
    for task_id in (good, bad):
        with pytest.raises(TaskNotFoundError, match="has expired"):
            await queue.get(task_id)
    assert (await queue.get(dead)).state is TaskState.DEAD


async def test_a_permanent_failure_is_final_whatever_attempts_are_left(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=5)
    await queue.settle(failed(await claim_one(queue), permanent=True))
    record = await queue.get(task_id)
    assert (record.state, record.attempts, len(record.failures)) == (TaskState.FAILED, 1, 1)
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
    stats = await queue.stats()
    assert (stats.failed_total, stats.dead) == (1, 0)


async def test_a_task_that_succeeds_at_last_keeps_its_earlier_failures(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue, BOB), delay_seconds=0))
    await queue.settle(succeeded([await claim_one(queue, ALICE)], "ok"))
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.SUCCEEDED, 2, "echo-alice")
    assert [(f.attempt, f.worker) for f in record.failures] == [(1, "echo-bob")]


async def test_two_outcomes_of_one_attempt_count_once(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    assert await queue.settle([*succeeded([claim], 1), *succeeded([claim], 2)]) == [True, True]
    assert (await queue.get(task_id)).result == 1
    assert (await queue.stats()).succeeded_total == 1


async def test_a_long_failure_message_is_cut_and_says_so(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    await queue.settle([Failed(await claim_one(queue), code="FAILED", message="x" * 10_000, permanent=True)])
    (failure,) = (await queue.get(task_id)).failures
    assert len(failure.message) < 4200
    assert failure.message.endswith("(5904 more characters)")


async def test_the_oldest_waiting_task_is_told_whatever_its_priority(queue: TaskQueue) -> None:
    assert (await queue.stats()).oldest_at is None
    (oldest,) = await submit(queue, "oldest", priority=0, agent="count")
    await submit(queue, "newer", priority=9)
    created = (await queue.get(oldest)).created_at
    stats = await queue.stats()
    assert (stats.queued, stats.oldest_at) == (2, created)


async def test_a_result_of_another_queue_is_not_found(open_test_queue: OpenQueue, redis_server: RedisServer) -> None:
    (task_id,) = await submit(open_test_queue(), "work")
    other = open_queue(queue_config("other"), url=redis_server.url)
    with pytest.raises(TaskNotFoundError, match="queue 'other' has no task"):
        await other.get(task_id)
    await other.aclose()
