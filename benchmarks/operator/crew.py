# SPDX-License-Identifier: Apache-2.0
"""Plays the workers of all pods: `python -m benchmarks.operator.crew KUBECONFIG REDIS_URL` beats for each pod, at once
when it comes into being and then as often as its Agent says. Whose pods they are does not matter."""

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from agent_runtime.queue import TaskQueue, open_queue
from agent_runtime.queue.base import Beat, Worker
from benchmarks.operator.api import connected
from benchmarks.operator.workload import HEARTBEAT_SECONDS, QUEUE
from kubeagents_api.labels import OWNER_NAME
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task_queue import TaskQueueSpec

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Names and labels are all that is asked of a pod."""


class Crew:
    """The pods that are known, by namespace."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues: dict[str, TaskQueue] = {}
        self._pods: dict[tuple[str, str], Worker] = {}
        self._new: asyncio.Queue[tuple[str, Worker]] = asyncio.Queue()
        self._began_at_ms = int(time.time() * 1000)

    async def follow(self, kubeconfig: Path) -> None:
        """Learn of pods that come and go."""
        async with connected(kubeconfig) as api:
            async for event in api.watch("/api/v1/pods", accept=METADATA):
                metadata = event["object"]["metadata"]
                pod = (metadata["namespace"], metadata["name"])
                if event["type"] == "DELETED":
                    self._pods.pop(pod, None)
                elif pod not in self._pods and (agent := _agent(metadata.get("labels", {}))) is not None:
                    self._pods[pod] = Worker(agent=agent, instance=pod[1])
                    self._new.put_nowait((pod[0], self._pods[pod]))

    async def greet(self) -> None:
        """The first beats."""
        while True:
            await self._beat(*await self._new.get())

    async def beat(self) -> None:
        """The further ones, spread over the time between two."""
        while True:
            begun = time.monotonic()
            known = list(self._pods.items())
            for done, ((namespace, _), worker) in enumerate(known, start=1):
                await self._beat(namespace, worker)
                ahead = HEARTBEAT_SECONDS * 0.8 * done / len(known) - (time.monotonic() - begun)
                if ahead > 0.05:
                    await asyncio.sleep(ahead)
            await asyncio.sleep(0.2 if known else 1.0)

    async def _beat(self, namespace: str, worker: Worker) -> None:
        if namespace not in self._queues:
            config = queue_config(name=QUEUE, namespace=namespace, spec=TaskQueueSpec())
            self._queues[namespace] = open_queue(config, url=self._url)
        now = int(time.time() * 1000)
        await self._queues[namespace].beat(
            Beat(
                worker=worker,
                version="bench",
                concurrency=16,
                running=0,
                draining=False,
                started_at_ms=self._began_at_ms,
                claimed_at_ms=now,
            )
        )


def _agent(labels: dict[str, str]) -> str | None:
    """The Agent whose pod it is: of ours, or of the plain operator's."""
    return labels.get(OWNER_NAME) or labels.get("app")


async def main(kubeconfig: Path, url: str) -> None:
    """Play until killed."""
    crew = Crew(url)
    async with asyncio.TaskGroup() as group:
        group.create_task(crew.follow(kubeconfig))
        group.create_task(crew.greet())
        group.create_task(crew.beat())


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
