# SPDX-License-Identifier: Apache-2.0
"""A control plane that was just started, a Redis, tenants with a queue each, and a contender."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.operator import workload
from benchmarks.operator.api import Api, connected, each
from benchmarks.operator.audit import Audit
from benchmarks.operator.process import Contender
from tests.cluster.control_plane import ControlPlane
from tests.support.control_plane import running_control_plane
from tests.support.redis_server import RedisServer, binaries, free_port

CLIENT = "bench-client"
CONTENDER = "bench-contender"
NODES = 5


@dataclass
class Stage:
    """Everything that a scene needs."""

    plane: ControlPlane
    redis: RedisServer
    api: Api
    audit: Audit
    contender_kubeconfig: Path
    folder: Path

    def plain_kopf(self) -> Contender:
        """The baseline's process."""
        port = free_port()
        program = Path(__file__).parent / "plain_kopf.py"
        liveness = f"--liveness=http://127.0.0.1:{port}/healthz"
        command = [sys.executable, "-m", "kopf", "run", "--quiet", "--all-namespaces", liveness, str(program)]
        return Contender(command, {"KUBECONFIG": str(self.contender_kubeconfig)}, self.folder / "kopf.log", port)

    def kubeagents(self) -> Contender:
        """Our process, with default settings."""
        port = free_port()
        environment = {
            "KUBECONFIG": str(self.contender_kubeconfig),
            "KUBEAGENTS_INSTANCE": "operator",
            "KUBEAGENTS_HTTP_HOST": "127.0.0.1",
            "KUBEAGENTS_HTTP_PORT": str(port),
            "KUBEAGENTS_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "kubeagents_operator"]
        return Contender(command, environment, self.folder / "operator.log", port)


@asynccontextmanager
async def set_up(agents: int) -> AsyncIterator[Stage]:
    """A stage for so many Agents, none of which has been applied yet."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-operator-")))
        plane = stack.enter_context(running_control_plane(folder / "plane", nodes=NODES, audited=(CLIENT, CONTENDER)))
        (folder / "redis").mkdir()
        redis = stack.enter_context(RedisServer(next(iter(binaries().values())), folder / "redis"))
        api = await stack.enter_async_context(connected(plane.administrator(CLIENT)))
        stage = Stage(plane, redis, api, Audit(plane.audit_log), plane.administrator(CONTENDER), folder)
        for where in workload.namespaces(agents + 1):
            for path, body in workload.tenant(where, redis.url):
                await api.create(path, body)
        with _crew(stage):
            yield stage


@contextlib.contextmanager
def _crew(stage: Stage) -> Iterator[None]:
    """The workers of all pods. They share the cores with every contender."""
    command = [sys.executable, "-m", "benchmarks.operator.crew", str(stage.plane.kubeconfig), stage.redis.url]
    path = stage.folder / "crew.log"
    with path.open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as crew:
        try:
            yield
            assert crew.poll() is None, f"the crew has ended: {path.read_text()[-3000:]}"
        finally:
            crew.kill()


async def until(what: str, probe: Callable[[], object], *, seconds: float, every: float = 0.1) -> None:
    """Wait until the probe says something true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(every)


async def apply_all(api: Api, agents: int) -> None:
    """All Agents, 50 requests in flight."""

    async def apply(number: int) -> None:
        await api.create(workload.agents_path(workload.namespace(number)), workload.agent(number))

    await each(range(agents), apply)
