# SPDX-License-Identifier: Apache-2.0
"""The processes of a run."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.adapters.registry import ADAPTERS
from agent_runtime.queue import Beat, Worker, open_queue
from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.endpoints import OWN_PORTS, Endpoint
from kubeagents_api.interface import Interface
from kubeagents_api.model import LocalRef
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, LeaderConfig, QueueConfig
from tests.support.redis_server import RedisServer, binaries
from tests.support.runtime_process import RuntimeProcess

KEY = "the-key-of-the-benchmark"
_TICKS = os.sysconf("SC_CLK_TCK")
_QUEUE = QueueConfig(name="main", namespace="bench", url_env="KUBEAGENTS_QUEUE_0_URL", result_ttl_seconds=600)


@dataclass
class Stage:
    """Redis and what is started on it."""

    folder: Path
    redis: RedisServer

    @contextlib.contextmanager
    def central(self, *, guarded: bool = False) -> Iterator[RuntimeProcess]:
        """A CentralAgent with all its protocols."""
        keys = self.folder / "keys" / "bench"
        keys.mkdir(parents=True, exist_ok=True)
        (keys / "key").write_text(KEY)
        principal = Principal(name="bench", role="admin", keys_from=LocalRef(name="bench"))
        config = CentralAgentConfig(
            name="hub",
            namespace="bench",
            queues=[_QUEUE],
            leader=LeaderConfig(type="alone", lease_name="hub-leader", lease_duration_seconds=15),
            access=AccessSettings(principals=[principal]) if guarded else None,
            keys_path=str(keys.parent) if guarded else None,
            agent_timeout_seconds=15,
            endpoints=dict.fromkeys(ADAPTERS, 0),
            host="127.0.0.1",
            port=0,
        )
        name = "guarded" if guarded else "hub"
        with RuntimeProcess(config=config, folder=self.folder, instance=name, urls=[self.redis.url]) as process:
            yield process.ready()

    @contextlib.contextmanager
    def agent(self) -> Iterator[RuntimeProcess]:
        """An Agent that echoes."""
        config = AgentConfig(
            name="echo",
            namespace="bench",
            queue=_QUEUE,
            handler="benchmarks.protocols.handler:echo",
            capabilities=["echo"],
            concurrency=64,
            drain_seconds=5,
            heartbeat_seconds=5,
            host="127.0.0.1",
            port=0,
        )
        with RuntimeProcess(config=config, folder=self.folder, instance="echo-1", urls=[self.redis.url]) as process:
            yield process.ready()

    def empty(self) -> None:
        """Forget all tasks. The Agent stays known, though nobody works: MCP refuses calls of tools that it is not told
        of."""
        with self.redis.client() as client:
            client.flushall()
        asyncio.run(self._introduce())

    async def _introduce(self) -> None:
        queue = open_queue(_QUEUE, url=self.redis.url)
        try:
            await queue.beat(
                Beat(
                    worker=Worker(agent="echo", instance="echo-0"),
                    version="0",
                    concurrency=1,
                    running=0,
                    draining=False,
                    started_at_ms=0,
                    interface=Interface(description="What came."),
                )
            )
        finally:
            await queue.aclose()


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """With a Redis of its own."""
    with RedisServer(next(iter(binaries().values())), folder) as redis:
        yield Stage(folder, redis)


@dataclass(frozen=True, slots=True)
class Bare:
    """A bare server's process."""

    process: "subprocess.Popen[str]"
    port: int


@contextlib.contextmanager
def bare(name: str) -> Iterator[Bare]:
    """One of `benchmarks.protocols.bare`."""
    command = [sys.executable, "-m", f"benchmarks.protocols.bare.{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Bare(process, int(process.stdout.readline()))
        finally:
            process.kill()


def port_of(central: RuntimeProcess, endpoint: Endpoint) -> int:
    """Where a CentralAgent serves a protocol."""
    if endpoint not in OWN_PORTS:
        return central.port
    found: int = next(line["ports"][endpoint] for line in list(central.lines) if "ports" in line)
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
