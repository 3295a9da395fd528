# SPDX-License-Identifier: Apache-2.0
"""Hears which tasks were taken away from this process, and that there are new orders for it."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Any

from agent_runtime.queue.base import Worker, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from kubeagents_api.errors import QueueUnavailableError


class Revocations:
    """One subscription for the process. `on_revoked` gets ids; `on_gap` is called when there may be more to know."""

    def __init__(
        self,
        queue: WorkerQueue,
        *,
        worker: Worker,
        link: Link,
        on_revoked: Callable[[Collection[str]], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._link = link
        self._on_revoked = on_revoked
        self._on_gap = on_gap
        self._passed = asyncio.Event()

    def deadline_passed(self) -> None:
        """A deadline has passed by our clock: let the queue look at its own. Usually the next claim would, but a
        process whose slots are all taken makes none."""
        self._passed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        backoff = Backoff()
        while True:
            try:
                listening: Any = self._queue.revoked(self._worker)
                async with aclosing(listening):
                    async for task_ids in listening:
                        backoff.reset()
                        if task_ids:
                            self._on_revoked(task_ids)
                        else:
                            self._on_gap()
            except QueueUnavailableError as error:
                self._link.failed(error)
            await asyncio.sleep(backoff.pause())
            self._on_gap()

    async def look_at_deadlines(self) -> None:
        """Ask the queue to look at its clock whenever a deadline has passed by ours, until cancelled."""
        while True:
            await self._passed.wait()
            self._passed.clear()
            try:
                await self._queue.stats()  # moves what is due; what expires by that is announced like a cancellation
            except QueueUnavailableError as error:
                self._link.failed(error)  # the alarm rings again
