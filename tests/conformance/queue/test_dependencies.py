# SPDX-License-Identifier: Apache-2.0
"""Tasks that wait for others, and what becomes of them when those end badly."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
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
    told,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime


async def test_a_task_is_blocked_until_all_its_parents_have_succeeded(queue: TaskQueue) -> None:
    await submit(queue, 1, id="one")
    await submit(queue, 2, id="two")
    (child,) = await submit(queue, "child", depends_on=["one", "two"], priority=9)
    record = await queue.get(child)
    assert (record.state, record.waits_for, record.depends_on) == (TaskState.BLOCKED, 2, ["one", "two"])
    assert (await queue.stats()).blocked == 1

    assert await succeed(queue) == "one"
    record = await queue.get(child)
    assert (record.state, record.waits_for) == (TaskState.BLOCKED, 1)
    assert await succeed(queue) == "two"
    record = await queue.get(child)
    assert (record.state, record.waits_for) == (TaskState.QUEUED, 0)
    assert await succeed(queue) == child
    assert (await queue.stats()).blocked == 0


async def test_parents_and_children_may_come_in_one_batch_in_any_order(queue: TaskQueue) -> None:
    await queue.submit(
        [
            *tasks("last", id="last", depends_on=["left", "right"]),
            *tasks("left", id="left", depends_on=["first"]),
            *tasks("right", id="right", depends_on=["first"]),
            *tasks("first", id="first"),
        ]
    )
    done = []
    while claims := await claim_all(queue):
        done.append(ids_of(claims))
        await queue.settle(succeeded(claims))
    assert done == [["first"], ["left", "right"], ["last"]]


async def test_a_child_reads_how_its_parents_ended(queue: TaskQueue) -> None:
    await submit(queue, 1, id="good")
    await submit(queue, 2, id="bad")
    await submit(queue, "child", id="child", depends_on=["good", "bad"], on_parent_failure="Run")
    good, bad = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    await queue.settle([*succeeded([good], {"n": 7}), *failed(bad, code="BROKEN", permanent=True)])
    claim = await claim_one(queue)
    assert (claim.id, claim.depends_on) == ("child", ("good", "bad"))
    outcomes = await queue.parents(claim)
    assert set(outcomes) == {"good", "bad"}
    assert (outcomes["good"].state, outcomes["good"].result) == (TaskState.SUCCEEDED, {"n": 7})
    assert outcomes["good"].failure is None
    assert (outcomes["bad"].state, outcomes["bad"].result) == (TaskState.FAILED, None)
    failure = outcomes["bad"].failure
    assert failure is not None
    assert (failure.code, failure.attempt, failure.worker) == ("BROKEN", 1, ALICE.instance)


async def test_a_task_without_parents_has_no_outcomes_of_them(queue: TaskQueue) -> None:
    await submit(queue, 1)
    assert dict(await queue.parents(await claim_one(queue))) == {}


async def test_a_child_reads_its_parents_even_if_their_results_have_expired(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    await submit(queue, 1, id="parent")
    await submit(queue, 2, id="slow", agent="count")
    await submit(queue, "child", depends_on=["parent", "slow"])
    await succeed(queue, result="kept")
    await pass_time(1.2)
    await succeed(queue, CAROL)
    outcomes = await queue.parents(await claim_one(queue))
    assert outcomes["parent"].result == "kept"


async def test_parents_stay_readable_over_the_attempts(queue: TaskQueue) -> None:
    await submit(queue, 1, id="parent")
    await submit(queue, "child", depends_on=["parent"])
    await succeed(queue, result="kept")
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    claim = await claim_one(queue)
    assert (claim.attempt, (await queue.parents(claim))["parent"].result) == (2, "kept")


async def end_badly(queue: TaskQueue, ending: str, pass_time: PassTime) -> None:
    """Let the task `parent`, which is queued with a short deadline for `expired`, end that way."""
    if ending == "cancelled":
        await queue.cancel(["parent"], by="test")
    elif ending == "expired":
        await pass_time(0.3)
        await queue.stats()
    else:
        await queue.settle(failed(await claim_one(queue), permanent=ending == "failed"))
    assert await states(queue, ["parent"]) == [TaskState(ending)]


ENDINGS = ["failed", "dead", "cancelled", "expired"]
POLICIES = {"Fail": TaskState.FAILED, "Skip": TaskState.CANCELLED, "Run": TaskState.QUEUED}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_policy_of_a_child_says_what_a_bad_end_of_its_parent_means(
    queue: TaskQueue, pass_time: PassTime, now: Now, ending: str
) -> None:
    deadline = now() + timedelta(seconds=0.3) if ending == "expired" else None
    await submit(queue, "parent", id="parent", max_attempts=1, deadline=deadline)
    for policy in POLICIES:
        await submit(queue, policy, id=policy, depends_on=["parent"], on_parent_failure=policy)
    await end_badly(queue, ending, pass_time)
    assert dict(zip(POLICIES, await states(queue, list(POLICIES)), strict=True)) == POLICIES
    for policy in ("Fail", "Skip"):
        record = await queue.get(policy)
        (failure,) = record.failures
        assert (failure.code, failure.attempt, failure.worker) == ("PARENT_FAILED", 0, None)
        assert (record.attempts, record.worker) == (0, None)
        assert "parent" in failure.message
        assert record.finished_at is not None
    claim = await claim_one(queue)
    assert claim.id == "Run"
    assert (await queue.parents(claim))["parent"].state == ending
    assert await story(queue, "Fail") == [TaskEventKind.SUBMITTED, TaskEventKind.FAILED]
    assert await story(queue, "Skip") == [TaskEventKind.SUBMITTED, TaskEventKind.CANCELLED]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_policy_holds_for_children_that_come_later(
    queue: TaskQueue, pass_time: PassTime, now: Now, ending: str
) -> None:
    deadline = now() + timedelta(seconds=0.3) if ending == "expired" else None
    await submit(queue, "parent", id="parent", max_attempts=1, deadline=deadline)
    await end_badly(queue, ending, pass_time)
    for policy in POLICIES:
        await submit(queue, policy, id=policy, depends_on=["parent"], on_parent_failure=policy)
    assert dict(zip(POLICIES, await states(queue, list(POLICIES)), strict=True)) == POLICIES
    assert (await queue.parents(await claim_one(queue)))["parent"].state == ending
    assert await story(queue, "Fail") == [TaskEventKind.SUBMITTED, TaskEventKind.FAILED]
    stats = await queue.stats()
    assert (stats.submitted_total, stats.blocked, stats.queued) == (4, 0, 0)


async def test_the_first_bad_parent_ends_a_child_though_others_still_run(queue: TaskQueue) -> None:
    await submit(queue, 1, id="bad")
    await submit(queue, 2, id="slow", agent="count")
    await submit(queue, "child", id="child", depends_on=["bad", "slow"])
    await submit(queue, "patient", id="patient", depends_on=["bad", "slow"], on_parent_failure="Run")
    await queue.settle(failed(await claim_one(queue), permanent=True))
    assert await states(queue, ["child", "patient"]) == [TaskState.FAILED, TaskState.BLOCKED]
    assert (await queue.get("patient")).waits_for == 1
    await succeed(queue, CAROL)
    assert await states(queue, ["child", "patient"]) == [TaskState.FAILED, TaskState.QUEUED]


async def test_a_bad_end_goes_down_the_whole_tree(queue: TaskQueue) -> None:
    await submit(queue, "root", id="root", max_attempts=1)
    names = ["root", *(f"level-{n}" for n in range(30))]
    await queue.submit(
        [
            task
            for parent, name in itertools.pairwise(names)
            for task in tasks(name, id=name, depends_on=[parent], on_parent_failure="Skip")
        ]
    )
    await submit(queue, "leaf", id="leaf", depends_on=[names[-1]])
    await submit(queue, "last", id="last", depends_on=["leaf"], on_parent_failure="Run")
    await queue.settle(failed(await claim_one(queue)))
    assert await states(queue, names) == [TaskState.DEAD] + [TaskState.CANCELLED] * 30
    assert await states(queue, ["leaf", "last"]) == [TaskState.FAILED, TaskState.QUEUED]
    stats = await queue.stats()
    assert (stats.failed_total, stats.cancelled_total, stats.blocked) == (2, 30, 0)


async def test_parents_that_have_ended_before_count_at_once(queue: TaskQueue) -> None:
    await submit(queue, 1, id="good")
    await succeed(queue, result="ok")
    (child,) = await submit(queue, "child", depends_on=["good"])
    assert await states(queue, [child]) == [TaskState.QUEUED]
    assert (await queue.parents(await claim_one(queue)))["good"].result == "ok"


async def test_a_child_that_a_parent_in_its_batch_sets_free_at_once_has_its_place(queue: TaskQueue) -> None:
    await die(queue, "dead")
    await queue.submit(
        [
            *tasks("first", id="first", priority=9),
            *tasks("parent", id="parent", depends_on=["dead"], on_parent_failure="Skip"),
            *tasks("child", id="child", depends_on=["parent"], on_parent_failure="Run", priority=7),
            *tasks("second", id="second", priority=7),
        ]
    )
    assert ids_of(await claim_all(queue)) == ["first", "child", "second"]


async def test_a_child_waits_for_its_parents_and_its_time(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, 1, id="parent")
    (child,) = await submit(queue, "child", depends_on=["parent"], delay_seconds=0.5)
    assert await states(queue, [child]) == [TaskState.BLOCKED]
    await succeed(queue)
    record = await queue.get(child)
    assert record.state is TaskState.SCHEDULED
    assert record.due_at is not None
    await pass_time(0.5)
    assert await succeed(queue) == child


async def test_a_child_whose_time_came_while_it_was_blocked_runs_at_once(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, 1, id="parent")
    (child,) = await submit(queue, "child", depends_on=["parent"], delay_seconds=0.2)
    await pass_time(0.2)
    assert (await queue.stats()).blocked == 1
    await succeed(queue)
    assert await states(queue, [child]) == [TaskState.QUEUED]


async def test_replaying_a_parent_does_not_bring_its_children_back(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent", max_attempts=1)
    await submit(queue, "child", id="child", depends_on=["parent"])
    await queue.settle(failed(await claim_one(queue)))
    await queue.replay(DeadFilter(), by="test")
    assert await succeed(queue) == "parent"
    assert await states(queue, ["parent", "child"]) == [TaskState.SUCCEEDED, TaskState.FAILED]


async def test_a_replayed_child_reads_its_parents_again(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(result_ttl_seconds=1, inline_bytes=1024)
    large = ["x" * 2000]
    await submit(queue, "parent", id="parent")
    await submit(queue, "parent", id="other")
    await submit(queue, "child", id="child", depends_on=["parent", "other"], max_attempts=1)
    await succeed(queue, result="kept")
    await succeed(queue, result=large)
    await queue.settle(failed(await claim_one(queue)))
    await pass_time(1.2)
    assert await queue.replay(DeadFilter(), by="test") == ["child"]
    outcomes = await queue.parents(await claim_one(queue))
    assert (outcomes["parent"].result, outcomes["other"].result) == ("kept", large)


async def test_a_task_may_depend_on_one_that_is_replayed(queue: TaskQueue) -> None:
    (parent,) = await die(queue, "parent")
    await queue.replay(DeadFilter(), by="test")
    (child,) = await submit(queue, "child", depends_on=[parent])
    assert await states(queue, [child]) == [TaskState.BLOCKED]
    await succeed(queue)
    assert await states(queue, [child]) == [TaskState.QUEUED]


async def test_a_cancelled_child_is_not_woken_by_its_parent(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent")
    await submit(queue, "child", id="child", depends_on=["parent"])
    await queue.cancel(["child"], by="test")
    await succeed(queue)
    assert await states(queue, ["child"]) == [TaskState.CANCELLED]
    assert await claim_all(queue) == []


async def test_a_worker_that_waits_gets_the_child(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent", agent="count")
    await submit(queue, "child", id="child", depends_on=["parent"])
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await succeed(queue, CAROL)
    assert (await told(claiming)).id == "child"
