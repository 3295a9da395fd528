# SPDX-License-Identifier: Apache-2.0
"""What is taken into the queue, and what is refused."""

import pytest
from pydantic import JsonValue

from agent_runtime.queue import TaskQueue
from kubeagents_api.errors import DuplicateTaskError, InvalidTaskError, PayloadTooLargeError
from kubeagents_api.task import TaskRequest
from tests.integration.queue.actors import ALICE, NOW, claim_one, payloads, submit, succeeded, tasks
from tests.integration.queue.conftest import OpenQueue


async def test_ids_that_are_made_up_are_unique(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(1000))
    assert len(set(ids)) == 1000


async def test_an_id_can_be_used_once_as_long_as_its_result_is_kept(queue: TaskQueue) -> None:
    await submit(queue, "first", id="the-one")
    with pytest.raises(DuplicateTaskError, match="'the-one'") as waiting:
        await submit(queue, "second", id="the-one")
    assert waiting.value.field == "id"
    await queue.settle(succeeded([await claim_one(queue)]))
    with pytest.raises(DuplicateTaskError, match="the-one"):
        await submit(queue, "third", id="the-one")
    assert (await queue.get("the-one")).payload == "first"


async def test_a_batch_with_a_duplicate_is_refused_as_a_whole(queue: TaskQueue) -> None:
    await submit(queue, "old", id="taken")
    batch = [*tasks(*range(1500)), TaskRequest(id="taken", payload="new"), *tasks("last")]
    with pytest.raises(DuplicateTaskError, match=r"task 1500 of the batch \(id 'taken'\).*nothing was queued"):
        await queue.submit(batch)
    assert (await queue.stats()).queued == 1


async def test_a_batch_with_an_id_twice_is_refused_as_a_whole(queue: TaskQueue) -> None:
    with pytest.raises(DuplicateTaskError, match=r"task 1 of the batch .* twice"):
        await queue.submit([TaskRequest(id="same"), TaskRequest(id="same")])
    assert (await queue.stats()).queued == 0


async def test_a_batch_of_ten_thousand_is_queued_in_order(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(10_000))
    assert (await queue.stats()).queued == 10_000
    claimed = []
    while claims := await queue.claim(ALICE, limit=1000, wait_seconds=NOW):
        claimed += claims
    assert [claim.id for claim in claimed] == ids
    assert payloads(claimed) == list(range(10_000))


async def test_a_batch_that_is_too_long_is_refused(queue: TaskQueue) -> None:
    with pytest.raises(InvalidTaskError, match="at most 10000") as refused:
        await submit(queue, *range(10_001))
    assert refused.value.field == "tasks"


async def test_a_payload_at_the_limit_is_taken_and_one_over_it_is_refused(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(max_payload_bytes=1024)
    at_limit = "ü" * 511  # two bytes each, and two quotes
    await submit(queue, at_limit)
    with pytest.raises(PayloadTooLargeError, match=r"1025 bytes.*at most 1024") as refused:
        await queue.submit(tasks("small", at_limit + "x"))
    assert refused.value.field == "payload"
    assert (await queue.stats()).queued == 1
    assert payloads([await claim_one(queue)]) == [at_limit]


@pytest.mark.parametrize(
    "payload",
    [{"deep": [float("nan")]}, float("inf"), [1, {"a": float("-inf")}], 2**64, "\ud800"],
    ids=["nan", "infinite", "minus infinite", "more than 64 bits", "half a character"],
)
async def test_a_payload_that_json_cannot_hold_is_refused(queue: TaskQueue, payload: JsonValue) -> None:
    with pytest.raises(InvalidTaskError, match="its payload") as refused:
        await queue.submit([TaskRequest(payload=None), TaskRequest.model_construct(payload=payload)])
    assert refused.value.field == "payload"
    assert (await queue.stats()).queued == 0


async def test_a_task_for_another_queue_is_refused(queue: TaskQueue) -> None:
    with pytest.raises(InvalidTaskError, match="is for queue 'other'") as refused:
        await queue.submit(tasks("work", queue="other"))
    assert refused.value.field == "queue"


async def test_an_empty_batch_is_nothing(queue: TaskQueue) -> None:
    assert await queue.submit([]) == []


async def test_large_payloads_travel_unharmed(queue: TaskQueue) -> None:
    large = ["x" * 1_000_000, "y" * 1_000_000, "z" * 1_000_000]
    await submit(queue, *large)
    claims = await queue.claim(ALICE, limit=100, wait_seconds=NOW)
    assert payloads(claims) == large
    assert await queue.settle(succeeded(claims, "r" * 1_000_000)) == [True] * 3
    assert {len(str(record.result)) for record in await queue.wait([c.id for c in claims], timeout_seconds=1)} == {
        1_000_000
    }
