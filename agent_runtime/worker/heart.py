# SPDX-License-Identifier: Apache-2.0
"""Tells the registry that this process lives, and what it is doing."""

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

from agent_runtime.queue.base import Beat, Orders, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from kubeagents_api.errors import QueueUnavailableError

_MISSED_BEATS = 3
"""Beats in a row without an answer after which the process counts as unhealthy."""


class Heart:
    """Sends `beat()` every `seconds`, and at once when asked to. `on_answer` gets each beat and its answer."""

    def __init__(
        self,
        queue: WorkerQueue,
        *,
        beat: Callable[[], Beat],
        seconds: float,
        link: Link,
        on_answer: Callable[[Beat, Orders], None],
    ) -> None:
        self._queue = queue
        self._beat = beat
        self._on_answer = on_answer
        self._seconds = seconds
        self._link = link
        self._hurry = asyncio.Event()
        self._accepted_at: float | None = None
        self.known = asyncio.Event()
        """The registry has accepted a beat."""

    @property
    def trouble(self) -> str | None:
        """Why the registry may think that we are gone; None if it does not."""
        if self._accepted_at is None:
            return "no heartbeat has been accepted yet"
        silent = monotonic() - self._accepted_at
        return f"no heartbeat has been accepted for {silent:.0f} s" if silent > _MISSED_BEATS * self._seconds else None

    def beat_now(self) -> None:
        """Do not wait for the next turn: something changed that others should know."""
        self._hurry.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        backoff = Backoff()
        while True:
            self._hurry.clear()
            beat = self._beat()
            try:
                orders = await self._queue.beat(beat)
            except QueueUnavailableError as error:
                self._link.failed(error)
                pause = min(self._seconds, backoff.pause())
            else:
                self._link.answered()
                self._accepted_at = monotonic()
                self.known.set()
                backoff.reset()
                pause = self._seconds
                self._on_answer(beat, orders)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause)
