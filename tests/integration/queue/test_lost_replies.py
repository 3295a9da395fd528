# SPDX-License-Identifier: Apache-2.0
"""The server has done what it was asked for, but the connection breaks before its answer arrives."""

from collections.abc import AsyncIterator

import pytest

from agent_runtime.queue import Claim, TaskQueue
from kubeagents_api.errors import DuplicateTaskError
from kubeagents_api.task import TaskState
from tests.integration.queue.actors import ALICE, BOB, NOW, claim_one, failed, payloads, submit, succeeded
from tests.integration.queue.conftest import OpenQueue
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(target_port=redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def shaky(proxy: TcpProxy, open_test_queue: OpenQueue) -> AsyncIterator[TaskQueue]:
    """The test's queue by way of the proxy, with its scripts loaded."""
    queue = open_test_queue(url=f"redis://127.0.0.1:{proxy.port}/0")
    await queue.settle(succeeded([await submit_and_claim(queue)]))
    yield queue
    await queue.aclose()


async def submit_and_claim(queue: TaskQueue) -> Claim:
    await submit(queue, "warm-up")
    return await claim_one(queue)


async def test_a_submission_is_applied_once(shaky: TaskQueue, proxy: TcpProxy) -> None:
    proxy.cut_reply_to(b"the-payload")
    ids = await submit(shaky, "the-payload", "another")
    assert proxy.cuts == 1
    assert payloads(await shaky.claim(ALICE, limit=10, wait_seconds=NOW)) == ["the-payload", "another"]
    assert [(await shaky.get(task_id)).payload for task_id in ids] == ["the-payload", "another"]


async def test_a_submission_with_ids_of_its_own_is_no_duplicate_of_itself(shaky: TaskQueue, proxy: TcpProxy) -> None:
    proxy.cut_reply_to(b"the-payload")
    assert await submit(shaky, "the-payload", id="mine") == ["mine"]
    assert proxy.cuts == 1
    with pytest.raises(DuplicateTaskError):
        await submit(shaky, "the-payload", id="mine")
    assert (await shaky.stats()).queued == 1


async def test_an_outcome_is_accepted_once_and_said_to_be(shaky: TaskQueue, proxy: TcpProxy) -> None:
    (task_id,) = await submit(shaky, "work")
    claim = await claim_one(shaky)
    proxy.cut_reply_to(b"the-result")
    assert await shaky.settle(succeeded([claim], "the-result")) == [True]
    assert proxy.cuts == 1
    record = await shaky.get(task_id)
    assert (record.state, record.result) == (TaskState.SUCCEEDED, "the-result")
    assert (await shaky.stats()).succeeded_total == 2  # and the warm-up


@pytest.mark.parametrize("delay_seconds", [0.0, 1000.0], ids=["queued at once", "scheduled"])
async def test_a_failure_is_counted_once(shaky: TaskQueue, proxy: TcpProxy, delay_seconds: float) -> None:
    (task_id,) = await submit(shaky, "work")
    claim = await claim_one(shaky)
    proxy.cut_reply_to(b"the-message")
    assert await shaky.settle(failed(claim, message="the-message", delay_seconds=delay_seconds)) == [True]
    assert proxy.cuts == 1
    record = await shaky.get(task_id)
    assert (record.attempts, len(record.failures)) == (1, 1)


@pytest.mark.parametrize("permanent", [True, False], ids=["failed", "dead"])
async def test_a_last_failure_is_counted_once(shaky: TaskQueue, proxy: TcpProxy, permanent: bool) -> None:
    (task_id,) = await submit(shaky, "work", max_attempts=1)
    claim = await claim_one(shaky)
    proxy.cut_reply_to(b"the-message")
    assert await shaky.settle(failed(claim, message="the-message", permanent=permanent)) == [True]
    assert proxy.cuts == 1
    record = await shaky.get(task_id)
    assert (record.state.final, len(record.failures)) == (True, 1)
    assert (await shaky.stats()).failed_total == 1


async def test_claimed_tasks_are_delivered_by_the_repeat_in_order_and_spend_one_attempt(
    shaky: TaskQueue, proxy: TcpProxy
) -> None:
    await submit(shaky, *range(5))
    await submit(shaky, "first", priority=9)
    proxy.cut_reply_to(b"echo-alice")
    claims = await shaky.claim(ALICE, limit=4, wait_seconds=NOW)
    assert proxy.cuts == 1
    assert payloads(claims) == ["first", 0, 1, 2]
    assert [claim.attempt for claim in claims] == [1] * 4
    assert (await shaky.stats()).running == 4
    assert await shaky.settle(succeeded(claims)) == [True] * 4
    assert payloads(await shaky.claim(BOB, limit=4, wait_seconds=NOW)) == [3, 4]


async def test_released_tasks_are_released_once(shaky: TaskQueue, proxy: TcpProxy) -> None:
    await submit(shaky, "work")
    claim = await claim_one(shaky)
    proxy.cut_reply_to(claim.token.encode())
    await shaky.release([claim])
    assert proxy.cuts == 1
    assert (await shaky.stats()).queued == 1
    assert (await claim_one(shaky)).attempt == 1


async def test_leases_are_renewed_in_spite_of_it(shaky: TaskQueue, proxy: TcpProxy) -> None:
    await submit(shaky, "work")
    claim = await claim_one(shaky)
    proxy.cut_reply_to(claim.token.encode())
    assert await shaky.extend([claim]) == []
    assert proxy.cuts == 1
