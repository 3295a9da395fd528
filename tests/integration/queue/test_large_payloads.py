# SPDX-License-Identifier: Apache-2.0
"""Payloads and results that are kept in chunks beside their tasks."""

import orjson
import pytest

from agent_runtime.queue import Failed, Succeeded, TaskQueue
from kubeagents_api.task import DeadFilter, TaskRequest, TaskState
from tests.integration.queue.actors import ALICE, NOW, claim_one, submit
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer

INLINE = 1024
LARGE = ["x" * 1000] * 10


def chunks(server: RedisServer) -> list[bytes]:
    """The keys of all chunks."""
    with server.client() as client:
        return list(client.scan_iter("*:chunk:*", count=1000))


@pytest.fixture
def queue_with_small_inline(open_test_queue: OpenQueue) -> TaskQueue:
    """The test's queue, which keeps little within its tasks."""
    return open_test_queue(inline_bytes=INLINE)


async def test_a_large_payload_and_a_large_result_come_back_whole(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_test_queue(inline_bytes=INLINE)
    (task_id,) = await submit(queue, LARGE)
    assert len(chunks(redis_server)) == 10
    assert (await queue.get(task_id)).payload == LARGE
    claim = await claim_one(queue)
    assert orjson.loads(claim.payload) == LARGE
    assert await queue.settle([Succeeded(claim, orjson.dumps(LARGE))]) == [True]
    assert len(chunks(redis_server)) == 20
    (record,) = await queue.wait([task_id], timeout_seconds=NOW)
    assert (record.payload, record.result) == (LARGE, LARGE)


async def test_a_record_stays_small_whatever_the_payload(open_test_queue: OpenQueue, redis_server: RedisServer) -> None:
    queue = open_test_queue(inline_bytes=INLINE)
    (task_id,) = await submit(queue, LARGE)
    with redis_server.client() as client:
        (key,) = list(client.scan_iter(f"*:t:{task_id}"))
        length = client.strlen(key)
    assert isinstance(length, int)
    assert length < INLINE


async def test_chunks_are_kept_while_the_task_is_and_go_with_its_result(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_test_queue(inline_bytes=INLINE, result_ttl_seconds=1)
    await submit(queue, LARGE)
    with redis_server.client() as client:
        assert {client.ttl(key) for key in chunks(redis_server)} == {-1}
    await queue.settle([Succeeded(await claim_one(queue), b"null")])

    async def gone() -> bool:
        return not chunks(redis_server)

    await eventually_async(gone, what="the chunks have expired with the result")


async def test_what_a_refused_submission_has_written_expires(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_test_queue(inline_bytes=INLINE)
    await submit(queue, LARGE, id="same", idempotency_key="k")
    kept = set(chunks(redis_server))
    assert await submit(queue, LARGE, idempotency_key="k") == ["same"]
    with redis_server.client() as client:
        assert all(0 < int(client.ttl(key)) <= 3600 for key in set(chunks(redis_server)) - kept)
        assert {client.ttl(key) for key in kept} == {-1}


async def test_a_large_payload_survives_a_retry_death_and_replay(queue_with_small_inline: TaskQueue) -> None:
    queue = queue_with_small_inline
    (task_id,) = await queue.submit([TaskRequest(payload=LARGE, max_attempts=1)])
    await queue.settle([Failed(await claim_one(queue), "FAILED", "ValueError: no")])
    (dead,) = await queue.list_dead(limit=10)
    assert (dead.state, dead.payload) == (TaskState.DEAD, LARGE)
    assert await queue.replay(DeadFilter(ids=[task_id]), by="test") == [task_id]
    assert orjson.loads((await claim_one(queue)).payload) == LARGE


async def test_purging_a_task_removes_its_chunks(queue_with_small_inline: TaskQueue, redis_server: RedisServer) -> None:
    queue = queue_with_small_inline
    await queue.submit([TaskRequest(payload=LARGE, max_attempts=1)])
    await queue.settle([Failed(await claim_one(queue), "FAILED", "ValueError: no")])
    assert chunks(redis_server)
    await queue.purge(DeadFilter(), by="test")
    assert chunks(redis_server) == []


async def test_a_child_reads_the_large_result_of_its_parent(queue_with_small_inline: TaskQueue) -> None:
    queue = queue_with_small_inline
    await queue.submit([TaskRequest(id="parent"), TaskRequest(id="child", depends_on=["parent"])])
    (parent,) = await queue.claim(ALICE, limit=10, wait_seconds=NOW)
    await queue.settle([Succeeded(parent, orjson.dumps(LARGE))])
    child = await claim_one(queue)
    assert (await queue.parents(child))["parent"].result == LARGE


async def test_a_large_result_outlives_its_time_while_a_child_may_read_it(
    open_test_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_test_queue(inline_bytes=INLINE, result_ttl_seconds=1)
    await queue.submit([TaskRequest(id="parent"), TaskRequest(id="child", depends_on=["parent"])])
    (parent,) = await queue.claim(ALICE, limit=10, wait_seconds=NOW)
    await queue.settle([Succeeded(parent, orjson.dumps(LARGE))])
    with redis_server.client() as client:
        assert {client.ttl(key) for key in chunks(redis_server)} == {-1}
        child = await claim_one(queue)
        await queue.settle([Succeeded(child, b"null")])
        assert all(0 <= int(client.ttl(key)) <= 1 for key in chunks(redis_server))
        assert not client.exists("ka:{tests/" + queue.name + "}:heirs")
