# SPDX-License-Identifier: Apache-2.0
"""Workers for pods in which nothing runs: real consumers on the real Redis, under the names of the pods.

They live in a thread of their own, so that a test may block in kubectl while they beat and work.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import httpx

from agent_runtime.agent import Context, Task
from agent_runtime.queue import TaskQueue, open_queue
from agent_runtime.testing import running
from agent_runtime.worker import Consumer
from kubeagents_api.labels import OWNER_KIND, OWNER_NAME
from kubeagents_api.runtime_config import QueueConfig
from tests.support.cluster import Cluster

T = TypeVar("T")

_LOOK_SECONDS = 0.2
_END_SECONDS = 30.0


async def work(task: Task, ctx: Context) -> Any:
    """The handler of workers that are given none: it takes as many seconds as the payload's `seconds` says."""
    await asyncio.sleep(task.payload.get("seconds", 0) if isinstance(task.payload, dict) else 0)
    return {"by": ctx.instance}


@dataclass
class FakeWorkers:
    """The workers of one Agent: one in each of its Ready pods. A context manager that starts and ends them."""

    cluster: Cluster
    namespace: str
    agent: str
    config: QueueConfig
    url: str
    handler: Any = work
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `agent_runtime.testing.running`, such as `concurrency` and `drain_seconds`."""
    consumers: dict[str, Consumer] = field(default_factory=dict)
    """Those that run now, by the names of their pods."""

    def __enter__(self) -> Self:
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"workers of {self.agent}")
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_END_SECONDS)
        if self._error is not None:
            raise self._error

    def do(self, call: Callable[[TaskQueue], Coroutine[Any, Any, T]]) -> T:
        """Use the queue, for example `workers.do(lambda queue: queue.submit(tasks))`."""
        return asyncio.run_coroutine_threadsafe(call(self._queue), self._loop).result(_END_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # handed to the test by `__exit__`
            self._error = error
        finally:
            self._begun.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._queue = open_queue(self.config, url=self.url)
        self._begun.set()
        try:
            with self.cluster.api() as client:
                await self._follow(client)
        finally:
            await self._queue.aclose()

    async def _follow(self, client: httpx.Client) -> None:
        """Start and end workers as pods come and go."""
        stops: dict[str, asyncio.Event] = {}
        async with asyncio.TaskGroup() as group:
            while not self._end.is_set():
                names = await asyncio.to_thread(self._pods, client)
                # Without an answer of the API server, they all go on.
                for name in () if names is None else names - stops.keys():
                    stops[name] = asyncio.Event()
                    group.create_task(self._play(name, stops[name]))
                for name in () if names is None else stops.keys() - names:
                    stops.pop(name).set()
                await asyncio.sleep(_LOOK_SECONDS)
            for stop in stops.values():
                stop.set()

    async def _play(self, name: str, stop: asyncio.Event) -> None:
        options = {"heartbeat_seconds": 1, "lease_seconds": 3.0, **self.options}
        async with running(self.handler, self._queue, agent=self.agent, instance=name, **options) as consumer:
            self.consumers[name] = consumer
            await stop.wait()
            del self.consumers[name]

    def _pods(self, client: httpx.Client) -> set[str] | None:
        selector = f"{OWNER_KIND}=Agent,{OWNER_NAME}={self.agent}"
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        try:
            answer = client.get(path, params={"labelSelector": selector})
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            return None
        return {
            pod["metadata"]["name"]
            for pod in answer.json()["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        }
