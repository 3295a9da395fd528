# SPDX-License-Identifier: Apache-2.0
"""The way to the server: URL, connections, repeats, and the translation of Redis' errors into ours."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ConnectionError, RedisError, ResponseError, TryAgainError

from agent_runtime.queue.faults import AUTH_ERRORS as AUTH_ERRORS
from agent_runtime.queue.faults import PASSING_ERRORS, passes, read_only, redirected, refused
from agent_runtime.queue.locators import locator_for
from agent_runtime.queue.routes import FollowingConnection, FollowingSSLConnection, Route
from agent_runtime.queue.urls import RedisUrl, parse_url
from kubeagents_api.errors import QueueAuthError, QueueUnavailableError

T = TypeVar("T")

SOCKET_TIMEOUT_SECONDS: Final = 5.0
"""The longest wait for a connection, and for the answer to a command that does not block."""
PATIENCE_SECONDS: Final = 5.0
"""How long a command is repeated before the caller is told. Long enough for most restarts and failovers."""
MAX_CONNECTIONS: Final = 32
"""Commands in flight of one queue object; further ones wait for a free connection."""
WAIT_MS: Final = 1000
"""The longest wait for the replicas' confirmation, where the URL wants it; then the command is repeated."""

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5


class CommandPool(BlockingConnectionPool):
    """Connections for commands that do not block."""

    wait_replicas = 0
    """How many replicas must have what a command has written before it counts as carried out."""


async def execute(client: Redis, *command: str | bytes | int) -> Any:
    """Send one command and return the raw answer.

    redis-py's own way packs arguments in Python, which takes as long as all else that we do for a task; this packs
    them in C.
    """
    pool = client.connection_pool
    packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of any length
    replicas = pool.wait_replicas if isinstance(pool, CommandPool) else 0
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        if not replicas:
            await _send(connection, packed)
            return await connection.read_response()
        wait = hiredis.pack_command(("WAIT", replicas, WAIT_MS))  # type: ignore[arg-type]  # as above
        await _send(connection, packed + wait)
        try:
            answer = await connection.read_response()
        except ResponseError:
            with contextlib.suppress(RedisError, OSError):  # the first error is the one that matters
                await connection.read_response()
            raise
        confirmed = await connection.read_response()
    finally:
        await pool.release(connection)
    if confirmed < replicas:
        raise TryAgainError(
            f"{confirmed} of {replicas} replicas have confirmed a command within {WAIT_MS / 1000:g} s "
            "(wait_replicas in the URL)"
        )
    return answer


async def _send(connection: AbstractConnection, packed: bytes) -> None:
    try:
        await connection.send_packed_command(packed)
    except RuntimeError as error:
        # What uvloop says of a connection that has just broken, where asyncio would let us notice when we read.
        raise ConnectionError(f"the connection is closed: {error}") from error


class Server:
    """The Redis or Valkey server that one queue is on, wherever that is at the time. Connects when first used."""

    def __init__(self, url: str, *, longest_block_seconds: float, key: str) -> None:
        """`key` is any key of the queue; its hash tag tells which node of a cluster serves it."""
        target = parse_url(url)
        locator = locator_for(target, key)
        self._route = None if locator is None else Route(locator)
        self._place = target.path or str(target.nodes[0])
        options = self._options(target)
        pool = CommandPool(
            max_connections=MAX_CONNECTIONS,
            timeout=SOCKET_TIMEOUT_SECONDS,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            **options,
        )
        pool.wait_replicas = target.wait_replicas
        self.commands = Redis(connection_pool=pool)
        # Commands that block, and subscriptions. They do not take connections away from the others.
        self.blocking = Redis(
            connection_pool=ConnectionPool(socket_timeout=longest_block_seconds + SOCKET_TIMEOUT_SECONDS, **options)
        )

    def _options(self, target: RedisUrl) -> dict[str, Any]:
        # RESP2 and no greeting: what every server from Redis 6.2 on, and every ACL that allows our commands, accepts.
        # Repeating is ours to decide, so the client must not do it.
        options: dict[str, Any] = {
            **target.login,
            **target.tls_options,
            "db": target.db,
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
        }
        if target.kind == "unix":
            return options | {"connection_class": UnixDomainSocketConnection, "path": target.path}
        options |= {"socket_connect_timeout": SOCKET_TIMEOUT_SECONDS, "socket_keepalive": True}
        if self._route is not None:
            connection_class = FollowingSSLConnection if target.tls else FollowingConnection
            return options | {"connection_class": connection_class, "route": self._route}
        host, port = target.nodes[0]
        return options | {"connection_class": SSLConnection if target.tls else Connection, "host": host, "port": port}

    @property
    def address(self) -> str:
        """Where it is, for messages."""
        if self._route is None:
            return self._place
        what, node = self._route.locator.description, self._route.node
        return what if node is None else f"{node} ({what})"

    async def call(self, command: Callable[[bool], Awaitable[T]]) -> T:
        """Send a command, again if it failed for a passing reason: at least once, and for PATIENCE_SECONDS.

        A command whose answer was lost may have been carried out, so only what is safe to repeat may be given;
        `command` is told whether it is a repeat. Raises QueueUnavailableError or QueueAuthError.
        """
        patience = time.monotonic() + PATIENCE_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        repeated = False
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        while True:
            try:
                answer = await command(repeated)
                if task and task.cancelling() > cancellations:  # swallowed, see agent_runtime.cancellation
                    raise asyncio.CancelledError
                return answer
            except (RedisError, OSError) as error:
                passing = passes(error) or (self._route is not None and redirected(error))
                if not passing or (repeated and time.monotonic() + pause > patience):
                    raise self.translated(error) from error
                if read_only(error):
                    await self._look_for_the_master()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            repeated = True

    async def _look_for_the_master(self) -> None:
        """Our connections lead to what is a replica now; new ones may lead to another: let go of those not in use."""
        for client in (self.commands, self.blocking):
            await client.connection_pool.disconnect(inuse_connections=False)

    def translated(self, error: Exception) -> QueueUnavailableError:
        """The error for our callers. Neither Redis' messages nor the address have the password."""
        if refused(error):
            return QueueAuthError(
                f"Redis at {self.address} refuses us: {error}; check user and password in the URL, and the user's ACL"
            )
        if isinstance(error, AskError) and self._route is None:
            return QueueUnavailableError(
                f"Redis at {self.address} is a node of a cluster, and the queue is on another one: "
                "write redis+cluster:// instead of redis:// in the URL (rediss+cluster:// for TLS)"
            )
        if isinstance(error, PASSING_ERRORS) or redirected(error):
            return QueueUnavailableError(f"Redis at {self.address} does not answer: {error}")
        return QueueUnavailableError(f"Redis at {self.address} refuses a command: {error}")

    async def aclose(self) -> None:
        """Close all connections."""
        if self._route is not None:
            await self._route.aclose()
        for client in (self.commands, self.blocking):
            await client.aclose()
            await client.connection_pool.aclose()
