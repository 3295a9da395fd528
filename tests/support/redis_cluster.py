# SPDX-License-Identifier: Apache-2.0
"""A Redis Cluster of three masters, on this machine; replicas are added where a test wants them."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis.crc import key_slot

from tests.support.eventually import eventually
from tests.support.redis_sentinels import replicates
from tests.support.redis_server import RedisServer, free_port

SLOTS = 16384
MASTERS = 3
NODE_TIMEOUT_MS = 1500
"""How long a node must be silent until it counts as gone."""


def free_cluster_port() -> int:
    """A port whose companion for the cluster's own bus, which is 10,000 higher, exists and is free too."""
    return next(port for port in iter(free_port, None) if port < 55536 and _is_free(port + 10_000))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class RedisCluster:
    """The processes of one cluster."""

    binary: Path
    folder: Path
    """Where its files go. Must exist."""
    settings: tuple[str, ...] = ()
    """Further lines of each node's configuration."""
    nodes: list[RedisServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For clients. Names one node only: clients must find the others."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> None:
        """Start the masters, and wait until they serve all slots."""
        for number in range(MASTERS):
            node = self._start_node()
            first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        self._meet()

    def owner(self, key: str) -> RedisServer:
        """The master that has a key's slot."""
        slot = key_slot(key.encode())
        with self._alive().client() as client:
            ranges = client.execute_command("CLUSTER", "SLOTS")
        for first, last, (_, port, *_), *_ in _rows(ranges):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def add_replica(self, master: RedisServer) -> RedisServer:
        """A new replica that has all that the master has."""
        replica = self._start_node()
        self._meet()
        with replica.client() as client:
            client.execute_command("CLUSTER", "REPLICATE", node_id(master))

        eventually(partial(replicates, replica), what="the replica follows its master")

        def known() -> bool:
            with self.nodes[0].client() as client:
                lines = str(client.execute_command("CLUSTER", "REPLICAS", node_id(master)))
            return node_id(replica) in lines

        eventually(known, what="the others know the replica")
        return replica

    def move_slot(self, key: str, *, to: RedisServer, halfway: Callable[[], None] = lambda: None) -> None:
        """Move a key's slot with all its keys to another master; `halfway` is called before the keys go."""
        slot, source = key_slot(key.encode()), self.owner(key)
        with source.client() as old, to.client() as new:
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(to))
            halfway()
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
                old.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id(to))

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    def _start_node(self) -> RedisServer:
        folder = self.folder / f"node-{len(self.nodes)}"
        folder.mkdir()
        settings = (
            "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0",
            *self.settings,
        )
        node = RedisServer(self.binary, folder, append_only=True, pick_port=free_cluster_port, settings=settings)
        self.nodes.append(node)
        node.start()
        return node

    def _meet(self) -> None:
        with self.nodes[0].client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in self.nodes:
            eventually(partial(self._joined, node), what=f"node {node.port} knows the whole cluster")

    def _joined(self, node: RedisServer) -> bool:
        with node.client() as client:
            about = str(client.execute_command("CLUSTER", "INFO"))
        assert "cluster_state:ok" in about, about
        assert f"cluster_known_nodes:{len(self.nodes)}" in about, about
        return True

    def _alive(self) -> RedisServer:
        return next(node for node in self.nodes if node.process is not None and node.process.poll() is None)


@contextlib.contextmanager
def redis_cluster(binary: Path, folder: Path, *, settings: tuple[str, ...] = ()) -> Iterator[RedisCluster]:
    """A cluster that serves all slots."""
    cluster = RedisCluster(binary, folder, settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def node_id(node: RedisServer) -> str:
    """What the cluster calls a node."""
    with node.client() as client:
        return str(client.execute_command("CLUSTER", "MYID"))


def _rows(ranges: object) -> list[tuple[int, int, tuple[str, int]]]:
    """The answer to CLUSTER SLOTS. redis-py makes a dict of it for single servers: range -> its nodes."""
    if isinstance(ranges, dict):
        return [(first, last, nodes["primary"]) for (first, last), nodes in ranges.items()]
    assert isinstance(ranges, list)
    return [(row[0], row[1], tuple(row[2])) for row in ranges]
