# SPDX-License-Identifier: Apache-2.0
"""A master, two replicas, and three Sentinels that make one of these the master when the master is gone."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis

from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, free_ports

MASTER_NAME = "main"
DOWN_AFTER_MS = 1000
"""How long a master must be silent until it counts as gone."""


@dataclass
class Sentinels:
    """Three Sentinel processes and the servers that they look after."""

    binary: Path
    folder: Path
    """Where their files go. Must exist."""
    master: RedisServer
    replicas: list[RedisServer]
    settings: tuple[str, ...] = ()
    """Further lines of the Sentinels' configuration."""
    ports: list[int] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For clients."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{MASTER_NAME}"

    def client(self, port: int) -> redis.Redis:
        """A client of one Sentinel."""
        return redis.Redis(host="127.0.0.1", port=port, decode_responses=True, protocol=2)

    def start(self) -> None:
        """Start the Sentinels, and wait until each knows the replicas and the others."""
        self.ports = free_ports(3)
        for number, port in enumerate(self.ports):
            folder = self.folder / f"sentinel-{number}"
            folder.mkdir()
            config = folder / "sentinel.conf"
            lines = [
                "bind 127.0.0.1",
                f"port {port}",
                f"dir {folder}",
                f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.master.port} 2",
                f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER_NAME} 5000",
            ]
            config.write_text("\n".join([*lines, *self.settings]) + "\n")
            with (folder / "sentinel.log").open("w") as log:
                self.processes.append(subprocess.Popen([self.binary, config, "--sentinel"], stdout=log, stderr=log))
        for port in self.ports:
            eventually(partial(self._hastened, port), what=f"Sentinel {port} is up")
        for port in self.ports:
            eventually(partial(self._ready, port), what=f"Sentinel {port} knows all")

    def _hastened(self, port: int) -> bool:
        """Whether the Sentinel has been told to get to know the others faster than in seconds."""
        try:
            with self.client(port) as client:
                client.execute_command("SENTINEL", "DEBUG", "PUBLISH-PERIOD", 200, "INFO-PERIOD", 500)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise AssertionError(f"not yet: {error}") from error
        return True

    def _ready(self, port: int) -> bool:
        with self.client(port) as client:
            (about,) = client.execute_command("SENTINEL", "MASTERS")
        facts = about if isinstance(about, dict) else dict(zip(about[::2], about[1::2], strict=True))
        assert str(facts["num-slaves"]) == str(len(self.replicas)), facts
        assert str(facts["num-other-sentinels"]) == "2", facts
        return True

    def stop(self) -> None:
        """End the Sentinels."""
        for process in self.processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def sentinels(binary: Path, folder: Path, *, settings: tuple[str, ...] = ()) -> Iterator[Sentinels]:
    """Three servers and three Sentinels, ready for a failover."""
    folders = [folder / name for name in ("first", "second", "third")]
    for each in folders:
        each.mkdir()
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(RedisServer(binary, folders[0], append_only=True))
        following = (f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
        replicas = [
            stack.enter_context(RedisServer(binary, each, append_only=True, settings=following)) for each in folders[1:]
        ]
        for replica in replicas:
            eventually(partial(replicates, replica), what="the replica follows the master")
        trio = Sentinels(binary, folder, master, replicas, settings)
        stack.callback(trio.stop)
        trio.start()
        yield trio


def role(server: RedisServer) -> str:
    """`master` or `slave`."""
    with server.client() as client:
        about = client.info("replication")
    assert isinstance(about, dict)
    return str(about["role"])


def replicates(replica: RedisServer) -> bool:
    """Whether the server is a replica that has all that its master has."""
    with replica.client() as client:
        about = client.info("replication")
    assert isinstance(about, dict)
    return bool(about["role"] == "slave" and about["master_link_status"] == "up")
