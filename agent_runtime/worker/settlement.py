# SPDX-License-Identifier: Apache-2.0
"""Records outcomes: one call at a time, each with everything that ended since the last one."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from agent_runtime.queue.base import Failed, Outcome, Succeeded, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.metrics import WorkerMetrics
from kubeagents_api.errors import QueueUnavailableError

_log = logging.getLogger(__name__)

_BATCH = 512
_BATCH_BYTES = 8 * 1024 * 1024
"""Results in one call; large ones travel in more calls, so that none blocks Redis for long."""


class Settlement:
    """Outcomes on their way to the queue; none is dropped while the process lives. Calls `on_room` as they leave."""

    def __init__(self, queue: WorkerQueue, *, link: Link, metrics: WorkerMetrics, on_room: Callable[[], None]) -> None:
        self._queue = queue
        self._link = link
        self._metrics = metrics
        self._on_room = on_room
        self._waiting: deque[Outcome] = deque()
        self._in_flight: list[Outcome] = []
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self.succeeded = 0
        self.failed = 0
        """How many outcomes the queue has accepted."""

    @property
    def pending(self) -> int:
        """Outcomes that the queue has not confirmed yet."""
        return len(self._waiting) + len(self._in_flight)

    def pending_ids(self) -> list[str]:
        """The tasks they belong to."""
        return [outcome.claim.id for outcome in (*self._in_flight, *self._waiting)]

    def add(self, outcome: Outcome) -> None:
        """Take over an outcome."""
        if not self._waiting:
            self._none.clear()
            self._some.set()
        self._waiting.append(outcome)

    async def flushed(self) -> None:
        """Wait until the queue has confirmed everything."""
        await self._none.wait()

    async def run(self) -> None:
        """Record outcomes until cancelled."""
        while True:
            await self._some.wait()
            while self._waiting:
                self._in_flight = self._take()
                await self._record(self._in_flight)
                self._in_flight = []
                self._on_room()
            self._some.clear()
            self._none.set()

    def _take(self) -> list[Outcome]:
        batch: list[Outcome] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            outcome = self._waiting.popleft()
            size += len(outcome.result) if isinstance(outcome, Succeeded) else 0
            batch.append(outcome)
        return batch

    async def _record(self, batch: list[Outcome]) -> None:
        backoff = Backoff()
        while True:
            try:
                recorded = await self._queue.settle(batch)
            except QueueUnavailableError as error:
                self._link.failed(error)
                await asyncio.sleep(backoff.pause())
            else:
                break
        self._link.answered()
        self._count(batch, recorded)

    def _count(self, batch: list[Outcome], recorded: list[bool]) -> None:
        metrics = self._metrics
        metrics.settle_batch.observe(len(batch))
        succeeded = failed = refused = 0
        for outcome, held in zip(batch, recorded, strict=True):
            if not held:
                metrics.lost.inc()
                _log.warning(
                    "task %s: the outcome of attempt %d came too late and was dropped, the task is no longer ours",
                    outcome.claim.id,
                    outcome.claim.attempt,
                    extra={"task": outcome.claim.id},
                )
            elif not isinstance(outcome, Failed):
                succeeded += 1
            elif outcome.permanent:
                refused += 1
            else:
                failed += 1
        self.succeeded += succeeded
        self.failed += failed + refused
        metrics.succeeded.inc(succeeded)
        metrics.failed.inc(failed)
        metrics.refused.inc(refused)
