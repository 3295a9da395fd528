# SPDX-License-Identifier: Apache-2.0
"""The work queue: each key at most once, a bounded number at a time, with a backoff of its own; namespaces in turn.

    add ──► ready ──worker──► running ──done──► (gone)
              ▲                 │ │
              │   added again ──┘ └── failed: delayed by its backoff; asked for later: delayed by that
              └── when the delay is over ◄── delayed

A key that is added while it runs is run once more afterwards, never twice at the same time. A key that is added while
it is delayed runs at once; the delay stays, so a deadline that somebody asked for is not lost.

Of the keys that are ready, namespaces take turns: a namespace with 5,000 keys delays the one key of another by one of
its own, not by 5,000.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubeagents_api.errors import KubeagentsError, TemporaryError
from kubeagents_operator.keys import Key
from kubeagents_operator.metrics import QueueMetrics
from kubeagents_operator.turns import Turns

_log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Brings one object where it should be; returns after how many seconds it wants to be called again, if at all."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays after failures, in seconds: doubled each time, with jitter so that failures in a row do not march."""

    initial: float = 0.5
    longest: float = 120.0
    jitter: float = 0.2

    def delay(self, failures: int) -> float:
        """The delay after the given number of failures in a row."""
        base = min(self.longest, self.initial * 2.0 ** min(failures - 1, 32))
        return base * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spreads load


class WorkQueue:
    """Keys that wait for their reconcile."""

    def __init__(
        self,
        *,
        metrics: QueueMetrics,
        concurrency: int,
        backoff: Backoff = Backoff(),
        run_timeout: float = 120.0,
    ) -> None:
        self._metrics = metrics
        self._concurrency = concurrency
        self._backoff = backoff
        self._run_timeout = run_timeout
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._ready: dict[Key, float] = {}
        """Key -> since when it waits; the keys are those of `_turns`."""
        self._turns: Turns[Key] = Turns()
        self._waiting = asyncio.Semaphore(0)
        """As many as there are keys in `_turns`."""
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._delayed: dict[Key, float] = {}
        """Key -> when it is due; the heap below may have outdated entries, this has not."""
        self._heap: list[tuple[float, Key]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> frozenset[Key]:
        """What is being reconciled now."""
        return frozenset(self._running)

    def add(self, key: Key) -> None:
        """Reconcile it as soon as a worker is free."""
        self._metrics.adds.labels(key.kind).inc()
        if key in self._running:
            self._again.add(key)
        elif key not in self._ready:
            if not self._ready and not self._running:
                self._moved_at = self._loop.time()
            self._ready[key] = self._loop.time()
            self._turns.put(key.namespace, key)
            self._waiting.release()

    def add_after(self, key: Key, seconds: float) -> None:
        """Reconcile it after so many seconds, or earlier if it is asked for earlier."""
        due = self._loop.time() + seconds
        if due >= self._delayed.get(key, float("inf")):
            return
        self._delayed[key] = due
        heapq.heappush(self._heap, (due, key))
        self._arm()

    def forget(self, key: Key) -> None:
        """The object is gone: drop its delay and its failures."""
        self._delayed.pop(key, None)
        self._failures.pop(key, None)

    def stuck_seconds(self) -> float:
        """For how long nothing has begun or ended although there is work."""
        return self._loop.time() - self._moved_at if self._ready or self._running else 0.0

    async def run(self, reconcile: Reconcile) -> None:
        """Work until cancelled. What runs then is cancelled too: every reconcile may be cut anywhere."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._concurrency):
                workers.create_task(self._work(reconcile), name=f"reconcile-{number}")

    async def _work(self, reconcile: Reconcile) -> None:
        while True:
            await self._waiting.acquire()
            key = self._turns.take()
            self._moved_at = self._loop.time()
            self._running.add(key)
            self._metrics.waiting.observe(self._moved_at - self._ready.pop(key))
            try:
                await self._reconcile(key, reconcile)
            finally:
                self._moved_at = self._loop.time()
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _reconcile(self, key: Key, reconcile: Reconcile) -> None:
        started = self._loop.time()
        outcome = "ok"
        try:
            async with asyncio.timeout(self._run_timeout):
                again = await reconcile(key)
        except Exception as error:
            outcome = "error"
            self._failed(key, error)
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        finally:
            self._metrics.reconciles.labels(key.kind, outcome).inc()
            self._metrics.seconds.labels(key.kind).observe(self._loop.time() - started)

    def _failed(self, key: Key, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures)
        fields = {"object": str(key), "failures": failures}
        if isinstance(error, TemporaryError):
            delay = max(delay, error.delay or 0.0)
            _log.warning("%s: %s; next try in %.1f s", key, error, delay, extra=fields)
        elif isinstance(error, TimeoutError):
            _log.error("%s: not done within %g s; next try in %.1f s", key, self._run_timeout, delay, extra=fields)
        elif isinstance(error, KubeagentsError):
            _log.error("%s: %s; next try in %.1f s", key, error, delay, extra=fields)
        else:
            # A defect of the operator: the one case in which a traceback helps.
            _log.error("%s: %s; next try in %.1f s", key, error, delay, extra=fields, exc_info=error)
        self.add_after(key, delay)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0][0], self._release_due) if self._heap else None

    def _release_due(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._delayed.get(key) == due:
                del self._delayed[key]
                self.add(key)
        self._arm()
