# SPDX-License-Identifier: Apache-2.0
"""Every protocol through the Service of two pods, one of which is killed in the midst; and agents outside."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.cancellation import end
from tests.conformance.protocols.driver import Driver, Errand
from tests.conformance.protocols.drivers import DRIVERS
from tests.e2e import workload
from tests.e2e.nodes import node_ports
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually, eventually_async
from tests.support.tcp_proxy import TcpProxy

PODS = "kubeagents.dev/kind=CentralAgent,kubeagents.dev/name=front"
KEY = "the-key-of-the-root-user"
ROUNDS = 3
"""How often each protocol has to work, before and after."""
PATIENCE_SECONDS = 180.0
ERRAND_SECONDS = 30.0
UNDER_WAY = ("pending", "scheduled", "queued", "running")

HANDLER = """\
async def handle(task, ctx):
    return {"square": task.payload["n"] ** 2, "by": ctx.instance}
"""


def deploy(cluster: Cluster, namespace: str) -> None:
    root = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "root-keys"}, "stringData": {"key": KEY}}
    cluster.apply(namespace, json.dumps(secret))
    central = workload.central_agent(
        replicas=2,
        queueRefs=[{"name": "main"}],
        service={"type": "NodePort"},
        endpoints=["http", "websocket", "grpc", "mcp", "a2a", "zeromq"],
        access={"principals": [root]},
    )
    agent = workload.agent(queueRef={"name": "main"})
    workload.deploy(cluster, namespace, workload.queue("main"), workload.code(), agent, central)


@contextlib.asynccontextmanager
async def entrances(cluster: Cluster, namespace: str) -> AsyncIterator[dict[str, int]]:
    """Ports of 127.0.0.1 that lead to the Service, by their names there."""
    address, ports = node_ports(cluster, namespace, "front-central")
    async with AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(TcpProxy(target_host=address, target_port=port))
            for name, port in ports.items()
        }
        yield {name: proxy.port for name, proxy in proxies.items()}


@dataclass
class Caller:
    """Uses one protocol again and again, with a new connection each time."""

    driver: Driver
    port: int
    done: int = 0
    troubles: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        while True:
            try:
                # Time is up some day: a connection to a pod that is gone may just be silent.
                async with asyncio.timeout(ERRAND_SECONDS), self.driver.connect(self.port, key=KEY) as client:
                    outcome = await client.run(Errand(payload={"n": 3}))
            except AssertionError:
                raise
            except Exception as error:  # each client has its own for a pod that is gone
                self.troubles[f"{type(error).__name__}: {error}"] += 1
                await asyncio.sleep(0.2)
                continue
            if outcome.state in UNDER_WAY:
                self.troubles[f"drained while {outcome.state}"] += 1
                continue
            assert (outcome.state, outcome.result["square"]) == ("succeeded", 9), outcome
            self.done += 1

    async def until(self, count: int, running: "asyncio.Task[None]") -> None:
        async def enough() -> bool:
            if running.done():
                raise RuntimeError(f"{self.driver.name} has ended") from running.exception()
            assert self.done >= count, f"{self.driver.name}: {self.done} of {count}; {dict(self.troubles)}"
            return True

        await eventually_async(enough, what=f"{self.driver.name} works", timeout=PATIENCE_SECONDS)


async def test_every_protocol_goes_on_when_a_pod_is_killed(cluster: Cluster, namespace: str) -> None:
    await asyncio.to_thread(deploy, cluster, namespace)
    async with entrances(cluster, namespace) as ports:
        callers = [Caller(driver, ports.get(driver.carrier, ports["http"])) for driver in DRIVERS]
        running = {asyncio.create_task(caller.run()): caller for caller in callers}
        try:
            await asyncio.gather(*(caller.until(ROUNDS, task) for task, caller in running.items()))
            victim = (await asyncio.to_thread(cluster.ready_pods, namespace, PODS))[0]
            await asyncio.to_thread(
                cluster.kubectl, "-n", namespace, "delete", "pod", victim, "--force", "--grace-period=0"
            )
            await asyncio.gather(*(caller.until(caller.done + ROUNDS, task) for task, caller in running.items()))
            assert not [task for task in running if task.done()]
        finally:
            await end(*running)


@contextlib.contextmanager
def outside_agent(name: str, servers: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process on this machine, which is not in the cluster."""
    code, key_file, log = folder / "outside.py", folder / "key", folder / f"{name}.log"
    code.write_text(HANDLER)
    key_file.write_text(KEY)
    command: list[str | Path] = [sys.executable, "-m", "agent_runtime.cli.main", "agent", "run", code, "--name", name,
               "--server", servers, "--queue", "main", "--key-file", key_file]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)
            print(f"--- {name} ---\n{log.read_text()}")


@pytest.mark.parametrize("scheme", ["grpc", "ws", "http"])
def test_an_agent_outside_of_the_cluster_goes_on_when_a_pod_is_killed(
    cluster: Cluster, namespace: str, tmp_path: Path, scheme: str
) -> None:
    deploy(cluster, namespace)
    address, ports = node_ports(cluster, namespace, "front-central")
    server = f"{scheme}://{address}:{ports['grpc' if scheme == 'grpc' else 'http']}"
    with cluster.central_agent(namespace, "front") as http, outside_agent("outside", server, tmp_path):
        http.headers["x-api-key"] = KEY

        def submit(count: int) -> list[str]:
            tasks = [{"payload": {"n": n}, "agent": "outside"} for n in range(count)]
            answer = http.post("/v1/tasks/batch", json={"tasks": tasks})
            assert answer.status_code == 201, answer.text
            ids: list[str] = answer.json()["ids"]
            return ids

        def done(ids: list[str]) -> list[Object]:
            def final() -> list[Object]:
                answer = http.post("/v1/queues/main/results", json={"ids": ids, "timeoutSeconds": 5})
                assert answer.status_code == 200, answer.text
                tasks: list[Any] = answer.json()["tasks"]
                assert len(tasks) == len(ids), f"{len(tasks)} of {len(ids)} have ended"
                return tasks

            return eventually(final, what="the agent outside does its tasks", timeout=PATIENCE_SECONDS)

        assert {task["state"] for task in done(submit(20))} == {"succeeded"}
        ids = submit(200)
        victim = cluster.ready_pods(namespace, PODS)[0]
        cluster.kubectl("-n", namespace, "delete", "pod", victim, "--force", "--grace-period=0")
        ids += eventually(lambda: submit(20), what="tasks are taken again", timeout=PATIENCE_SECONDS)
        tasks = done(ids)
        assert [task["result"]["square"] for task in tasks] == [n**2 for n in [*range(200), *range(20)]]
