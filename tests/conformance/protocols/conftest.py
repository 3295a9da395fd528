# SPDX-License-Identifier: Apache-2.0
"""The stage of the matrix: processes that all tests of a worker share, and fresh ones for those that end them."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime.adapters.registry import ADAPTERS
from kubeagents_api.access import AccessSettings, Principal, Role
from kubeagents_api.model import LocalRef
from kubeagents_api.runtime_config import AgentConfig
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually, eventually_async
from tests.support.redis_server import RedisServer, binaries
from tests.support.runtime_process import RuntimeProcess

HANDLERS = Path(__file__).parent / "handlers"
START_SECONDS = 120.0
DEVELOPER, VIEWER = "the-key-of-a-developer", "the-key-of-a-viewer"
_KEYS: dict[Role, str] = {"admin": "the-key-of-the-admin", "developer": DEVELOPER, "viewer": VIEWER}


class Stage:
    """A CentralAgent's two replicas, one of another CentralAgent that asks for keys, and two Agents."""

    def __init__(self, stack: contextlib.ExitStack, *, folder: Path, redis: RedisServer) -> None:
        self._system = System(stack, folder=folder, redis=redis)
        self._started = 0
        self.watched: list[RuntimeProcess] = []
        """Those whose logs must have no traceback."""
        keys = folder / "keys"
        for role, key in _KEYS.items():
            (keys / role).mkdir(parents=True)
            (keys / role / "key").write_text(key)
        access = AccessSettings(
            principals=[Principal(name=role, role=role, keys_from=LocalRef(name=role)) for role in _KEYS]
        )
        self.hub = self._central()
        self.guarded = self._central(access=access, keys_path=str(keys))
        self.agents = [self._agent("worker"), self._agent("clerk", concurrency=1)]
        self._spare = self._central()
        for process in (self.hub, self.guarded, *self.agents):
            _wait(process)

    def fresh(self) -> RuntimeProcess:
        """A replica that the test may end. The next one starts meanwhile."""
        taken, self._spare = self._spare, self._central()
        return _wait(taken)

    async def task(self, task: str) -> dict[str, Any]:
        """A task as the HTTP API shows it, whatever the protocol under test. Raises AssertionError without one."""
        async with httpx.AsyncClient(base_url=self.hub.base_url, timeout=30, trust_env=False) as client:
            answer = await client.get(f"/v1/queues/main/tasks/{task}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _central(self, **changes: Any) -> RuntimeProcess:
        self._started += 1
        endpoints = dict.fromkeys(ADAPTERS, 0)
        process = self._system.central(instance=f"hub-{self._started}", endpoints=endpoints, **changes)
        self.watched.append(process)
        return process

    def _agent(self, name: str, **changes: Any) -> RuntimeProcess:
        changes = {"code_path": str(HANDLERS), "capabilities": [f"{name}-errands"], "concurrency": 8, **changes}
        process = self._system.agent("errands:act", name=name, **changes)
        assert isinstance(process.config, AgentConfig)
        self.watched.append(process)
        return process


def _wait(process: RuntimeProcess) -> RuntimeProcess:
    """Until it is ready. All protocols are imported by several processes at once."""

    def ready() -> bool:
        if (code := process.running.poll()) is not None:
            raise RuntimeError(f"{process.instance} has ended with {code}: {process.lines}")
        return process.get("/readyz").status_code == 200

    eventually(ready, what=f"{process.instance} is ready", timeout=START_SECONDS)
    return process


class Place:
    """The folder where a test and its tasks meet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def errand(self, what: str) -> dict[str, str]:
        """A payload: `wait` or `speak`."""
        return {"do": what, "folder": str(self.folder)}

    def open(self) -> None:
        """Let the tasks go on."""
        (self.folder / "open").touch()

    async def started(self, count: int = 1) -> str:
        """Wait until so many tasks run; the id of one of them."""

        async def enough() -> str:
            found = await asyncio.to_thread(lambda: [path.name for path in self.folder.glob("started-*")])
            assert len(found) >= count, f"{found} have started"
            return found[0].removeprefix("started-")

        return await eventually_async(enough, what=f"{count} tasks run")

    async def stopped(self) -> str:
        """Why a task was stopped, once it is."""

        async def reason() -> str:
            found = await asyncio.to_thread(lambda: [path.read_text() for path in self.folder.glob("stopped-*")])
            assert found, "none has stopped"
            return found[0]

        return await eventually_async(reason, what="the handler is told to stop")


@pytest.fixture(scope="session")
def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Started once."""
    with contextlib.ExitStack() as stack:
        server = RedisServer(next(iter(binaries().values())), tmp_path_factory.mktemp("redis"))
        redis = stack.enter_context(server)
        yield Stage(stack, folder=tmp_path_factory.mktemp("stage"), redis=redis)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The stage. Nothing that a test does may leave a traceback in a log."""
    before = {process.instance: len(process.lines) for process in whole_stage.watched}
    yield whole_stage
    for process in whole_stage.watched:
        new = process.lines[before.get(process.instance, 0) :]
        assert [line for line in new if "traceback" in line or line["level"] in ("error", "unstructured")] == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where the test meets its tasks."""
    return Place(tmp_path)
