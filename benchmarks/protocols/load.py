# SPDX-License-Identifier: Apache-2.0
"""The client's process: `python -m benchmarks.protocols.load`, told as JSON on standard input, answers as JSON.

Either each connection has always one exchange under way, or exchanges begin at a steady rate.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks.protocols.exchanges import EXCHANGES, WIRES, Exchange
from benchmarks.protocols.wires import Connection

OPEN_CONNECTIONS = 64
"""For a steady rate."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do."""

    wire: str
    exchange: str
    port: int
    seconds: float
    connections: int = 1
    per_second: float = 0.0
    """A steady rate; 0: as fast as it goes."""
    key: str | None = None


class Caller:
    """A connection, and the exchange that is under way on it."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._running: Generator[bytes, bytes, None] | None = None
        self._begun = 0.0
        self.connection: Connection | None = None

    def begin(self, exchange: Exchange, number: int, at: float) -> None:
        """Begin an exchange that was due then."""
        assert self.connection is not None
        self._begun = at
        self._running = exchange(number)
        self.connection.send(next(self._running))

    def answered(self, body: bytes) -> None:
        """Go on with the exchange, or tell that it has ended."""
        assert self._running is not None
        assert self.connection is not None
        try:
            request = self._running.send(body)
        except StopIteration:
            self._running = None
            self._load.ended(self, time.perf_counter() - self._begun)
        else:
            self.connection.send(request)


class Load:
    """All connections."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._exchange = EXCHANGES[order.exchange]
        self._seconds: list[float] = []
        self._number = 0
        self._until = 0.0
        self._idle: list[Caller] = []
        self._due: deque[float] = deque()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy = 0

    async def run(self) -> dict[str, Any]:
        """Do it. Raises RuntimeError at the first answer that is an error."""
        wire = WIRES[self._order.wire]
        count = OPEN_CONNECTIONS if self._order.per_second else self._order.connections
        callers = [Caller(self) for _ in range(count)]
        for caller in callers:
            caller.connection = await wire.open(
                port=self._order.port, key=self._order.key, answered=caller.answered, failed=self._failed
            )
        before = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.perf_counter()
        self._until = begun + self._order.seconds
        if self._order.per_second:
            self._idle = callers
            await self._steadily(begun)
        else:
            for caller in callers:
                self._begin(caller, time.perf_counter())
        async with asyncio.timeout(self._order.seconds + 60):
            await self._done
        took = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
        for caller in callers:
            if caller.connection is not None:
                caller.connection.close()
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return figures(self._seconds, took=took) | {"client_core_share": round(used / took, 3)}

    def ended(self, caller: Caller, seconds: float) -> None:
        """An exchange has ended."""
        self._seconds.append(seconds)
        self._busy -= 1
        now = time.perf_counter()
        if self._order.per_second:
            if self._due:
                self._begin(caller, self._due.popleft())
            else:
                self._idle.append(caller)
        elif now < self._until:
            self._begin(caller, now)
        if not self._busy and now >= self._until and not self._done.done():
            self._done.set_result(None)

    def _begin(self, caller: Caller, at: float) -> None:
        self._number += 1
        self._busy += 1
        caller.begin(self._exchange, self._number, at)

    async def _steadily(self, begun: float) -> None:
        for number in range(int(self._order.seconds * self._order.per_second)):
            due = begun + number / self._order.per_second
            await asyncio.sleep(due - time.perf_counter())
            if self._done.done():
                return
            if self._idle:
                self._begin(self._idle.pop(), due)
            else:
                self._due.append(due)
        self._until = 0.0
        if not self._busy and not self._done.done():
            self._done.set_result(None)

    def _failed(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"{self._order.exchange}: {why}"))


def figures(seconds: list[float], *, took: float) -> dict[str, Any]:
    """Rate and latencies."""
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {
        "exchanges": len(seconds),
        "per_second": round(len(seconds) / took, 1),
        "p50_ms": round(cuts[49] * 1000, 3),
        "p99_ms": round(cuts[98] * 1000, 3),
    }


async def _main(order: Order) -> dict[str, Any]:
    return await Load(order).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_main(Order(**json.load(sys.stdin))))))
