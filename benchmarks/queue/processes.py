# SPDX-License-Identifier: Apache-2.0
"""The server, the contenders' programs, and what can be seen of them from outside."""

import json
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.queue.contenders import Contender
from benchmarks.queue.environments import ROOT, ContenderError, Environment
from benchmarks.queue.peers.contract import TALLY, URL, WARM_UP
from tests.support.redis_server import RedisServer, binaries

LOOK_SECONDS = 0.003
"""Between two looks at the workers' counts."""
PATIENCE_SECONDS = 60.0
"""Without any progress for this long, a contender has failed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the server had done by a moment."""

    at: float
    commands: int
    """Those inside of scripts too."""
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Between two snapshots."""

    seconds: float
    commands: int
    cpu_seconds: float

    @classmethod
    def between(cls, begin: Snapshot, end: Snapshot) -> Self:
        return cls(end.at - begin.at, end.commands - begin.commands, end.cpu_seconds - begin.cpu_seconds)


@contextmanager
def server(*, append_only: bool = False) -> Iterator[RedisServer]:
    """A private server: `redis-server` from PATH, else the Valkey that came with the Python packages."""
    found = binaries()
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        binary = found.get("redis") or found["valkey"]
        with RedisServer(binary=binary, folder=Path(folder), append_only=append_only) as running:
            yield running


def snapshot(client: Any) -> Snapshot:
    """Look at the server's own figures, whose reading costs it three commands."""
    at = time.monotonic()
    info = client.info("cpu")
    calls = sum(figures["calls"] for figures in client.info("commandstats").values())
    return Snapshot(at, calls, info["used_cpu_user"] + info["used_cpu_sys"])


@dataclass
class Workers:
    """Worker processes of a contender that run."""

    contender: Contender
    process: subprocess.Popen[bytes]
    tally: Path
    log: Path
    _files: dict[str, int] = field(default_factory=dict)

    def counts(self) -> list[int]:
        """How many tasks each process that has begun any has begun."""
        for entry in os.scandir(self.tally):
            if entry.name.endswith(".count") and entry.name not in self._files:
                self._files[entry.name] = os.open(entry.path, os.O_RDONLY)
        cells = (os.pread(file, 8, 0) for file in self._files.values())
        return [count for cell in cells if len(cell) == 8 and (count := struct.unpack("Q", cell)[0])]

    def delays(self) -> list[float]:
        """Seconds that each task with a time had waited."""
        return [
            seconds
            for path in sorted(self.tally.glob("*.delays"))
            for (seconds,) in struct.iter_unpack("d", path.read_bytes())
        ]

    def wait(self, reached: Callable[[list[int]], bool], *, what: str) -> list[int]:
        """Look until the counts are as wished, and return them. Raises ContenderError if they stop growing."""
        seen, moved_at = -1, time.monotonic()
        while not reached(counts := self.counts()):
            if sum(counts) > seen:
                seen, moved_at = sum(counts), time.monotonic()
            if time.monotonic() - moved_at > PATIENCE_SECONDS:
                raise ContenderError(f"waited {PATIENCE_SECONDS:.0f} s for {what}, counts are {counts}: {self.said()}")
            if self.process.poll() is not None:
                raise ContenderError(f"the worker has ended: {self.said()}")
            time.sleep(LOOK_SECONDS)
        return counts

    def settled(self, client: Any) -> None:
        """Wait until nothing is left that was not acknowledged."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left := self.contender.outstanding(client):
            if time.monotonic() > deadline:
                raise ContenderError(f"{left} tasks are not acknowledged after {PATIENCE_SECONDS:.0f} s: {self.said()}")
            time.sleep(LOOK_SECONDS)

    def said(self) -> str:
        """The end of what they have logged."""
        return self.log.read_text(encoding="utf-8", errors="replace").strip()[-500:] or "(no output)"


@dataclass(frozen=True)
class Program:
    """A contender's program on a server."""

    contender: Contender
    environment: Environment
    server: RedisServer

    def feed(self, command: str, *, tasks: int, **options: float) -> dict[str, Any]:
        """Have it submit tasks; WARM_UP more than these are in the queue afterwards."""
        with self.feeding(command, tasks=tasks, **options) as process:
            return self.fed(process)

    @contextmanager
    def feeding(self, command: str, *, tasks: int, **options: float) -> Iterator[subprocess.Popen[str]]:
        """The same, while something else is done."""
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        with subprocess.Popen(
            [*self.environment.command, command, "--tasks", str(tasks), *arguments],
            cwd=ROOT,
            env=self._variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def fed(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What it says when it is done."""
        try:
            out, errors = process.communicate(timeout=2 * PATIENCE_SECONDS)
            figures: dict[str, Any] = json.loads(out.strip().rpartition("\n")[2])
        except (subprocess.TimeoutExpired, ValueError) as error:
            process.kill()
            raise ContenderError(
                f"submitting failed: {errors.strip()[-500:] if 'errors' in locals() else error}"
            ) from error
        return figures

    @contextmanager
    def workers(self, count: int) -> Iterator[Workers]:
        """Start so many worker processes; leaving kills them, with all that they have started."""
        with tempfile.TemporaryDirectory(prefix="bench-tally-") as folder:
            tally, log = Path(folder) / "tally", Path(folder) / "log"
            tally.mkdir()
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*self.environment.command, "work", "--workers", str(count)],
                    cwd=ROOT,
                    env={**self._variables(), TALLY: str(tally)},
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            try:
                yield Workers(self.contender, process, tally, log)
            finally:
                _end(process)

    def _variables(self) -> dict[str, str]:
        return {**os.environ, URL: self.server.url, "PYTHONPATH": ""}

    def ready(self, workers: Workers, client: Any) -> None:
        """Wait until the workers have done a few tasks."""
        tasks = 50
        self.feed("each", tasks=tasks)
        workers.wait(lambda counts: sum(counts) >= tasks + WARM_UP, what="the first tasks")
        workers.settled(client)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session, and all that is left in it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
