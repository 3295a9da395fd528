# SPDX-License-Identifier: Apache-2.0
"""The time of a queue in memory, and who sleeps until something happens or a time has come."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

Clock = Callable[[], float]
"""Seconds since 1970."""
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that stands still until it is moved, for tests that must not wait.

    Every time of a queue that has it follows it: delays, leases, deadlines, rates, how long results are kept, and how
    long a call such as `claim` or `wait` waits. So a call that waits returns once there is something, or once the
    clock has been moved far enough, and not by itself.
    """

    def __init__(self, start: datetime = START) -> None:
        self._micros = round(start.timestamp() * 1_000_000)
        self._signals: weakref.WeakSet[Signal] = weakref.WeakSet()

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._micros / 1_000_000

    def now(self) -> datetime:
        """The same as a datetime, in UTC: for deadlines and the like."""
        return datetime.fromtimestamp(self(), UTC)

    def advance(self, seconds: float) -> None:
        """Move the clock. Who waits for a time looks again as soon as the event loop gets to it.

        Raises ValueError for a negative number: time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: time does not run backwards")
        self._micros += round(seconds * 1_000_000)
        for signal in list(self._signals):
            signal.ring()

    def attach(self, signal: "Signal") -> None:
        """Ring the signal whenever the clock moves."""
        self._signals.add(signal)


class Signal:
    """What sleepers wait for. Ringing wakes all of them, in the order in which they fell asleep."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleepers: dict[asyncio.Future[None], None] = {}
        if isinstance(clock, ManualClock):
            clock.attach(self)

    def ring(self) -> None:
        """Something has happened."""
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def wait(self, until: float | None = None) -> None:
        """Sleep until it rings, or until that time, in seconds since 1970. May wake for nothing: look, wait again."""
        seconds = None
        if until is not None and not isinstance(self._clock, ManualClock):
            seconds = max(0.0, until - self._clock())
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers[sleeper] = None
        try:
            async with asyncio.timeout(seconds):
                await sleeper
        except TimeoutError:
            pass  # the time has come
        finally:
            del self._sleepers[sleeper]


class Signals:
    """Signals by name: who waits for news of one task is not woken by those of others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_name: dict[str, set[Signal]] = {}

    @contextlib.contextmanager
    def of(self, names: Iterable[str]) -> Iterator[Signal]:
        """A signal that is rung with any of the names, to the end of the block."""
        signal = Signal(self._clock)
        watched = set(names)
        for name in watched:
            self._by_name.setdefault(name, set()).add(signal)
        try:
            yield signal
        finally:
            for name in watched:
                signals = self._by_name[name]
                signals.discard(signal)
                if not signals:
                    del self._by_name[name]

    def ring(self, name: str) -> None:
        """Something has happened to what has this name."""
        for signal in self._by_name.get(name, ()):
            signal.ring()
