# SPDX-License-Identifier: Apache-2.0
"""One server of each kind for the whole session; each test has a queue of its own on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent_runtime.queue import TaskQueue, open_queue
from tests.integration.conftest import queue_config
from tests.support.redis_server import RedisServer, binaries

OpenQueue = Callable[..., TaskQueue]
"""Opens the test's queue; keyword arguments change its configuration. Several calls open several clients of it."""


@pytest.fixture(scope="session", params=binaries().items(), ids=lambda item: item[0])
def redis_binary(request: pytest.FixtureRequest) -> Path:
    """Each server of this machine."""
    binary: Path = request.param[1]
    return binary


@pytest.fixture(scope="session")
def redis_server(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server, shared by all tests that leave it as it was.

    Defined anew as `redis_binary` is: pytest keeps a fixture of the folder above that was made of another binary.
    """
    with RedisServer(redis_binary, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def open_test_queue(redis_server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[OpenQueue]:
    """How a test opens its queue, named after it. All are closed at its end."""
    opened: list[TaskQueue] = []

    def open_it(*, url: str = redis_server.url, **changes: object) -> TaskQueue:
        opened.append(open_queue(queue_config(request.node.originalname, **changes), url=url))
        return opened[-1]

    with redis_server.client() as client:
        client.flushall()
    yield open_it
    for queue in opened:
        await queue.aclose()


@pytest.fixture
def queue(open_test_queue: OpenQueue) -> TaskQueue:
    """The test's queue with the defaults."""
    return open_test_queue()
