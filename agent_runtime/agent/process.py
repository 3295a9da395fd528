# SPDX-License-Identifier: Apache-2.0
"""What all attempts of a process share, as their contexts use it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.agent.attempt import Attempt, Voice
from agent_runtime.queue.base import Worker, WorkerQueue


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """One process of an Agent."""

    worker: Worker
    queue: WorkerQueue
    max_payload_bytes: int
    """Largest part of a result, in bytes of JSON."""
    alive_seconds: float
    """A process whose last heartbeat is older is not sent broadcasts."""
    voice: Callable[[Attempt], Voice]
    """Gives an attempt its voice."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("agent"))
    _aftermath: set[asyncio.Task[None]] = field(default_factory=set)

    def afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that whoever wants it cannot wait for, because they are cancelled."""
        task = asyncio.create_task(work)
        self._aftermath.add(task)
        task.add_done_callback(self._aftermath.discard)

    async def settled(self) -> None:
        """Wait until all of that is done."""
        while self._aftermath:
            await asyncio.wait(tuple(self._aftermath))
