# SPDX-License-Identifier: Apache-2.0
"""Tasks that are pushed to a worker: no more than it wants, and none is lost on the way."""

from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.grpc.pushing import Credit, Outbox, claimed
from agent_runtime.queue.base import Worker
from agent_runtime.queue.memory import MemoryTaskQueue
from kubeagents_api.task import TaskRequest
from tests.integration.conftest import queue_config

WORKER = Worker(agent="outside", instance="o-1")


def core(*, draining: bool = False) -> Core:
    return cast("Core", SimpleNamespace(draining=draining))


@pytest.fixture
async def queue() -> MemoryTaskQueue:
    made = MemoryTaskQueue(queue_config("main"))
    await made.submit([TaskRequest(payload=number) for number in range(5)])
    return made


async def held(queue: MemoryTaskQueue) -> tuple[int, int]:
    stats = await queue.stats()
    return stats.running, stats.queued


async def test_no_more_is_taken_than_there_is_credit_for(queue: MemoryTaskQueue) -> None:
    credit = Credit(1)
    credit.add(2)
    credit.close()

    taken = [claim async for claim in claimed(core(), queue, WORKER, credit)]

    assert [claim.payload for claim in taken] == [b"0", b"1", b"2"]
    assert await held(queue) == (3, 2)


async def test_what_was_taken_and_is_not_wanted_any_more_is_given_back(queue: MemoryTaskQueue) -> None:
    async with aclosing(claimed(core(), queue, WORKER, Credit(5))) as claims:
        await anext(claims)
        assert await held(queue) == (5, 0)

    assert await held(queue) == (1, 4)


async def test_a_task_that_could_not_be_written_is_given_back(queue: MemoryTaskQueue) -> None:
    outbox = Outbox(queue)

    async def push() -> None:
        async with aclosing(claimed(core(), queue, WORKER, Credit(5))) as claims:
            async for claim in claims:
                await outbox.put(claim)

    async with aclosing(outbox.items(push())) as items:
        await anext(items)  # written: the next one is asked for
        await anext(items)  # its writing fails

    assert await held(queue) == (1, 4)


async def test_a_source_that_fails_ends_the_others(queue: MemoryTaskQueue) -> None:
    outbox = Outbox(queue)

    async def push() -> None:
        async with aclosing(claimed(core(), queue, WORKER, Credit(6))) as claims:
            async for claim in claims:
                await outbox.put(claim)

    async def fail() -> None:
        raise DrainingError("over")

    with pytest.raises(DrainingError):
        await read(outbox.items(push(), fail()))
    assert sum(await held(queue)) == 5


async def read(items: Any) -> None:
    async with aclosing(items):
        async for _ in items:
            pass
