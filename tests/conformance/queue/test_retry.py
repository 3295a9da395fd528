# SPDX-License-Identifier: Apache-2.0
"""Attempts that fail, and the tasks that are dead: retried, listed, replayed, purged."""

import itertools
from datetime import timedelta

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.errors import InvalidTaskError, TaskNotFoundError
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskRequest, TaskState
from kubeagents_api.task_queue import RetryPolicy
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    claim_all,
    claim_one,
    die,
    failed,
    ids_of,
    states,
    story,
    submit,
    succeed,
    succeeded,
    tasks,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime


async def test_a_failed_attempt_is_retried_after_its_wait(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(retry=RetryPolicy(initial_seconds=0.2, jitter=0))
    (task_id,) = await submit(queue, "work")
    assert await queue.settle(failed(await claim_one(queue), code="BROKEN", message="ValueError: ü\udcff")) == [True]
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.SCHEDULED, 1, ALICE.instance)
    (failure,) = record.failures
    assert (failure.code, failure.message) == ("BROKEN", "ValueError: ü\\udcff")
    assert (failure.attempt, failure.worker) == (1, ALICE.instance)
    assert record.due_at == failure.at + timedelta(seconds=0.2)
    assert await claim_all(queue) == []
    await pass_time(0.2)
    assert (await claim_one(queue)).attempt == 2


async def test_waits_grow_by_the_factor_up_to_the_longest(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    policy = RetryPolicy(initial_seconds=0.01, factor=3, max_seconds=0.2, jitter=0, max_attempts=9)
    queue = open_test_queue(retry=policy)
    (task_id,) = await submit(queue, "work")
    waits = []
    for _ in range(5):
        await queue.settle(failed(await claim_one(queue)))
        record = await queue.get(task_id)
        assert record.due_at is not None
        waits.append(round((record.due_at - record.failures[-1].at).total_seconds(), 3))
        await pass_time(waits[-1])
    assert waits == [0.01, 0.03, 0.09, 0.2, 0.2]


async def test_a_wait_is_longer_by_a_random_part_of_up_to_the_jitter(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(retry=RetryPolicy(initial_seconds=100, jitter=0.5))
    ids = await submit(queue, *range(50))
    claims = await queue.claim(ALICE, limit=50, wait_seconds=NOW)
    await queue.settle(list(itertools.chain(*(failed(claim) for claim in claims))))
    waits = set()
    for task_id in ids:
        record = await queue.get(task_id)
        assert record.due_at is not None
        waits.add((record.due_at - record.failures[-1].at).total_seconds())
    assert len(waits) > 25
    assert 100 <= min(waits) < max(waits) <= 150


async def test_a_failure_may_say_how_long_to_wait(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(retry=RetryPolicy(initial_seconds=5, max_seconds=10, jitter=1))
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue), delay_seconds=1000.5))
    record = await queue.get(task_id)
    assert record.due_at == record.failures[0].at + timedelta(seconds=1000.5)


async def test_a_failure_may_ask_for_another_try_at_once(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    assert await states(queue, [task_id]) == [TaskState.QUEUED]
    assert (await claim_one(queue, BOB)).attempt == 2


async def test_a_permanent_failure_is_final_whatever_attempts_are_left(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=5)
    await queue.settle(failed(await claim_one(queue), permanent=True))
    record = await queue.get(task_id)
    assert (record.state, record.attempts, len(record.failures)) == (TaskState.FAILED, 1, 1)
    assert record.finished_at is not None
    stats = await queue.stats()
    assert (stats.failed_total, stats.dead) == (1, 0)
    assert await story(queue, task_id) == [TaskEventKind.SUBMITTED, TaskEventKind.STARTED, TaskEventKind.FAILED]


@pytest.mark.parametrize(
    ("code", "message", "final"),
    [
        ("TIMEOUT", "took too long", True),
        ("FAILED", "ValueError: no such order", True),
        ("FAILED", "ValueError", True),
        ("FAILED", "ValueErrors: several", False),
        ("FAILED", "KeyError: ValueError: no", False),
        ("OTHER", "TIMEOUT is not the class", False),
    ],
)
async def test_errors_that_need_no_second_try_fail_for_good(
    open_test_queue: OpenQueue, code: str, message: str, final: bool
) -> None:
    queue = open_test_queue(retry=RetryPolicy(non_retryable_errors=["TIMEOUT", "ValueError"]))
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue), code=code, message=message, delay_seconds=0))
    assert await states(queue, [task_id]) == [TaskState.FAILED if final else TaskState.QUEUED]


async def test_a_task_whose_attempts_are_used_up_is_dead(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=2)
    for attempt in (1, 2):
        claim = await claim_one(queue)
        assert claim.attempt == attempt
        await queue.settle(failed(claim, delay_seconds=0))
    record = await queue.get(task_id)
    assert (record.state, record.attempts) == (TaskState.DEAD, 2)
    assert [failure.attempt for failure in record.failures] == [1, 2]
    stats = await queue.stats()
    assert (stats.dead, stats.failed_total, stats.queued) == (1, 1, 0)
    assert await story(queue, task_id) == [
        TaskEventKind.SUBMITTED,
        TaskEventKind.STARTED,
        TaskEventKind.RETRYING,
        TaskEventKind.STARTED,
        TaskEventKind.DEAD,
    ]


async def test_a_task_that_succeeds_at_last_keeps_its_earlier_failures(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    await queue.settle(failed(await claim_one(queue, BOB), delay_seconds=0))
    await succeed(queue, result={"n": 1})
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.worker) == (TaskState.SUCCEEDED, 2, ALICE.instance)
    assert (record.result, [(f.attempt, f.worker) for f in record.failures]) == ({"n": 1}, [(1, BOB.instance)])


async def test_an_outcome_counts_once_however_often_it_is_sent(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    assert await queue.settle([*succeeded([claim], 1), *succeeded([claim], 2)]) == [True, True]
    assert await queue.settle(succeeded([claim], 3)) == [True]
    assert (await queue.get(task_id)).result == 1
    assert (await queue.stats()).succeeded_total == 1
    assert (await story(queue, task_id)).count(TaskEventKind.SUCCEEDED) == 1


async def test_a_failure_counts_once_however_often_it_is_sent(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work", max_attempts=3)
    claim = await claim_one(queue)
    for _ in range(2):
        assert await queue.settle(failed(claim, delay_seconds=0)) == [True]
    record = await queue.get(task_id)
    assert (record.state, record.attempts, len(record.failures)) == (TaskState.QUEUED, 1, 1)


async def test_the_next_attempt_is_fenced_from_the_one_before(queue: TaskQueue) -> None:
    (task_id,) = await submit(queue, "work")
    first = await claim_one(queue)
    await queue.settle(failed(first, delay_seconds=0))
    second = await claim_one(queue, BOB)
    assert await queue.extend([first, second]) == [first]
    await queue.release([first])
    assert await states(queue, [task_id]) == [TaskState.RUNNING]
    assert await queue.settle(succeeded([second])) == [True]


async def test_results_are_kept_for_their_time_and_dead_tasks_for_ever(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    good, bad, cancelled = await submit(queue, "good", "bad", "cancelled")
    await succeed(queue)
    await queue.settle(failed(await claim_one(queue), permanent=True))
    await queue.cancel([cancelled], by="test")
    (dead,) = await die(queue, "dead")
    assert (await states(queue, [good, bad, cancelled]))[0] is TaskState.SUCCEEDED
    await pass_time(1.1)
    for task_id in (good, bad, cancelled):
        with pytest.raises(TaskNotFoundError, match="expired"):
            await queue.get(task_id)
    assert await states(queue, [dead]) == [TaskState.DEAD]


# ── the dead ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_dead_are_listed_newest_first_in_pages(queue: TaskQueue, pass_time: PassTime) -> None:
    for name in ("d1", "d2", "d3", "d4", "d5"):
        await die(queue, name)
        await pass_time(0.002)
    assert ids_of(await queue.list_dead(limit=10)) == ["d5", "d4", "d3", "d2", "d1"]
    first = await queue.list_dead(limit=2)
    second = await queue.list_dead(limit=2, after=first[-1].id)
    third = await queue.list_dead(limit=2, after=second[-1].id)
    assert [ids_of(first), ids_of(second), ids_of(third)] == [["d5", "d4"], ["d3", "d2"], ["d1"]]
    assert all(record.state is TaskState.DEAD for record in first)
    assert await queue.list_dead(limit=2, after="d1") == []


async def test_those_that_die_in_the_same_moment_are_listed_by_the_order_of_their_deaths(queue: TaskQueue) -> None:
    names = ["m", "z", "a", "q", "b"]
    await queue.submit([TaskRequest(id=name, max_attempts=1) for name in names])
    claims = await queue.claim(ALICE, limit=5, wait_seconds=NOW)
    assert await queue.settle([outcome for claim in claims for outcome in failed(claim)]) == [True] * 5
    assert ids_of(await queue.list_dead(limit=10)) == names[::-1]
    listed: list[str] = []
    while page := ids_of(await queue.list_dead(limit=2, after=listed[-1] if listed else "")):
        listed += page
    assert listed == names[::-1]
    assert await queue.replay(DeadFilter(), by="test") == names


async def test_no_page_follows_a_task_that_is_not_dead(queue: TaskQueue) -> None:
    await die(queue, "dead")
    await submit(queue, "alive", id="alive")
    with pytest.raises(InvalidTaskError) as refusal:
        await queue.list_dead(limit=2, after="alive")
    assert refusal.value.field == "after"


FILTERS: dict[str, tuple[DeadFilter, set[str]]] = {
    "everything": (DeadFilter(), {"plain", "typed", "agent", "tenant", "code", "worker"}),
    "ids": (DeadFilter(ids=["plain", "code", "alive", "nobody"]), {"plain", "code"}),
    "type": (DeadFilter(type="ocr"), {"typed"}),
    "agent": (DeadFilter(agent="count"), {"agent"}),
    "tenant": (DeadFilter(tenant="acme"), {"tenant"}),
    "code": (DeadFilter(code="BROKEN"), {"code"}),
    "worker": (DeadFilter(worker=BOB.instance), {"worker"}),
    "two that fit": (DeadFilter(ids=["typed", "plain"], type="ocr"), {"typed"}),
    "two that do not": (DeadFilter(ids=["plain"], type="ocr"), set()),
}


async def some_dead(queue: TaskQueue) -> None:
    """One dead task for each filter, and one task that is alive."""
    await die(queue, "plain")
    await die(queue, "typed", type="ocr")
    await die(queue, "agent", agent="count", worker=CAROL)
    await die(queue, "tenant", tenant="acme")
    await die(queue, "worker", worker=BOB)
    await submit(queue, "code", id="code", max_attempts=1)
    await queue.settle(failed(await claim_one(queue), code="BROKEN"))
    await submit(queue, "alive", id="alive", agent="nobody", type="ocr")


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_means_those_for_which_all_of_it_holds(queue: TaskQueue, name: str) -> None:
    which, expected = FILTERS[name]
    await some_dead(queue)
    assert set(ids_of(await queue.list_dead(which, limit=100))) == expected
    assert set(await queue.replay(which, by="test")) == expected
    left = FILTERS["everything"][1] - expected
    assert set(ids_of(await queue.list_dead(limit=100))) == left
    assert (await queue.stats()).dead == len(left)
    assert set(await states(queue, sorted(expected))) <= {TaskState.QUEUED}


@pytest.mark.parametrize("name", FILTERS)
async def test_purging_removes_what_fits_the_filter(queue: TaskQueue, name: str) -> None:
    which, expected = FILTERS[name]
    await some_dead(queue)
    assert set(await queue.purge(which, by="admin")) == expected
    for task_id in expected:
        with pytest.raises(TaskNotFoundError):
            await queue.get(task_id)
        assert (await story(queue, task_id))[-1] is TaskEventKind.PURGED
    assert set(ids_of(await queue.list_dead(limit=100))) == FILTERS["everything"][1] - expected
    assert await states(queue, ["alive"]) == [TaskState.QUEUED]


async def test_the_dead_can_be_chosen_by_the_time_of_their_death(
    queue: TaskQueue, pass_time: PassTime, now: Now
) -> None:
    await die(queue, "early")
    await pass_time(0.05)
    moment = now()
    await pass_time(0.05)
    await die(queue, "late")
    assert ids_of(await queue.list_dead(DeadFilter(before=moment), limit=9)) == ["early"]
    assert ids_of(await queue.list_dead(DeadFilter(after=moment), limit=9)) == ["late"]
    died = (await queue.get("late")).finished_at
    assert ids_of(await queue.list_dead(DeadFilter(after=died), limit=9)) == ["late"]
    assert ids_of(await queue.list_dead(DeadFilter(before=died), limit=9)) == ["early"]


async def test_a_replayed_task_has_all_its_attempts_and_keeps_its_story(queue: TaskQueue) -> None:
    (task_id,) = await die(queue, "dead")
    assert await queue.replay(DeadFilter(ids=[task_id]), by="admin") == [task_id]
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.replays) == (TaskState.QUEUED, 0, 1)
    assert (len(record.failures), record.finished_at) == (1, None)
    claim = await claim_one(queue, BOB)
    assert (claim.attempt, claim.max_attempts) == (1, 1)
    await queue.settle(failed(claim))
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.replays) == (TaskState.DEAD, 1, 1)
    assert [failure.worker for failure in record.failures] == [ALICE.instance, BOB.instance]
    assert await queue.replay(DeadFilter(), by="admin") == [task_id]
    await succeed(queue)
    record = await queue.get(task_id)
    assert (record.state, record.attempts, record.replays) == (TaskState.SUCCEEDED, 1, 2)
    (_, replayed) = [e for e in await queue.events(limit=100) if e.kind is TaskEventKind.REPLAYED]
    assert (replayed.task, replayed.by) == (task_id, "admin")
    stats = await queue.stats()
    assert (stats.submitted_total, stats.failed_total, stats.succeeded_total, stats.dead) == (1, 2, 1, 0)


async def test_replaying_again_changes_nothing(queue: TaskQueue) -> None:
    (task_id,) = await die(queue, "dead")
    which = DeadFilter(ids=[task_id])
    assert await queue.replay(which, by="test") == [task_id]
    assert await queue.replay(which, by="test") == []
    await claim_one(queue)
    assert await queue.replay(which, by="test") == []
    assert (await queue.get(task_id)).replays == 1


async def test_an_old_token_is_worth_nothing_after_a_replay(queue: TaskQueue) -> None:
    await submit(queue, "work", id="task", max_attempts=1)
    old = await claim_one(queue)
    await queue.settle(failed(old))
    await queue.replay(DeadFilter(), by="test")
    new = await claim_one(queue)
    assert (old.attempt, new.attempt) == (1, 1)
    assert await queue.extend([old]) == [old]
    await queue.release([old])
    assert await states(queue, ["task"]) == [TaskState.RUNNING]
    assert await queue.settle(succeeded([new], "ok")) == [True]


async def test_several_are_replayed_in_the_order_in_which_they_died(queue: TaskQueue, pass_time: PassTime) -> None:
    for name in ("b", "a", "c"):
        await die(queue, name)
        await pass_time(0.002)
    assert await queue.replay(DeadFilter(), by="test") == ["b", "a", "c"]
    assert ids_of(await claim_all(queue)) == ["b", "a", "c"]


async def test_a_purged_id_is_free_again(queue: TaskQueue) -> None:
    await die(queue, "dead", idempotency_key="key")
    await queue.purge(DeadFilter(), by="test")
    assert await queue.submit(tasks("new", id="dead", idempotency_key="key")) == ["dead"]
    record = await queue.get("dead")
    assert (record.payload, record.state, record.failures) == ("new", TaskState.QUEUED, [])


async def test_many_dead_tasks_are_replayed_in_one_call(queue: TaskQueue) -> None:
    count = 1200
    ids = await queue.submit(tasks(*range(count), max_attempts=1))
    while claims := await queue.claim(ALICE, limit=600, wait_seconds=NOW):
        await queue.settle([outcome for claim in claims for outcome in failed(claim)])
    assert (await queue.stats()).dead == count
    assert set(await queue.replay(DeadFilter(), by="test")) == set(ids)
    stats = await queue.stats()
    assert (stats.dead, stats.queued) == (0, count)
