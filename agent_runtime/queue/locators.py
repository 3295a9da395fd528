# SPDX-License-Identifier: Apache-2.0
"""Which server a queue is on.

All keys of a queue share one hash tag and so one slot: of however many servers there are, exactly one serves the queue
at a time. A locator finds it: it is the master that the Sentinels name, or the owner of the slot in the cluster. It is
asked when a connection is made, and again once something says that the server may have been replaced (see `routes`).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError, ResponseError

from agent_runtime.queue.faults import refused
from agent_runtime.queue.urls import Node, RedisUrl

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.0
"""The longest wait for a Sentinel or a node that is asked where the queue is; there are others."""
ASKED_AT_ONCE: Final = 3
"""Nodes of a cluster that are asked at the same time; the first good answer counts."""
SILENCE_SECONDS: Final = 2.0
"""After so long without a message the watched Sentinel is asked for a sign of life."""
_PAUSE_SECONDS: Final = 0.5

Found = Callable[[Node], None]
"""Takes note of where the queue is now."""


class Locator(Protocol):
    """Finds the server of a queue that may move."""

    description: str
    """How to speak of what it finds, without passwords."""

    async def locate(self) -> Node:
        """The server now. Raises redis-py's errors if nobody can tell."""
        ...

    def told(self, node: Node) -> None:
        """Somebody has named this server; it may be asked where the queue is."""
        ...

    async def watch(self, found: Found) -> None:
        """Report each move until cancelled; return at once where moves are not announced."""
        ...


class _Asker:
    """Sends single commands to servers that are not the queue's."""

    def __init__(self, url: RedisUrl, login: Mapping[str, str]) -> None:
        self._class: type[Connection] = SSLConnection if url.tls else Connection
        self._options: dict[str, Any] = {
            **login,
            **url.tls_options,
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
        }

    async def connect(self, node: Node) -> Connection:
        connection = self._class(host=node.host, port=node.port, **self._options)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def ask(self, node: Node, *command: str) -> Any:
        connection = await self.connect(node)
        try:
            await connection.send_command(*command)
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


class SentinelLocator:
    """The master that the Sentinels name. All of them are asked: one that is cut off may name a former one."""

    def __init__(self, url: RedisUrl) -> None:
        self._asker = _Asker(url, url.sentinel_login)
        self._sentinels = url.nodes
        self._master = url.master
        self.description = f"master {url.master!r} of the Sentinels at {_listed(url.nodes)}"

    def told(self, node: Node) -> None:
        """See Locator.told. Servers cannot be asked, only Sentinels."""

    async def locate(self) -> Node:
        """See Locator.locate. Of the first answers that are a majority, the one of the latest failover counts."""
        asked = {
            asyncio.create_task(self._asker.ask(sentinel, "SENTINEL", "MASTER", self._master)): sentinel
            for sentinel in self._sentinels
        }
        answers: list[tuple[int, Node]] = []
        errors: list[tuple[Node, Exception]] = []
        pending = set(asked)
        try:
            while pending and len(answers) <= len(asked) // 2:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        answers.append(_master(task.result()))
                    except (RedisError, OSError) as error:
                        errors.append((asked[task], error))
        finally:
            await _stop(pending)
        if not answers:
            raise _nobody("Sentinel", errors)
        return max(answers)[1]

    async def watch(self, found: Found) -> None:
        """See Locator.watch. Listens to one Sentinel, and goes to the next one if that gives no sign of life."""
        while True:
            for sentinel in random.sample(self._sentinels, len(self._sentinels)):
                try:
                    await self._listen(sentinel, found)
                except (RedisError, OSError) as error:
                    log.log(
                        logging.WARNING if refused(error) else logging.DEBUG,
                        "the Sentinel at %s does not tell of failovers, trying the next one: %s",
                        sentinel,
                        error,
                    )
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _listen(self, sentinel: Node, found: Found) -> None:
        connection = await self._asker.connect(sentinel)
        try:
            await connection.send_command("SUBSCRIBE", "+switch-master")
            await connection.read_response()
            found(await self.locate())  # what was said before is lost
            asked = False
            while True:
                said = await connection.read_response(timeout=SILENCE_SECONDS)
                if said is None:
                    if asked:
                        raise ConnectionError(f"no sign of life for {2 * SILENCE_SECONDS:g} s")
                    await connection.send_command("PING", check_health=False)
                    asked = True
                    continue
                asked = False
                if said[0] == b"message":
                    name, _, _, host, port = said[2].decode().split(" ")
                    if name == self._master:
                        found(Node(host, int(port)))
        finally:
            await connection.disconnect(nowait=True)


class ClusterLocator:
    """The node of a cluster that owns the slot of the queue's keys."""

    def __init__(self, url: RedisUrl, key: str) -> None:
        self._asker = _Asker(url, url.login)
        self._seeds = url.nodes
        self._known: set[Node] = set(url.nodes)
        self._slot = key_slot(key.encode())
        self.description = f"slot {self._slot} of the cluster at {_listed(url.nodes)}"

    def told(self, node: Node) -> None:
        """See Locator.told."""
        self._known.add(node)

    async def locate(self) -> Node:
        """See Locator.locate. Any node can tell; a few are asked at once, as some may be down."""
        errors: list[tuple[Node, Exception]] = []
        nodes = random.sample(sorted(self._known), len(self._known))
        while nodes:
            some, nodes = nodes[:ASKED_AT_ONCE], nodes[ASKED_AT_ONCE:]
            pending = {asyncio.create_task(self._owner(node), name=str(node)): node for node in some}
            try:
                while pending:
                    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        node = pending.pop(task)
                        try:
                            return task.result()
                        except (RedisError, OSError) as error:
                            errors.append((node, error))
            finally:
                await _stop(pending)
        raise _nobody("node of the cluster", errors)

    async def _owner(self, node: Node) -> Node:
        ranges = await self._asker.ask(node, "CLUSTER", "SLOTS")
        owner: Node | None = None
        known: set[Node] = set()
        for first, last, *servers in ranges:
            for position, (host, port, *_) in enumerate(servers):
                server = Node(host.decode(), port) if host not in (None, b"", b"?") else Node(node.host, port)
                known.add(server)
                if position == 0 and first <= self._slot <= last:
                    owner = server
        if owner is None:
            raise ResponseError(f"no node serves slot {self._slot}")
        self._known = known.union(self._seeds)
        return owner

    async def watch(self, found: Found) -> None:
        """See Locator.watch. Clusters announce nothing: nodes that have lost the slot say so when they are used."""


def locator_for(url: RedisUrl, key: str) -> Locator | None:
    """The locator for a URL; None if the URL names the server itself. `key` is one of the queue's."""
    if url.kind == "sentinel":
        return SentinelLocator(url)
    if url.kind == "cluster":
        return ClusterLocator(url, key)
    return None


def _master(fields: Sequence[bytes]) -> tuple[int, Node]:
    """The epoch of the failover that made it the master, and the master."""
    answer = dict(zip(fields[::2], fields[1::2], strict=True))
    return int(answer[b"config-epoch"]), Node(answer[b"ip"].decode(), int(answer[b"port"]))


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(map(str, nodes))


def _nobody(whom: str, errors: Sequence[tuple[Node, Exception]]) -> Exception:
    """The error to raise when all have been asked in vain: one that repeating cannot help, if there is any."""
    for node, error in errors:
        if refused(error):
            return type(error)(f"the {whom} at {node} says: {error}")
    what = f"no {whom} can tell ({'; '.join(f'{node}: {error}' for node, error in errors)})"
    final = all(isinstance(error, ResponseError) and "No such master" in str(error) for _, error in errors)
    return ResponseError(f"{what}: check the master's name in the URL") if final else ConnectionError(what)


async def _stop(tasks: "Sequence[asyncio.Task[Any]] | set[asyncio.Task[Any]] | dict[asyncio.Task[Any], Node]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
