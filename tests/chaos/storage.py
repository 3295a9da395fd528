# SPDX-License-Identifier: Apache-2.0
"""What holds the queue of a round, with the settings that the promises need."""

from pathlib import Path
from typing import Final, Protocol

from tests.support.eventually import eventually
from tests.support.redis_sentinels import MASTER_NAME, Sentinels, replicates, sentinels
from tests.support.redis_server import RedisServer

DURABLE: Final = ("appendfsync always", "auto-aof-rewrite-percentage 100", "auto-aof-rewrite-min-size 4mb")
"""What is needed so that a crash loses nothing that was acknowledged: the answer leaves after the append-only file is
written. With `everysec` Redis puts off writing while the disk is busy, and answers all the same. It compacts the file
early, so that some crashes meet it in the midst of that."""
WELL_SECONDS: Final = 60.0
"""Within this time a failover is over. It takes two or three seconds on an idle machine."""


class Storage(Protocol):
    """One or several servers. A context manager: entering starts them, leaving kills them."""

    @property
    def url(self) -> str:
        """For clients."""
        ...

    @property
    def server(self) -> RedisServer:
        """The one in charge."""
        ...

    def heal(self) -> None:
        """Return when all is well again: nothing is down or frozen."""
        ...

    def __enter__(self) -> "Storage": ...

    def __exit__(self, *_: object) -> None: ...


class Alone:
    """One server with an append-only file."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.server = RedisServer(binary, folder, append_only=True, settings=DURABLE)

    @property
    def url(self) -> str:
        """See Storage.url."""
        return self.server.url

    def heal(self) -> None:
        """See Storage.heal."""
        assert self.server.process is not None
        if self.server.process.poll() is not None:
            self.server.start()
        self.server.thaw()

    def __enter__(self) -> "Alone":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()


class Replicated:
    """A master, two replicas and three Sentinels.

    Replication is asynchronous: a master may die with what it has acknowledged. So clients wait for both replicas
    before they believe in an answer. One would not be enough, as Sentinels may choose the other one. While a server is
    away, nothing is acknowledged.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self._sentinels = sentinels(binary, folder)
        self._trio: Sentinels | None = None

    @property
    def trio(self) -> Sentinels:
        """Servers and Sentinels."""
        assert self._trio is not None, "not started"
        return self._trio

    @property
    def servers(self) -> list[RedisServer]:
        """All three."""
        return [self.trio.master, *self.trio.replicas]

    @property
    def url(self) -> str:
        """See Storage.url."""
        return f"{self.trio.url}?wait_replicas={len(self.trio.replicas)}"

    @property
    def server(self) -> RedisServer:
        """See Storage.server."""
        return eventually(self._master, what="the Sentinels name a master", timeout=WELL_SECONDS)

    def _master(self) -> RedisServer:
        with self.trio.client(self.trio.ports[0]) as sentinel:
            _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return next(server for server in self.servers if server.port == int(port))

    def replaced(self, former: RedisServer) -> RedisServer:
        """The new master, once all Sentinels name another one than the former, and it sees itself as such."""

        def other() -> RedisServer | None:
            master = self._master()
            if master is former or replicates(master):
                return None
            return master

        found = eventually(other, what="another master", timeout=WELL_SECONDS)
        assert found is not None
        return found

    def heal(self) -> None:
        """See Storage.heal. Two follow the third, and have what it has."""
        master = self.server
        for server in self.servers:
            if server is master:
                continue
            assert server.process is not None
            if server.process.poll() is not None:
                server.settings = (f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
                server.start()
            server.thaw()
        eventually(self._united, what="both replicas follow the master", timeout=WELL_SECONDS)

    def _united(self) -> bool:
        # A busy machine may make the Sentinels replace the master once more meanwhile.
        master = self._master()
        with master.client() as client:
            about = client.info("replication")
        assert isinstance(about, dict)
        followers = [about[f"slave{n}"]["state"] for n in range(about["connected_slaves"])]
        assert followers == ["online"] * len(self.trio.replicas), followers
        return all(replicates(server) for server in self.servers if server is not master)

    def __enter__(self) -> "Replicated":
        self._trio = self._sentinels.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sentinels.__exit__(None, None, None)
