# SPDX-License-Identifier: Apache-2.0
"""One supervised process: started, watched until it is ready, started again when it ends, stopped in order."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from agent_runtime.cli.dev.plan import HOST, Ports, ProcessPlan
from kubeagents_api.labels import CONFIG_ENV, INSTANCE_ENV, TERMINATION_LOG_ENV
from kubeagents_api.runtime_config import render

if TYPE_CHECKING:
    import httpx

EXIT_FATAL = 78
"""Exit code of a runtime process whose configuration can never work (EX_CONFIG)."""

_PORTS = range(20000, 32768)
_TRIES = 100
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 30.0
"""A process that ran so long has earned a quick restart again."""
_PROBE_SECONDS = 0.1
_PIPE_SECONDS = 1.0
"""How long the output of an ended process is still read; something it started may hold the pipe open."""
_LONGEST_LINE = 256 * 1024

LineSink = Callable[[str, str], None]
"""Takes the process's name and one line of its output."""


class FatalProcessError(Exception):
    """A process has said that it can never work. The text is what it said."""


@dataclass(frozen=True)
class Surroundings:
    """What all processes of a session share."""

    folder: Path
    """Temporary folder of the session: configurations and termination messages."""
    log_folder: Path
    group: int
    """Process group that they belong to."""
    environment: Mapping[str, str]
    suffix: str
    """Makes instance names unique among sessions that share an external Redis."""
    warn: Callable[[str], None]
    """Tells the user what has gone wrong."""
    show: LineSink
    """Shows a line of a process's output."""


class Supervised:
    """A process of the plan, kept running until it is stopped."""

    def __init__(
        self,
        plan: ProcessPlan,
        surroundings: Surroundings,
        *,
        ports: Ports | None,
        env: Mapping[str, str],
        code: Path | None,
    ) -> None:
        """`ports`: None takes a free one at each start."""
        self.plan = plan
        self.ready = asyncio.Event()
        self.not_ready_because = "not started yet"
        self._around = surroundings
        self._ports = ports
        self._env = env
        self._code = code
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._config = surroundings.folder / f"{plan.name}.json"
        self._termination = surroundings.folder / f"{plan.name}.termination"

    @property
    def log_path(self) -> Path:
        """Where its output is kept."""
        return self._around.log_folder / f"{self.plan.name}.log"

    async def run(self) -> None:
        """Keep the process running until `stop`. Raises FatalProcessError."""
        backoff = _FIRST_BACKOFF_SECONDS
        with self.log_path.open("ab") as log:
            while not self._stopping.is_set():
                begun = time.monotonic()
                code = await self._run_once(log)
                if self._stopping.is_set():
                    return
                lasted = time.monotonic() - begun
                if code == EXIT_FATAL and not self._lost_its_port():
                    raise FatalProcessError(self._last_words())
                if lasted > _STABLE_SECONDS:
                    backoff = _FIRST_BACKOFF_SECONDS
                self._around.warn(
                    f"{self.plan.name} {_described(code)} after {lasted:.1f} s; starting it again in {backoff:g} s"
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    def terminate(self) -> None:
        """Ask it to finish what it does; it is not started again."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run_once(self, log: BinaryIO) -> int:
        ports = self._ports or Ports(free_port())
        self._config.write_text(render(self.plan.config(ports, str(self._code) if self._code else None)))
        self._termination.unlink(missing_ok=True)
        self.not_ready_because = "starting"
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent_runtime",
            env={
                **self._around.environment,
                **self.plan.env,
                **self._env,
                CONFIG_ENV: str(self._config),
                INSTANCE_ENV: f"{self.plan.name}-{self._around.suffix}",
                TERMINATION_LOG_ENV: str(self._termination),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            process_group=self._around.group,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        copy = asyncio.create_task(
            copy_output(process.stdout, log, lambda line: self._around.show(self.plan.name, line))
        )
        probe = asyncio.create_task(self._watch_ready(ports.http))
        try:
            if self._stopping.is_set():  # stopped between the decision and the start
                self._signal(signal.SIGTERM)
            code = await process.wait()
            await asyncio.wait([copy], timeout=_PIPE_SECONDS)
            return code
        finally:
            self.ready.clear()
            probe.cancel()
            copy.cancel()
            await asyncio.gather(probe, copy, return_exceptions=True)

    async def _watch_ready(self, port: int) -> None:
        import httpx

        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=5.0, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get("/readyz")
                except httpx.HTTPError:
                    self.not_ready_because = "it does not listen yet"
                else:
                    if answer.is_success:
                        self.ready.set()
                        return
                    self.not_ready_because = _troubles(answer)
                await asyncio.sleep(_PROBE_SECONDS)

    def _lost_its_port(self) -> bool:
        """Whether somebody else was faster. The next start takes another port, if it need not be this one."""
        return self._ports is None and "Address already in use" in self._last_words()

    def _last_words(self) -> str:
        try:
            said = json.loads(self._termination.read_text())
            return f'{self.plan.kind} "{self.plan.owner}" cannot run: {said["message"]} ({said["reason"]})'
        except (OSError, ValueError, KeyError, TypeError):
            return f'{self.plan.kind} "{self.plan.owner}" cannot run; its log says why: {self.log_path}'


async def copy_output(source: asyncio.StreamReader, log: BinaryIO, show: Callable[[str], None]) -> None:
    """Copy a process's output to its log file and, line by line, to the terminal."""
    rest = b""
    while chunk := await source.read(65536):
        log.write(chunk)
        log.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            show(line.decode(errors="replace"))
    if rest:
        show(rest.decode(errors="replace"))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on right now.

    It is not one of those that the system gives to connections, which come and go: it would often be taken by the time
    that a process listens. Any of those only where all others are taken.
    """
    for port in random.sample(_PORTS, k=_TRIES):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _troubles(answer: "httpx.Response") -> str:
    """What a process that is not ready says about it."""
    try:
        checks = answer.json()["checks"]
        return ", ".join(f"{name}: {trouble}" for name, trouble in checks.items() if trouble != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"/readyz answers {answer.status_code}"


def _described(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
