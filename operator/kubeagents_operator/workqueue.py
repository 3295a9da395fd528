# SPDX-License-Identifier: Apache-2.0
"""The work queue: each key at most once, a bounded number at a time, with a backoff of its own; namespaces in turn.

    add ──► ready ──worker──► running ──done──► (gone)
              ▲                 │ │
              │   added again ──┘ └── failed: delayed by its backoff; asked for later: delayed by that
              └── when the delay is over ◄── delayed

A key that is added while it runs is run once more afterwards, never twice at the same time. A key that is added while
it is delayed runs at once; the delay stays, so a deadline that somebody asked for is not lost. The exception is a delay
that the API server has asked for (`Retry-After`): until it is over, the key stays delayed, whatever happens.

What becomes of its children comes in bursts: a pod is created, scheduled, ready, and its Deployment says so each time.
Of these, one look is enough: a key that is added `soon` waits until its last run is GATHER_SECONDS ago.

What somebody has asked for comes before what has become of it: a key that was added for a new or changed custom
resource before one whose status may have to say something new. So of a thousand objects that are applied at once, all
have their children before the API server is busy with what they are going through.

Of the keys that are ready, namespaces take turns: a namespace with 5,000 keys delays the one key of another by one of
its own, not by 5,000. Nor can it hold all workers with keys that take long, such as those for which an admission
webhook does not answer: an eighth of them is not for a namespace that has all others.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kubeagents_api.errors import KubeagentsError, TemporaryError
from kubeagents_operator.keys import Key
from kubeagents_operator.metrics import QueueMetrics
from kubeagents_operator.turns import Turns

_log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 1.0
"""Between two runs of which the second is due to what has become of the children."""

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Brings one object where it should be; returns after how many seconds it wants to be called again, if at all."""


class _Cause(IntEnum):
    """Why a key is to run again; of several, the highest counts."""

    CHILDREN = 0
    OTHERS = 1
    ASKED = 2


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

    def at_least(self, seconds: float) -> float:
        """A delay that somebody has asked for, spread a little: many may have been told the same."""
        return seconds * random.uniform(1, 1 + self.jitter)  # noqa: S311 - as above


class WorkQueue:
    """Keys that wait for their reconcile."""

    def __init__(
        self,
        *,
        metrics: QueueMetrics,
        concurrency: int,
        backoff: Backoff = Backoff(),
        run_timeout: float = 120.0,
        gather: float = GATHER_SECONDS,
    ) -> None:
        self._metrics = metrics
        self._concurrency = concurrency
        self._share = concurrency - concurrency // 8
        """Workers that one namespace may have."""
        self._backoff = backoff
        self._run_timeout = run_timeout
        self._gather = gather
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._ready: dict[Key, float] = {}
        """Key -> since when it waits; the keys are those of `_turns`."""
        self._turns: Turns[Key] = Turns()
        self._waiting = asyncio.Semaphore(0)
        """As many as there are keys in `_turns` that may run now: of a namespace, up to what is left of its share."""
        self._running: dict[Key, float] = {}
        """Key -> since when it runs."""
        self._busy: Counter[str] = Counter()
        """Namespace -> how many of its keys run."""
        self._closed = False
        self._idle = asyncio.Event()
        """Closed, and nothing runs."""
        self._again: dict[Key, _Cause] = {}
        """Added while it runs."""
        self._ended: OrderedDict[Key, float] = OrderedDict()
        """Key -> when its last run ended, the earliest first; for as long as that matters to `add_soon`."""
        self._gathering: dict[Key, asyncio.TimerHandle] = {}
        """What was added soon and waits for more."""
        self._delayed: dict[Key, float] = {}
        """Key -> when it is due; the heap below may have outdated entries, this has not."""
        self._heap: list[tuple[float, Key]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failures: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}
        """Key -> until when the API server has asked to be left alone with it."""

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> frozenset[Key]:
        """What is being reconciled now."""
        return frozenset(self._running)

    @property
    def delayed(self) -> int:
        """How many keys wait for a time, not for a worker."""
        return len(self._delayed)

    @property
    def failing(self) -> int:
        """Of how many keys the last reconcile has failed."""
        return len(self._failures)

    def waiting_seconds(self) -> float:
        """For how long the key has waited that has waited longest."""
        return self._loop.time() - next(iter(self._ready.values())) if self._ready else 0.0

    def running_seconds(self) -> float:
        """For how long the reconcile has run that has run longest."""
        return self._loop.time() - next(iter(self._running.values())) if self._running else 0.0

    def crowded(self, namespace: str) -> bool:
        """Whether what somebody has asked for in a namespace waits for a worker."""
        return self._turns.has_first(namespace)

    def has_asked(self) -> bool:
        """Whether what somebody has asked for waits for a worker, in whatever namespace."""
        return self._turns.has_any_first()

    def add_asked(self, key: Key) -> None:
        """Reconcile it as soon as a worker is free: somebody wants something new of it."""
        self.add(key, asked=True)

    def add_soon(self, key: Key) -> None:
        """Reconcile it as soon as a worker is free, but no sooner than GATHER_SECONDS after its last run."""
        if key in self._running:
            self._again.setdefault(key, _Cause.CHILDREN)
            return
        if key in self._ready or key in self._gathering:
            return
        pause = self._ended.get(key, float("-inf")) + self._gather - self._loop.time()
        if pause > 0:
            self._gathering[key] = self._loop.call_later(pause, self._gathered, key)
        else:
            self.add(key)

    def _gathered(self, key: Key) -> None:
        del self._gathering[key]
        self.add(key)

    def add(self, key: Key, *, asked: bool = False) -> None:
        """Reconcile it as soon as a worker is free."""
        self._metrics.adds.labels(key.kind).inc()
        now = self._loop.time()
        if key in self._running:
            cause = _Cause.ASKED if asked else _Cause.OTHERS
            self._again[key] = max(cause, self._again.get(key, cause))
        elif (pause := self._not_before.get(key, now) - now) > 0:
            self.add_after(key, pause)
        elif key not in self._ready:
            if not self._ready and not self._running:
                self._moved_at = now
            self._ready[key] = now
            if self._turns.waiting(key.namespace) < self._share - self._busy[key.namespace]:
                self._waiting.release()
            self._turns.put(key.namespace, key, first=asked)
        elif asked:
            self._turns.prefer(key.namespace, key)

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
        self._not_before.pop(key, None)
        self._ended.pop(key, None)
        self._gather_no_more(key)

    def _gather_no_more(self, key: Key) -> None:
        if (timer := self._gathering.pop(key, None)) is not None:
            timer.cancel()

    def stuck_seconds(self) -> float:
        """For how long nothing has begun or ended although there is work."""
        return self._loop.time() - self._moved_at if self._ready or self._running else 0.0

    async def finish(self, *, within: float) -> None:
        """Begin nothing more, and wait for what runs, but no longer than so many seconds."""
        self._closed = True
        if not self._running:
            return
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("not finished within %g s: %s", within, ", ".join(map(str, self._running)))

    async def run(self, reconcile: Reconcile) -> None:
        """Work until cancelled. What runs then is cancelled too: every reconcile may be cut anywhere."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._concurrency):
                workers.create_task(self._work(reconcile), name=f"reconcile-{number}")

    async def _work(self, reconcile: Reconcile) -> None:
        while True:
            await self._waiting.acquire()
            if self._closed:
                return
            key = self._begin()
            try:
                await self._reconcile(key, reconcile)
            finally:
                self._end(key)

    def _begin(self) -> Key:
        key = self._turns.take()
        self._gather_no_more(key)
        now = self._moved_at = self._loop.time()
        self._metrics.waiting.observe(now - self._ready.pop(key))
        self._running[key] = now
        self._busy[key.namespace] += 1
        if self._busy[key.namespace] == self._share:
            self._turns.pause(key.namespace)
        return key

    def _end(self, key: Key) -> None:
        now = self._moved_at = self._ended[key] = self._loop.time()
        self._ended.move_to_end(key)
        while now - next(iter(self._ended.values())) > self._gather:
            self._ended.popitem(last=False)
        del self._running[key]
        namespace = key.namespace
        if self._busy[namespace] == self._share:
            self._turns.resume(namespace)
        self._busy[namespace] -= 1
        if self._turns.waiting(namespace) >= self._share - self._busy[namespace]:
            self._waiting.release()
        if not self._busy[namespace]:
            del self._busy[namespace]
        match self._again.pop(key, None):
            case _Cause.CHILDREN:
                self.add_soon(key)
            case _Cause() as cause:
                self.add(key, asked=cause is _Cause.ASKED)
        if self._closed and not self._running:
            self._idle.set()

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
            self._not_before.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        finally:
            self._metrics.reconciles.labels(key.kind, outcome).inc()
            self._metrics.seconds.labels(key.kind).observe(self._loop.time() - started)

    def _failed(self, key: Key, error: Exception) -> None:
        failures = self._failures.get(key, 0)
        if not failures or key not in self._delayed:
            failures += (
                1  # else an event has asked for this try, before its time: it tells nothing about how long to wait
            )
        self._failures[key] = failures
        delay = self._backoff.delay(failures)
        fields = {"object": str(key), "failures": failures}
        if isinstance(error, TemporaryError):
            if error.delay:
                delay = max(delay, self._backoff.at_least(error.delay))
                self._not_before[key] = self._loop.time() + delay
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
