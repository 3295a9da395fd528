# SPDX-License-Identifier: Apache-2.0
"""A session from its start to its end: Valkey, the processes, an optional command, and the orderly stop."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent_runtime.cli import session
from agent_runtime.cli.dev import watchdog
from agent_runtime.cli.dev.gates import hold_to_manifest
from agent_runtime.cli.dev.manifests import Key
from agent_runtime.cli.dev.plan import HOST, Plan, Ports
from agent_runtime.cli.dev.process import FatalProcessError, Supervised, Surroundings, free_port, is_free
from agent_runtime.cli.dev.terminal import Terminal
from agent_runtime.cli.dev.valkey import PrivateValkey, lock_data_folder
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import SERVER_ENV
from agent_runtime.telemetry.logs import LOG_FORMAT_ENV, LOG_LEVEL_ENV
from kubeagents_api.endpoints import OWN_PORTS
from kubeagents_api.labels import HTTP_PORT, RESERVED_ENV_PREFIX

_PATIENCE_SECONDS = 10.0
"""After so long without all being ready, the user is told what is missing, again and again."""
_GATES_SECONDS = 2.0
"""How long the processes wait for queues to be paused and closed."""
_AFTER_DRAIN_SECONDS = 5.0
"""What a process gets on top of its drainSeconds before it is killed."""


@dataclass(frozen=True)
class Settings:
    """What the user chose."""

    paths: tuple[Path, ...]
    port: int | None
    data_dir: Path | None
    command: tuple[str, ...]
    """Run once all is ready; the session ends with it."""
    keep_running: bool
    """Go on after the command has succeeded."""


@dataclass(frozen=True)
class _End:
    """Why the session ends."""

    exit_code: int
    error: str | None = None


class Supervisor:
    """Runs one plan. Use once, inside an event loop."""

    def __init__(self, plan: Plan, settings: Settings, terminal: Terminal) -> None:
        self._plan = plan
        self._settings = settings
        self._terminal = terminal
        self._id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
        self._log_folder = session.log_folder(self._id)
        self._valkey: PrivateValkey | None = None
        self._command: Process | None = None
        self._listening: Mapping[str, Ports] = {}
        self._runners: dict[Supervised, asyncio.Task[None]] = {}
        self._end: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Run until Ctrl-C, the command's end or a fatal error; returns the exit code. Raises CliError."""
        ports = self._listening = self._ports()
        centrals = [
            session.CentralEntry(p.owner, p.namespace, f"http://{HOST}:{ports[p.name].http}")
            for p in self._plan.processes
            if p.kind == "CentralAgent"
        ]
        with contextlib.ExitStack() as cleanup:
            if self._settings.data_dir is not None:
                cleanup.enter_context(lock_data_folder(self._settings.data_dir))
            self._make_log_folder()
            cleanup.callback(session.SessionFile(self._describe(centrals)).remove)
            folder = Path(tempfile.mkdtemp(prefix="kubeagents-dev-"))
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            with self._signals():
                async with self._process_group(folder) as group:
                    end = await self._session(folder, group=group, ports=ports, centrals=centrals)
        if end.error is not None:
            raise CliError(end.error, exit_code=end.exit_code)
        return end.exit_code

    # What must be there before a process starts

    def _ports(self) -> dict[str, Ports]:
        """Where processes listen that people connect to, by process: URLs must not change when one starts again."""
        wanted = self._settings.port
        if wanted and not is_free(wanted):
            raise CliError(f"port {wanted} is taken: choose another with --port, or leave it out to get a free one")
        ports: dict[str, Ports] = {}
        taken: set[int] = set()

        def choose(preferred: int) -> int:
            port = preferred if preferred not in taken and is_free(preferred) else free_port()
            taken.add(port)
            return port

        for process in self._plan.processes:
            if process.endpoints:
                http = free_port() if wanted == 0 or ports else choose(wanted or HTTP_PORT)
                own = {
                    name: choose(port) if wanted != 0 else free_port()
                    for name, port in OWN_PORTS.items()
                    if name in process.endpoints
                }
                ports[process.name] = Ports(http, own)
        return ports

    def _make_log_folder(self) -> None:
        try:
            self._log_folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise CliError(
                f"cannot make the log folder {self._log_folder}: {error.strerror}; "
                "set XDG_STATE_HOME to a folder of yours"
            ) from error
        session.prune_logs(keep=self._id)

    def _describe(self, centrals: Sequence[session.CentralEntry]) -> session.Session:
        return session.Session(
            id=self._id,
            pid=os.getpid(),
            paths=tuple(str(path) for path in self._settings.paths),
            centrals=tuple(centrals),
            logs=tuple(
                session.LogEntry(p.owner, p.name, self._log_folder / f"{p.name}.log") for p in self._plan.processes
            ),
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._end.done():
            self._hurry.set()
        else:
            self._finish(_End(0))

    @asynccontextmanager
    async def _process_group(self, folder: Path) -> AsyncIterator[int]:
        """A process group that ends with this block, and with this process however it ends."""
        reading, writing = os.pipe()
        try:
            leader = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", watchdog.__file__, str(folder)),
                stdin=reading,
                stdout=DEVNULL,
                process_group=0,
            )
        finally:
            os.close(reading)
        watch = asyncio.create_task(self._end_with(leader.wait, "the watchdog of the session was killed"))
        try:
            yield leader.pid
        finally:
            watch.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            os.close(writing)
            await leader.wait()

    # The session

    async def _session(
        self, folder: Path, *, group: int, ports: Mapping[str, Ports], centrals: Sequence[session.CentralEntry]
    ) -> _End:
        around = Surroundings(
            folder=folder,
            log_folder=self._log_folder,
            group=group,
            environment=_environment(),
            suffix=secrets.token_hex(3),
            warn=self._terminal.warn,
            show=self._terminal.line,
        )
        for note in self._plan.notes:
            self._terminal.warn(note)
        async with asyncio.TaskGroup() as tasks:
            if self._plan.needs_valkey:
                self._valkey = await self._start_valkey(folder, group=group)
                lost = f"the private {self._valkey.name} has ended, and its tasks with it; {self._valkey.log_path}"
                valkey_watch = tasks.create_task(self._end_with(self._valkey.ended, lost))
            gates = await self._hold_gates(tasks)
            code = self._write_code(folder)
            for plan in self._plan.processes:
                process = Supervised(
                    plan,
                    around,
                    ports=ports.get(plan.name),
                    env={f"KUBEAGENTS_QUEUE_{i}_URL": self._url(key) for i, key in enumerate(plan.queues)},
                    code=code[plan.code] if plan.code else None,
                )
                self._runners[process] = tasks.create_task(self._keep(process))
            main = tasks.create_task(self._main(centrals, group=group))
            end = await self._end
            main.cancel()
            for gate in gates:
                gate.cancel()
            await self._stop()
            if self._valkey is not None:
                valkey_watch.cancel()
                await self._valkey.stop()
        return end

    async def _hold_gates(self, tasks: asyncio.TaskGroup) -> list["asyncio.Task[None]"]:
        """Before anybody takes a task from them, queues are paused and closed as their manifests say.

        A Redis of somebody else's may be away: its queues follow once it answers.
        """
        holding = [
            tasks.create_task(hold_to_manifest(queue, url=self._url(key), warn=self._terminal.warn))
            for key, queue in self._plan.queues.items()
        ]
        await asyncio.wait(holding, timeout=_GATES_SECONDS)
        return holding

    async def _start_valkey(self, folder: Path, *, group: int) -> PrivateValkey:
        data = self._settings.data_dir or folder / "valkey"
        data.mkdir(exist_ok=True)
        return await PrivateValkey.start(
            folder=data.resolve(),
            log_path=self._log_folder / "valkey.log",
            group=group,
            durable=self._settings.data_dir is not None,
        )

    def _url(self, queue: Key) -> str:
        external = self._plan.queues[queue].external_url
        if external is not None:
            return external
        assert self._valkey is not None  # noqa: S101 - see Plan.needs_valkey
        return self._valkey.url

    def _write_code(self, folder: Path) -> dict[Key, Path]:
        """The ConfigMaps with code, as folders: the same files that a pod has under /agent/code."""
        folders: dict[Key, Path] = {}
        for (namespace, name), data in self._plan.code.items():
            target = folder / "code" / namespace / name
            target.mkdir(parents=True)
            for key, content in data.content.items():
                (target / key).write_bytes(content)
            folders[namespace, name] = target
        return folders

    async def _keep(self, process: Supervised) -> None:
        try:
            await process.run()
        except FatalProcessError as error:
            self._finish(_End(1, str(error)))

    async def _end_with(self, ended: Callable[[], Awaitable[object]], why: str) -> None:
        await ended()
        self._finish(_End(1, why))

    def _finish(self, end: _End) -> None:
        if not self._end.done():
            self._end.set_result(end)

    async def _main(self, centrals: Sequence[session.CentralEntry], *, group: int) -> None:
        """What happens while all goes well."""
        begun = time.monotonic()
        with self._terminal.waiting(f"starting {len(self._runners)} processes"):
            while not all(process.ready.is_set() for process in self._runners):
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        await asyncio.gather(*(process.ready.wait() for process in self._runners))
                except TimeoutError:
                    waiting = [p for p in self._runners if not p.ready.is_set()]
                    reasons = "; ".join(f"{p.plan.name}: {p.not_ready_because}" for p in waiting)
                    self._terminal.warn(f"not ready after {time.monotonic() - begun:.0f} s: {reasons}")
        self._terminal.overview(
            self._plan,
            centrals=centrals,
            ports=self._listening,
            redis=f"private {self._valkey.name}" if self._valkey else "",
            log_folder=self._log_folder,
            data_folder=self._settings.data_dir if self._plan.needs_valkey else None,
        )
        if self._settings.command:
            await self._run_command(centrals, group=group)

    async def _run_command(self, centrals: Sequence[session.CentralEntry], *, group: int) -> None:
        server = {SERVER_ENV: centrals[0].url} if centrals else {}
        self._command = await asyncio.create_subprocess_exec(
            *self._settings.command, env={**os.environ, **server}, stdin=DEVNULL, process_group=group
        )
        code = await self._command.wait()
        if code != 0:
            self._finish(_End(code if code > 0 else 128 - code, f"the command ended with exit code {code}"))
        elif self._settings.keep_running:
            self._terminal.quiet = False
            where = f" at {centrals[0].url}" if centrals else ""
            self._terminal.say(f"the agents keep running{where}; Ctrl-C stops them")
        else:
            self._finish(_End(0))

    # The end

    async def _stop(self) -> None:
        """Agents first, so that what they finish can still be read; then the CentralAgents."""
        self._terminal.say("stopping: the agents finish what they run (Ctrl-C again stops at once)")
        if self._command is not None and self._command.returncode is None:
            self._command.terminate()
        for kind in ("Agent", "CentralAgent"):
            await self._stop_all([process for process in self._runners if process.plan.kind == kind])

    async def _stop_all(self, processes: Sequence[Supervised]) -> None:
        if not processes:
            return
        for process in processes:
            process.terminate()
        gone = asyncio.create_task(asyncio.wait([self._runners[process] for process in processes]))
        hurry = asyncio.create_task(self._hurry.wait())
        limit = max(process.plan.drain_seconds for process in processes) + _AFTER_DRAIN_SECONDS
        await asyncio.wait([gone, hurry], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not gone.done():
            if not self._hurry.is_set():
                self._terminal.warn(f"not stopped within {limit:g} s: ending it the hard way")
            for process in processes:
                process.kill()
            await gone


def _environment() -> dict[str, str]:
    """What the processes inherit: this process's environment, without what is meant for other runtime processes."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(RESERVED_ENV_PREFIX)}
    chosen = {key: os.environ[key] for key in (LOG_FORMAT_ENV, LOG_LEVEL_ENV) if key in os.environ}
    return {**inherited, LOG_FORMAT_ENV: "text", **chosen}
