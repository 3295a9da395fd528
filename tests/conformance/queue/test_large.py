# SPDX-License-Identifier: Apache-2.0
"""Payloads and results that are large: they are the same as small ones to everybody."""

import orjson
import pytest

from agent_runtime.queue import Failed, Succeeded, TaskQueue
from agent_runtime.queue.base import Partial
from kubeagents_api.errors import PayloadTooLargeError
from kubeagents_api.task import DeadFilter, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    claim_one,
    decoded,
    failed,
    states,
    submit,
    succeed,
    succeeded,
)
from tests.conformance.queue.conftest import OpenQueue, PassTime

LARGE = {"text": 'ü "quoted" \\ ,"payload": ' * 400, "nothing": None}
"""Some chunks, cut in the middle of characters too."""


@pytest.fixture
def queue(open_test_queue: OpenQueue) -> TaskQueue:
    """A queue for which more than a kilobyte is large."""
    return open_test_queue(inline_bytes=1024, result_ttl_seconds=1)


async def test_large_payloads_and_results_arrive_as_they_were(queue: TaskQueue) -> None:
    ids = await submit(queue, LARGE, "small", [LARGE])
    assert [record.payload for record in await queue.wait(ids, timeout_seconds=0)] == [LARGE, "small", [LARGE]]
    claims = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
    assert [decoded(claim) for claim in claims] == [LARGE, "small", [LARGE]]
    results = [[LARGE, 1], "small", {"large": LARGE}]
    outcomes = [Succeeded(claim, orjson.dumps(result)) for claim, result in zip(claims, results, strict=True)]
    assert await queue.settle(outcomes) == [True, True, True]
    records = await queue.wait(ids, timeout_seconds=0)
    assert [record.result for record in records] == results
    assert [record.payload for record in records] == [LARGE, "small", [LARGE]]


async def test_a_large_payload_survives_retries_death_and_replay(queue: TaskQueue, pass_time: PassTime) -> None:
    (task_id,) = await submit(queue, LARGE, max_attempts=2)
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    claim = await claim_one(queue, BOB)
    assert decoded(claim) == LARGE
    await queue.settle([Failed(claim, code="FAILED", message="no")])
    await pass_time(1.2)  # longer than results are kept
    (dead,) = await queue.list_dead(limit=1)
    assert (dead.id, dead.payload) == (task_id, LARGE)
    await queue.replay(DeadFilter(), by="test")
    assert decoded(await claim_one(queue)) == LARGE


async def test_a_child_reads_the_large_results_of_its_parents_however_old(
    queue: TaskQueue, pass_time: PassTime
) -> None:
    await submit(queue, "parent", id="parent")
    await submit(queue, "slow", id="slow", agent="count")
    await submit(queue, "child", depends_on=["parent", "slow"])
    await succeed(queue, result=LARGE)
    await pass_time(1.2)
    await succeed(queue, CAROL, result="small")
    claim = await claim_one(queue)
    outcomes = await queue.parents(claim)
    assert (outcomes["parent"].result, outcomes["slow"].result) == (LARGE, "small")
    await pass_time(1.2)
    assert (await queue.parents(claim))["parent"].result == LARGE


async def test_a_large_payload_of_a_task_that_waits_long_is_kept(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, "parent", id="parent", agent="count")
    await submit(queue, LARGE, depends_on=["parent"], on_parent_failure="Run")
    await submit(queue, LARGE, delay_seconds=1.2)
    await pass_time(1.2)
    await queue.cancel(["parent"], by="test")
    claims = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    assert [decoded(claim) for claim in claims] == [LARGE, LARGE]


async def test_tasks_of_different_ends_with_large_payloads_can_be_read(queue: TaskQueue) -> None:
    cancelled, bad = await submit(queue, LARGE, LARGE)
    await queue.cancel([cancelled], by="test")
    await queue.settle(failed(await claim_one(queue), permanent=True))
    assert await states(queue, [cancelled, bad]) == [TaskState.CANCELLED, TaskState.FAILED]
    assert [(await queue.get(task_id)).payload for task_id in (cancelled, bad)] == [LARGE, LARGE]


async def test_merged_and_refused_large_payloads_disturb_nobody(queue: TaskQueue) -> None:
    (first,) = await submit(queue, LARGE, idempotency_key="key")
    assert await submit(queue, [LARGE, 2], idempotency_key="key") == [first]
    assert decoded(await claim_one(queue)) == LARGE


async def test_the_limit_counts_the_bytes_of_json(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(max_payload_bytes=4096, inline_bytes=1024)
    (exact,) = await submit(queue, "x" * 4094)
    with pytest.raises(PayloadTooLargeError):
        await submit(queue, "x" * 4095)
    with pytest.raises(PayloadTooLargeError):
        await submit(queue, "ü" * 2048)
    claim = await claim_one(queue)
    assert claim.id == exact
    assert await queue.emit(claim, [Partial(orjson.dumps("y" * 4094))]) is True
    await queue.settle(succeeded([claim]))
    assert [item.data async for item in queue.stream(exact)] == ["y" * 4094]
