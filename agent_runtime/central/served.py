# SPDX-License-Identifier: Apache-2.0
"""A queue as a CentralAgent serves it."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from agent_runtime.queue.base import TaskQueue
from agent_runtime.telemetry.link import Link
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig

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
