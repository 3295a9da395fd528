# SPDX-License-Identifier: Apache-2.0
"""Tells when the event loop is blocked, for how long, and by which line of code.

One blocking call in an async handler stops everything in its process: heartbeats, lease renewals, all other tasks.
The loop cannot report that itself while it happens, so a thread watches it.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback

from agent_runtime.telemetry.metrics import LoopMetrics

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
_STACK_LINES = 6
"""Innermost frames shown: enough to see the handler's line and what it calls."""


class LoopWatch:
    """Measures the lag of the running event loop while `run` runs."""

    def __init__(self, metrics: LoopMetrics, *, threshold_seconds: float = 1.0) -> None:
        self._lag = metrics.lag
        self._threshold = threshold_seconds
        self._ticked_at = time.monotonic()
        self._done = threading.Event()
        self._loop_thread = threading.get_ident()

    async def run(self) -> None:
        """Watch until cancelled."""
        self._loop_thread = threading.get_ident()
        self._ticked_at = time.monotonic()
        thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(_TICK_SECONDS)
                now = time.monotonic()
                lag = max(0.0, now - self._ticked_at - _TICK_SECONDS)
                self._ticked_at = now
                self._lag.observe(lag)
                if lag > self._threshold:
                    _log.warning("the event loop was blocked for %.1f s", lag, extra={"seconds": round(lag, 3)})
        finally:
            self._done.set()

    def _watch(self) -> None:
        reported = 0.0
        while not self._done.wait(_TICK_SECONDS):
            ticked_at = self._ticked_at
            blocked = time.monotonic() - ticked_at - _TICK_SECONDS
            if blocked <= self._threshold or ticked_at == reported:
                continue
            reported = ticked_at
            frame = sys._current_frames().get(self._loop_thread)
            stack = "".join(traceback.format_stack(frame)[-_STACK_LINES:]) if frame is not None else ""
            _log.warning(
                "the event loop has been blocked for %.1f s: nothing else in this process runs, leases may expire and "
                "their tasks run again elsewhere. Put blocking work into `await asyncio.to_thread(...)`. It is at:\n%s",
                blocked,
                stack.rstrip(),
            )
