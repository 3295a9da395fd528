# SPDX-License-Identifier: Apache-2.0
"""One Redis for the whole session. The tests of the queue have one of each kind of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task_queue import RetryPolicy
from tests.support.redis_server import RedisServer, binaries


@pytest.fixture(scope="session")
def redis_binary() -> Path:
    """One server is enough here: which ones work is what the tests of the queue show."""
    return next(iter(binaries().values()))


@pytest.fixture(scope="session")
def redis_server(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server, shared by all tests that leave it as it was."""
    with RedisServer(redis_binary, tmp_path_factory.mktemp("redis")) as server:
        yield server


def queue_config(name: str, **changes: object) -> QueueConfig:
    """The configuration of a test's queue."""
    return QueueConfig(
        name=name,
        namespace="tests",
        url_env="KUBEAGENTS_QUEUE_0_URL",
        retry=RetryPolicy(),
        task_timeout_seconds=300,
        lease_seconds=30,
        result_ttl_seconds=600,
        max_payload_bytes=1_048_576,
    ).model_copy(update=changes)
