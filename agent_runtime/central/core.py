# SPDX-License-Identifier: Apache-2.0
"""The core that the adapters call."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent_runtime.leader.base import Elector
from agent_runtime.queue.base import TaskQueue
from agent_runtime.telemetry.link import Link
from kubeagents_api.errors import QueueNotFoundError, QueueUnavailableError
from kubeagents_api.runtime_config import CentralAgentConfig, QueueConfig
from kubeagents_api.task import InstanceInfo, QueueStats, TaskRecord, TaskRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedQueue:
    """One of the queues of a CentralAgent."""

    config: QueueConfig
    queue: TaskQueue
    link: Link

    async def ask(self, call: Awaitable[T]) -> T:
        """Await a call to the queue, and note whether the queue answered."""
        try:
            answer = await call
        except QueueUnavailableError as error:
            self.link.failed(error)
            raise
        self.link.answered()
        return answer


class Central:
    """A CentralAgent's process: stateless, in front of its queues."""

    def __init__(
        self, config: CentralAgentConfig, *, instance: str, queues: Sequence[ServedQueue], elector: Elector
    ) -> None:
        self._config = config
        self._instance = instance
        self._queues: Mapping[str, ServedQueue] = {served.config.name: served for served in queues}
        self._elector = elector
        self._draining = False
        self._waits: set[asyncio.Timeout] = set()

    @property
    def name(self) -> str:
        """Name of the CentralAgent."""
        return self._config.name

    @property
    def instance(self) -> str:
        """Name of this process."""
        return self._instance

    @property
    def queue_names(self) -> Sequence[str]:
        """The queues, the default one first."""
        return tuple(self._queues)

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that any queue takes."""
        return max(served.config.max_payload_bytes for served in self._queues.values())

    @property
    def draining(self) -> bool:
        """Whether `drain` has been called."""
        return self._draining

    @property
    def leader(self) -> str | None:
        """The instance that leads, as far as this one knows."""
        return self._elector.holder

    @property
    def waiting(self) -> int:
        """How many calls wait for results."""
        return len(self._waits)

    def drain(self) -> None:
        """Answer all waits now, and from now on."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    def trouble(self, queue: str) -> str | None:
        """Why the queue does not answer, as last seen."""
        return self._served(queue).link.trouble

    async def submit(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[str]:
        """Queue the tasks, all or none, and return their ids."""
        served = self._served(queue)
        return await served.ask(served.queue.submit(tasks))

    async def task(self, queue: str, task_id: str) -> TaskRecord:
        """One task."""
        served = self._served(queue)
        return await served.ask(served.queue.get(task_id))

    async def results(self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float) -> Sequence[TaskRecord]:
        """The tasks, once all are final, the time is over, or the process drains."""
        served = self._served(queue)
        if not self._draining:
            wait = asyncio.timeout(None)
            self._waits.add(wait)
            try:
                async with wait:
                    return await served.ask(served.queue.wait(task_ids, timeout_seconds=timeout_seconds))
            except TimeoutError:
                pass  # drained
            finally:
                self._waits.discard(wait)
        return await served.ask(served.queue.wait(task_ids, timeout_seconds=0))

    async def dead(self, queue: str, *, limit: int) -> Sequence[TaskRecord]:
        """Dead tasks, newest first."""
        served = self._served(queue)
        return await served.ask(served.queue.list_dead(limit=limit))

    async def stats(self, queue: str) -> QueueStats:
        """The figures of one queue."""
        served = self._served(queue)
        return await served.ask(served.queue.stats())

    async def instances(self, *, queue: str | None, agent: str | None) -> Sequence[InstanceInfo]:
        """The known agent processes."""
        asked = list(self._queues.values()) if queue is None else [self._served(queue)]
        timeout = self._config.agent_timeout_seconds
        answers = await asyncio.gather(
            *(served.ask(served.queue.instances(timeout_seconds=timeout)) for served in asked)
        )
        return [found for answer in answers for found in answer if agent is None or found.agent == agent]

    def _served(self, queue: str) -> ServedQueue:
        try:
            return self._queues[queue]
        except KeyError:
            raise QueueNotFoundError(
                f"this CentralAgent does not serve a queue {queue!r}; it serves {', '.join(self._queues)}"
            ) from None
