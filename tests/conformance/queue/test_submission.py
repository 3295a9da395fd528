# SPDX-License-Identifier: Apache-2.0
"""Tasks come in all together or not at all, each once."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.queue import Claim, TaskQueue
from kubeagents_api.errors import DuplicateTaskError, InvalidTaskError, PayloadTooLargeError
from kubeagents_api.limits import QueueLimits
from kubeagents_api.task import TaskEventKind, TaskRequest, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    NOW,
    claim_all,
    claim_one,
    die,
    happened,
    ids_of,
    payloads,
    states,
    story,
    submit,
    succeed,
    tasks,
)
from tests.conformance.queue.conftest import OpenQueue, PassTime


async def test_ids_come_in_the_order_of_the_tasks_and_are_made_up_where_none_is_given(queue: TaskQueue) -> None:
    first, second, third = await queue.submit([*tasks("a"), *tasks("b", id="mine"), *tasks("c")])
    assert second == "mine"
    assert len({first, second, third}) == 3
    assert [(await queue.get(task_id)).payload for task_id in (first, second, third)] == ["a", "b", "c"]


async def test_submitting_nothing_queues_nothing(queue: TaskQueue) -> None:
    assert await queue.submit([]) == []
    assert (await queue.stats()).submitted_total == 0


async def test_a_record_tells_all_that_was_submitted(queue: TaskQueue) -> None:
    payload: dict[str, Any] = {"text": 'a "quoted" ,"payload": ✓', "n": [1, 2.5, None, True], "deep": [[[{}]]]}
    (task_id,) = await queue.submit(
        tasks(
            payload,
            id="mine",
            capability="ocr",
            type="scan",
            priority=7,
            timeout_seconds=12.5,
            max_attempts=4,
            tenant="acme",
            idempotency_key="scan/7",
        )
    )
    record = await queue.get(task_id)
    assert (record.state, record.payload, record.type, record.priority) == (TaskState.QUEUED, payload, "scan", 7)
    assert (record.agent, record.capability, record.instance, record.tenant) == (None, "ocr", None, "acme")
    assert (record.timeout_seconds, record.max_attempts, record.idempotency_key) == (12.5, 4, "scan/7")
    assert (record.attempts, record.replays, record.failures, record.worker) == (0, 0, [], None)
    assert (record.deadline, record.depends_on, record.waits_for) == (None, [], 0)


GOOD = TaskRequest(id="good")
BAD_BATCHES: dict[str, tuple[Callable[[], list[TaskRequest]], type[InvalidTaskError], str]] = {
    "an id that is taken": (lambda: [GOOD, TaskRequest(id="taken")], DuplicateTaskError, "id"),
    "an id twice": (lambda: [GOOD, TaskRequest(id="twin"), TaskRequest(id="twin")], DuplicateTaskError, "id"),
    "a payload that is too large": (lambda: [GOOD, TaskRequest(payload="x" * 1024)], PayloadTooLargeError, "payload"),
    "a payload that is not JSON": (lambda: [GOOD, TaskRequest(payload=[float("nan")])], InvalidTaskError, "payload"),
    "another queue": (lambda: [GOOD, TaskRequest(queue="other")], InvalidTaskError, "queue"),
    "an unknown parent": (lambda: [GOOD, TaskRequest(depends_on=["nobody"])], InvalidTaskError, "dependsOn"),
    "a cycle of two": (
        lambda: [GOOD, TaskRequest(id="a", depends_on=["b"]), TaskRequest(id="b", depends_on=["a"])],
        InvalidTaskError,
        "dependsOn",
    ),
    "a cycle behind a merge": (
        lambda: [
            GOOD,
            TaskRequest(id="a", idempotency_key="same", depends_on=["c"]),
            TaskRequest(id="b", idempotency_key="same"),
            TaskRequest(id="c", depends_on=["b"]),
        ],
        InvalidTaskError,
        "dependsOn",
    ),
    "too many": (lambda: [TaskRequest()] * 10_001, InvalidTaskError, "tasks"),
}


@pytest.mark.parametrize("fault", BAD_BATCHES)
async def test_one_bad_task_keeps_the_whole_batch_out(open_test_queue: OpenQueue, fault: str) -> None:
    queue = open_test_queue(max_payload_bytes=1024)
    await submit(queue, "here first", id="taken")
    before = await happened(queue)
    batch, error_class, field = BAD_BATCHES[fault]
    with pytest.raises(error_class) as refusal:
        await queue.submit(batch())
    assert refusal.value.field == field
    assert await happened(queue) == before
    stats = await queue.stats()
    assert (stats.queued, stats.blocked, stats.submitted_total) == (1, 0, 1)
    assert await queue.submit([GOOD]) == ["good"]


async def test_an_id_stays_taken_when_its_task_has_ended(queue: TaskQueue) -> None:
    await submit(queue, 1, id="mine")
    await succeed(queue)
    with pytest.raises(DuplicateTaskError, match="'mine'"):
        await submit(queue, 2, id="mine")


async def test_an_id_is_free_again_when_its_task_is_not_known_any_more(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    await submit(queue, 1, id="mine")
    await succeed(queue)
    await pass_time(1)
    assert await submit(queue, 2, id="mine") == ["mine"]
    assert (await queue.get("mine")).payload == 2


async def test_a_task_with_a_known_key_is_merged_with_the_first_one(queue: TaskQueue) -> None:
    (first,) = await submit(queue, "first", idempotency_key="order-7")
    ids = await queue.submit([*tasks("other"), *tasks("again", idempotency_key="order-7", priority=9)])
    assert ids[1] == first
    assert await story(queue, first) == [TaskEventKind.SUBMITTED, TaskEventKind.MERGED]
    assert (await queue.get(first)).payload == "first"
    assert payloads(await claim_all(queue)) == ["first", "other"]
    stats = await queue.stats()
    assert (stats.submitted_total, stats.queued) == (2, 0)


async def test_other_keys_and_no_keys_are_not_merged(queue: TaskQueue) -> None:
    ids = await queue.submit([*tasks(1, idempotency_key="a"), *tasks(2, idempotency_key="b"), *tasks(3), *tasks(4)])
    assert len(set(ids)) == 4


@pytest.mark.parametrize("ending", ["succeeded", "dead", "cancelled"])
async def test_tasks_are_merged_with_one_that_has_ended(queue: TaskQueue, ending: str) -> None:
    if ending == "dead":
        (first,) = await die(queue, "first", idempotency_key="key")
    else:
        (first,) = await submit(queue, "first", idempotency_key="key")
        if ending == "succeeded":
            await succeed(queue)
        else:
            await queue.cancel([first], by="test")
    assert await submit(queue, "again", idempotency_key="key") == [first]
    assert await states(queue, [first]) == [TaskState(ending)]


async def test_a_key_counts_from_its_first_task_on_and_not_from_the_merged_ones(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(deduplication_seconds=1.2)
    (first,) = await submit(queue, 1, idempotency_key="key")
    await pass_time(0.65)
    assert await submit(queue, 2, idempotency_key="key") == [first]
    await pass_time(0.65)
    (second,) = await submit(queue, 3, idempotency_key="key")
    assert second != first
    assert await submit(queue, 4, idempotency_key="key") == [second]


async def test_a_key_is_free_when_its_task_is_not_known_any_more(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    (first,) = await submit(queue, 1, idempotency_key="key")
    await succeed(queue)
    await pass_time(1)
    assert await submit(queue, 2, idempotency_key="key") != [first]


async def test_tasks_of_one_batch_are_merged_with_each_other(queue: TaskQueue) -> None:
    ids = await queue.submit(
        [*tasks("first", idempotency_key="k"), *tasks("other"), *tasks("last", idempotency_key="k", id="own")]
    )
    assert ids[0] == ids[2] != ids[1]
    assert payloads(await claim_all(queue)) == ["first", "other"]
    assert (await queue.stats()).submitted_total == 2


async def test_merging_wins_over_an_id_that_is_taken(queue: TaskQueue) -> None:
    (first,) = await submit(queue, 1, idempotency_key="key")
    await submit(queue, 2, id="taken")
    assert await submit(queue, 3, id="taken", idempotency_key="key") == [first]
    assert (await queue.get("taken")).payload == 2


async def test_the_same_submission_with_id_and_key_can_be_repeated(queue: TaskQueue) -> None:
    request = tasks("work", id="mine", idempotency_key="mine")
    for _ in range(2):
        assert await queue.submit(request) == ["mine"]
    child = tasks("child", id="child", idempotency_key="child", depends_on=["mine"])
    for _ in range(2):
        assert await queue.submit([*request, *child]) == ["mine", "child"]
    assert (await queue.stats()).submitted_total == 2


async def test_a_refused_batch_does_not_take_a_key(queue: TaskQueue) -> None:
    with pytest.raises(InvalidTaskError):
        await queue.submit([*tasks(1, id="refused", idempotency_key="key"), *tasks(2, depends_on=["nobody"])])
    (task_id,) = await submit(queue, 3, idempotency_key="key")
    assert (await queue.get(task_id)).payload == 3


async def test_depending_on_a_merged_task_of_the_batch_means_the_earlier_one(queue: TaskQueue) -> None:
    (first,) = await submit(queue, "first", idempotency_key="key")
    ids = await queue.submit(
        [*tasks("again", id="again", idempotency_key="key"), *tasks("child", depends_on=["again"])]
    )
    child = await queue.get(ids[1])
    assert (child.state, child.depends_on) == (TaskState.BLOCKED, [first])
    assert await succeed(queue, result="ok") == first
    claim = await claim_one(queue)
    assert (claim.id, claim.depends_on) == (ids[1], (first,))
    assert (await queue.parents(claim))[first].result == "ok"


async def test_what_is_merged_needs_no_room(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=1))
    (first,) = await submit(queue, 1, idempotency_key="key")
    claim = await claim_one(queue)
    await submit(queue, "fills it")
    await queue.release([claim])
    assert (await queue.stats()).queued == 2  # more than fit, as giving back needs no room
    assert await submit(queue, 2, idempotency_key="key") == [first]


async def test_large_batches_keep_their_order(queue: TaskQueue) -> None:
    count = 2500
    ids = await submit(queue, *range(count))
    claims: list[Claim] = []
    while found := await queue.claim(ALICE, limit=1000, wait_seconds=NOW):
        claims += found
    assert ids_of(claims) == ids
