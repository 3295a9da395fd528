# SPDX-License-Identifier: Apache-2.0
"""The command line that every contender's program has, and how its handler counts.

    each        submit one task after the other, each waited for
    bulk        submit many: by the bulk call where there is one, else with IN_FLIGHT calls at the same time where
                there is asyncio, else as `each`
    concurrent  submit many, each by a call of its own, so many at the same time
    steady      submit so many each second, whatever the queue does (open loop)
    work        be so many worker processes until killed

The first four print one JSON object. Standard library only: this is imported into every environment.
"""

import argparse
import asyncio
import importlib
import json
import mmap
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

URL = "BENCH_REDIS_URL"
TALLY = "BENCH_TALLY"
"""Environment variable: the folder where handlers count."""
PAYLOAD_BYTES = 100
PLAIN = "x"
"""The first character of a payload without time."""
BATCH = 1000
"""Tasks in one call of a bulk API."""
BATCH_BYTES = 4_000_000
"""Payloads in one such call: fewer tasks if they are large."""
IN_FLIGHT = 100
WARM_UP = 200


def plain(size: int = PAYLOAD_BYTES) -> str:
    """A payload for throughput."""
    return PLAIN * size


def stamped() -> str:
    """A payload that says when it was submitted. The clock is the machine's, the same in all processes."""
    return f"{time.monotonic():020.6f}".ljust(PAYLOAD_BYTES, PLAIN)


class _Tally:
    """Tasks begun by this process, and how long those with a time had waited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = 0

    def begun(self, payload: str) -> int:
        """Called by every handler, first and only; returns the task's result."""
        now = time.monotonic()
        with self._lock:
            if self._process != os.getpid():  # worker processes may be forks of one that has counted
                self._open()
            self._count[0] += 1
            if payload[0] != PLAIN:
                os.write(self._delays, struct.pack("d", now - float(payload[:20])))
        return 1

    def _open(self) -> None:
        self._process = os.getpid()
        folder = Path(os.environ[TALLY])
        with (folder / f"{self._process}.count").open("wb+") as file:
            file.write(bytes(8))
            file.flush()
            self._count = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        self._delays = os.open(folder / f"{self._process}.delays", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


begun: Callable[[str], int] = _Tally().begun


class AsyncProducer(Protocol):
    """How a peer with asyncio is fed."""

    async def start(self) -> None:
        """Connect, if that does not happen by itself."""

    async def one(self, payload: str) -> Any: ...

    async def many(self, payloads: Sequence[str]) -> Any:
        """Up to BATCH tasks by one call of the bulk API. Raises NotImplementedError if it has none."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect, if the end of the process is not enough."""


class SyncProducer(Protocol):
    """How a peer without asyncio is fed."""

    def one(self, payload: str) -> Any: ...


def main(
    packages: Sequence[str],
    *,
    work: Callable[[str, int], None],
    sync: Callable[[str], SyncProducer] | None = None,
    asynchronous: Callable[[str], AsyncProducer] | None = None,
) -> None:
    """Be the program of a peer. `packages` are those whose versions are reported, the peer's first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["each", "bulk", "concurrent", "steady", "work"])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--payload", type=int, default=PAYLOAD_BYTES, help="bytes")
    parser.add_argument("--rate", type=float, default=500.0, help="tasks per second")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    url = os.environ[URL]
    if arguments.command == "work":
        work(url, arguments.workers)
        return
    if asynchronous is not None:
        figures = _run(_feed_async(asynchronous(url), arguments))
    else:
        assert sync is not None
        figures = _feed_sync(sync(url), arguments)
    versions = {package: version(package) for package in packages} | {"python": platform.python_version()}
    print(json.dumps({**figures, "tasks": arguments.tasks, "versions": versions}))


def _run(running: Awaitable[dict[str, float]]) -> dict[str, float]:
    async def awaited() -> dict[str, float]:
        return await running

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(awaited())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop, in the environments that have it."""
    with suppress(ImportError):
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return factory
    return None


async def _feed_async(producer: AsyncProducer, arguments: argparse.Namespace) -> dict[str, float]:
    await producer.start()
    try:
        return await _feed(producer, arguments)
    finally:
        await producer.close()


async def _feed(producer: AsyncProducer, arguments: argparse.Namespace) -> dict[str, float]:
    payload = plain(arguments.payload)
    for _ in range(WARM_UP):
        await producer.one(payload)
    begun_at = time.monotonic()
    if arguments.command == "steady":
        await _steady(producer, tasks=arguments.tasks, rate=arguments.rate)
    elif arguments.command == "each":
        for _ in range(arguments.tasks):
            await producer.one(payload)
    elif arguments.command == "bulk":
        try:
            for count in _batches(arguments.tasks, size=arguments.payload):
                await producer.many([payload] * count)
        except NotImplementedError:
            await _in_flight(producer, payload, tasks=arguments.tasks, width=IN_FLIGHT)
    else:
        await _in_flight(producer, payload, tasks=arguments.tasks, width=arguments.in_flight)
    return {"begun_at": begun_at, "seconds": time.monotonic() - begun_at}


async def _in_flight(producer: AsyncProducer, payload: str, *, tasks: int, width: int) -> None:
    left = iter(range(tasks))

    async def submit() -> None:
        for _ in left:
            await producer.one(payload)

    await asyncio.gather(*(submit() for _ in range(width)))


async def _steady(producer: AsyncProducer, *, tasks: int, rate: float) -> None:
    async def submit() -> None:
        await producer.one(stamped())

    begun_at = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            await asyncio.sleep(max(0.0, begun_at + number / rate - time.monotonic()))
            group.create_task(submit())


def _feed_sync(producer: SyncProducer, arguments: argparse.Namespace) -> dict[str, float]:
    payload = plain(arguments.payload)
    for _ in range(WARM_UP):
        producer.one(payload)
    begun_at = time.monotonic()
    if arguments.command == "steady":
        for number in range(arguments.tasks):
            time.sleep(max(0.0, begun_at + number / arguments.rate - time.monotonic()))
            producer.one(stamped())
    else:
        # Threads share one interpreter lock: with several of them it takes longer.
        for _ in range(arguments.tasks):
            producer.one(payload)
    return {"begun_at": begun_at, "seconds": time.monotonic() - begun_at}


def _batches(tasks: int, *, size: int) -> Iterator[int]:
    most = max(1, min(BATCH, BATCH_BYTES // size))
    while tasks > 0:
        yield min(tasks, most)
        tasks -= most


def processes(count: int, target: Callable[[], None]) -> None:
    """Be `count` worker processes, for a peer whose own command starts only one."""
    for _ in range(count - 1):
        if os.fork() == 0:
            target()
            os._exit(0)
    target()


def become(*command: str) -> None:
    """Be the peer's own command, a module of its environment."""
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606 - that is what it is for
