# SPDX-License-Identifier: Apache-2.0
"""A test's own system: agents and a CentralAgent as real processes, on a Redis of the session."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, LeaderConfig, QueueConfig
from tests.integration.conftest import queue_config
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

HANDLERS = Path(__file__).parent / "handlers"
"""Folder of the handlers that the agents run."""


class System:
    """Starts processes and ends what is left of them. All share queues by name."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        *,
        folder: Path,
        redis: RedisServer,
        shared_central: RuntimeProcess | None = None,
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._shared_central = shared_central
        self.redis = redis

    def queue(self, name: str = "main", *, index: int = 0, **changes: object) -> QueueConfig:
        """Configuration of a queue."""
        return queue_config(name, url_env=f"KUBEAGENTS_QUEUE_{index}_URL", **changes)

    def agent(
        self,
        handler: str = "handlers:echo",
        *,
        name: str = "worker",
        instance: str | None = None,
        queue: QueueConfig | None = None,
        url: str | None = None,
        environment: dict[str, str] | None = None,
        **changes: object,
    ) -> RuntimeProcess:
        """A process of an Agent, started and not waited for."""
        config = AgentConfig(
            name=name,
            namespace="tests",
            queue=queue or self.queue(),
            handler=handler,
            code_path=str(HANDLERS),
            concurrency=4,
            drain_seconds=20,
            heartbeat_seconds=1,
            host="127.0.0.1",
            port=0,
        ).model_copy(update=changes)
        return self._start(config, instance or f"{name}-1", [url or self.redis.url], environment)

    def central(
        self,
        *queues: QueueConfig,
        instance: str = "hub-1",
        urls: list[str] | None = None,
        environment: dict[str, str] | None = None,
        **changes: object,
    ) -> RuntimeProcess:
        """A process of a CentralAgent, started and not waited for. With the defaults, one that all tests share."""
        if self._shared_central is not None and (queues, instance, urls, environment, changes) == (
            (),
            "hub-1",
            None,
            None,
            {},
        ):
            return self._shared_central
        served = list(queues) or [self.queue()]
        config = CentralAgentConfig(
            name="hub",
            namespace="tests",
            queues=served,
            leader=LeaderConfig(type="alone", lease_name="hub-leader", lease_duration_seconds=15),
            agent_timeout_seconds=3,
            endpoints={"http": 0},
            host="127.0.0.1",
            port=0,
        ).model_copy(update=changes)
        return self._start(config, instance, urls or [self.redis.url] * len(served), environment)

    def _start(
        self,
        config: AgentConfig | CentralAgentConfig,
        instance: str,
        urls: list[str],
        environment: dict[str, str] | None,
    ) -> RuntimeProcess:
        process = RuntimeProcess(
            config=config, folder=self._folder, instance=instance, urls=urls, environment=environment or {}
        )
        return self._stack.enter_context(process)


@pytest.fixture(scope="session")
def shared_central(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    """A CentralAgent with the defaults. Tests leave it as it is."""
    with contextlib.ExitStack() as stack:
        yield System(stack, folder=tmp_path_factory.mktemp("central"), redis=redis_server).central().ready()


@pytest.fixture
def system(tmp_path: Path, redis_server: RedisServer, shared_central: RuntimeProcess) -> Iterator[System]:
    """The test's system, on an empty Redis that it shares with nobody at the time."""
    with redis_server.client() as client:
        client.flushall()
    with contextlib.ExitStack() as stack:
        yield System(stack, folder=tmp_path, redis=redis_server, shared_central=shared_central)


@pytest.fixture
def durable_redis(redis_binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own that keeps what it acknowledged, for tests that end it."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(redis_binary, folder, append_only=True) as server:
        yield server


def submit(central: RuntimeProcess, *payloads: Any, **fields: Any) -> list[str]:
    """Queue a task for each payload; their ids."""
    answer = central.post("/v1/tasks/batch", {"tasks": [{"payload": payload, **fields} for payload in payloads]})
    assert answer.status_code == 201, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


def final(central: RuntimeProcess, *ids: str, queue: str = "main", seconds: float = 30) -> list[dict[str, Any]]:
    """The tasks, once all are final."""
    answer = central.post(f"/v1/queues/{queue}/results", {"ids": list(ids), "timeoutSeconds": seconds})
    assert answer.status_code == 200, answer.text
    assert answer.json()["pending"] == []
    tasks: list[dict[str, Any]] = answer.json()["tasks"]
    return tasks
