# SPDX-License-Identifier: Apache-2.0
"""Every test of this folder runs against each implementation of `TaskQueue`: in memory, Redis and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest

from agent_runtime.queue import TaskQueue, open_queue
from agent_runtime.testing import ManualClock, MemoryTaskQueue
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task_queue import RetryPolicy
from tests.support.redis_server import RedisServer, binaries

OpenQueue = Callable[..., TaskQueue]
"""Opens the test's queue; keyword arguments change its configuration. Several calls open several clients of it."""
PassTime = Callable[[float], Awaitable[None]]
"""Lets at least so many seconds pass."""
Now = Callable[[], datetime]
"""The time by the queue's clock."""

MARGIN_SECONDS = 0.02
"""Servers count whole milliseconds, and their clock is not ours."""


def queue_config(name: str, **changes: object) -> QueueConfig:
    """The configuration of a test's queue. Waits have no random part, so that due times can be told."""
    config = QueueConfig(
        name=name,
        namespace="conformance",
        url_env="KUBEAGENTS_QUEUE_0_URL",
        retry=RetryPolicy(jitter=0),
        result_ttl_seconds=600,
    )
    return config.model_copy(update=changes)


@pytest.fixture(scope="session", params=["memory", *binaries()])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer | None]:
    """The server that holds the queues; none for those in memory."""
    if request.param == "memory":
        yield None
        return
    with RedisServer(binaries()[request.param], tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """The clock of queues in memory."""
    return ManualClock()


@pytest.fixture
def pass_time(server: RedisServer | None, clock: ManualClock) -> PassTime:
    """How a test lets time pass: really, where the clock is the server's."""

    async def pass_it(seconds: float) -> None:
        if server is None:
            await asyncio.sleep(0)  # who was started just now falls asleep first
            clock.advance(seconds)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(seconds + MARGIN_SECONDS)

    return pass_it


@pytest.fixture
def now(server: RedisServer | None, clock: ManualClock) -> Now:
    """What time it is."""
    return clock.now if server is None else lambda: datetime.now(UTC)


@pytest.fixture
async def open_test_queue(
    server: RedisServer | None, clock: ManualClock, request: pytest.FixtureRequest
) -> AsyncIterator[OpenQueue]:
    """How a test opens its queue, named after it. All are closed at its end."""
    opened: list[TaskQueue] = []
    in_memory: dict[str, MemoryTaskQueue] = {}

    def open_it(*, name: str = request.node.originalname, **changes: object) -> TaskQueue:
        config = queue_config(name, **changes)
        if server is None:
            if name not in in_memory:
                in_memory[name] = MemoryTaskQueue(config, clock=clock)
            opened.append(in_memory[name])
        else:
            opened.append(open_queue(config, url=server.url))
        return opened[-1]

    if server is not None:
        with server.client() as client:
            client.flushall()
    yield open_it
    for queue in opened:
        await queue.aclose()


@pytest.fixture
def queue(open_test_queue: OpenQueue) -> TaskQueue:
    """The test's queue with the defaults."""
    return open_test_queue()
