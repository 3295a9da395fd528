# SPDX-License-Identifier: Apache-2.0
"""Kubeagents: workers are real agent processes (`python -m agent_runtime`) with the defaults of a TaskQueue."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent_runtime.agent import Context, Task
from agent_runtime.queue import open_queue
from benchmarks.queue.peers.contract import AsyncProducer, begun, main
from kubeagents_api.agent import AgentSpec
from kubeagents_api.labels import CONFIG_ENV, INSTANCE_ENV
from kubeagents_api.model import LocalRef
from kubeagents_api.runtime_config import QueueConfig, agent_config, queue_config, render
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import TaskQueueSpec

CONCURRENCY = 512


async def handle(task: Task, _context: Context) -> int:
    """The handler."""
    return begun(task.payload)


def config() -> QueueConfig:
    """The queue of the benchmark, as its `TaskQueue` would have it."""
    return queue_config(name="bench", namespace="default", spec=TaskQueueSpec())


class Producer(AsyncProducer):
    """Submits with the queue's own class, as a CentralAgent does."""

    def __init__(self, url: str) -> None:
        self._queue = open_queue(config(), url=url)

    async def one(self, payload: str) -> object:
        return await self._queue.submit([TaskRequest(payload=payload)])

    async def many(self, payloads: Sequence[str]) -> object:
        return await self._queue.submit([TaskRequest(payload=payload) for payload in payloads])


def work(url: str, workers: int) -> None:
    """Be so many agent processes."""
    spec = AgentSpec(
        queue_ref=LocalRef(name="bench"),
        handler="benchmarks.queue.peers.kubeagents.driver:handle",
        concurrency=CONCURRENCY,
    )
    rendered = render(
        agent_config(
            name="bench",
            namespace="default",
            spec=spec,
            queue=TaskQueueSpec(),
            code_path=None,
            host="127.0.0.1",
            port=0,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(rendered, encoding="utf-8")
        settings = {**os.environ, CONFIG_ENV: str(path), config().url_env: url}
        agents = [
            subprocess.Popen([sys.executable, "-m", "agent_runtime"], env={**settings, INSTANCE_ENV: f"bench-{number}"})
            for number in range(workers)
        ]
        for agent in agents:
            agent.wait()


if __name__ == "__main__":
    main(["kubeagents", "redis"], work=work, asynchronous=Producer)
