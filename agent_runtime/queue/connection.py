# SPDX-License-Identifier: Apache-2.0
"""The way to the server: URL, connections, repeats, and the translation of Redis' errors into ours."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from kubeagents_api.errors import QueueAuthError, QueueUnavailableError, RedisUrlError

T = TypeVar("T")

SOCKET_TIMEOUT_SECONDS: Final = 5.0
"""The longest wait for a connection, and for the answer to a command that does not block."""
PATIENCE_SECONDS: Final = 5.0
"""How long a command is repeated before the caller is told. Long enough for most restarts and failovers."""
MAX_CONNECTIONS: Final = 32
"""Commands in flight of one queue object; further ones wait for a free connection."""

_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5

AUTH_ERRORS: Final = (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
)
"""The server is there, but refuses our user, password or commands. Repeating does not help."""
_AUTH_WORDS: Final = (
    "unauthenticated",  # Redis reads only short commands of clients that have not logged in, and says "protocol error"
    "NOPERM",
    "ACL failure",  # the ACL forbids a command inside of a script, as Redis 7 and Valkey say it,
    "user executing the script can't run",  # and as Redis 6.2 and 7.0 do
)
_PASSING_ERRORS: Final = (ConnectionError, TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError, OSError)
"""Errors of a server that is starting, failing over or out of reach: the same command may work in a moment."""
_PASSING_WORDS: Final = ("BUSY", "UNBLOCKED")
"""The same for errors that redis-py has no class for, by their first word."""


def parse_url(url: str) -> dict[str, Any]:
    """The connection's parameters. Raises RedisUrlError, whose message never shows the URL: it has the password."""
    shape = "write redis://[user:password@]host[:port][/db], or rediss:// for TLS"
    try:
        parts = urlsplit(url)
        host, port, query = parts.hostname, parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise RedisUrlError(
            f"the Redis URL is malformed: {shape}; escape special characters of the password (%40 for @, %2F for /)"
        ) from None
    kwargs: dict[str, Any] = {}
    if parts.username:
        kwargs["username"] = unquote(parts.username)
    if parts.password:
        kwargs["password"] = unquote(parts.password)
    if parts.scheme == "unix":
        if not parts.path:
            raise RedisUrlError("the Redis URL has no path: write unix:///path/of/the/socket")
        kwargs |= {"connection_class": UnixDomainSocketConnection, "path": unquote(parts.path)}
        database = query.pop("db", ["0"])[0]
        allowed: frozenset[str] = frozenset()
    elif parts.scheme in ("redis", "rediss"):
        if not host:
            raise RedisUrlError(f"the Redis URL has no host: {shape}")
        kwargs |= {"host": unquote(host), "port": port or 6379, "socket_keepalive": True}
        if parts.scheme == "rediss":
            kwargs["connection_class"] = SSLConnection
        database = parts.path.strip("/") or "0"
        allowed = _TLS_OPTIONS if parts.scheme == "rediss" else frozenset()
    else:
        raise RedisUrlError(f"the Redis URL has the wrong scheme: {shape}")
    if not (database.isascii() and database.isdigit()):
        raise RedisUrlError(f"the database in the Redis URL is not a number: {shape}")
    kwargs["db"] = int(database)
    unknown = sorted(query.keys() - allowed)
    if unknown or parts.fragment:
        raise RedisUrlError(
            f"the Redis URL has options that are not known ({', '.join(unknown) or 'after #'}): {shape}"
            + (f"; options are {', '.join(sorted(allowed))}" if allowed else "")
        )
    for name, values in query.items():
        kwargs[name] = values[0] != "false" if name == "ssl_check_hostname" else values[0]
    return kwargs


def _refused(error: Exception) -> bool:
    return isinstance(error, AUTH_ERRORS) or any(word in str(error) for word in _AUTH_WORDS)


def _read_only(error: Exception) -> bool:
    # Redis 6.2 wraps the errors of commands inside of scripts.
    return isinstance(error, ReadOnlyError) or "-READONLY" in str(error)


def _passes(error: Exception) -> bool:
    if _refused(error):
        return False
    return isinstance(error, _PASSING_ERRORS) or _read_only(error) or str(error).startswith(_PASSING_WORDS)


async def execute(client: Redis, *command: str | bytes | int) -> Any:
    """Send one command and return the raw answer.

    redis-py's own way packs arguments in Python, which takes as long as all else that we do for a task; this packs
    them in C.
    """
    pool = client.connection_pool
    packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of any length
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command(packed)
        return await connection.read_response()
    finally:
        await pool.release(connection)


class Server:
    """One Redis or Valkey server, as one queue object uses it. Connects when first used."""

    def __init__(self, url: str, *, longest_block_seconds: float) -> None:
        kwargs = parse_url(url)
        self.address = kwargs["path"] if "path" in kwargs else f"{kwargs['host']}:{kwargs['port']}"
        # RESP2 and no greeting: what every server from Redis 6.2 on, and every ACL that allows our commands, accepts.
        # Repeating is ours to decide, so the client must not do it.
        kwargs |= {
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        }
        connection_class = kwargs.get("connection_class")
        if connection_class is UnixDomainSocketConnection:
            del kwargs["socket_connect_timeout"]
        self.commands = Redis(
            connection_pool=BlockingConnectionPool(
                max_connections=MAX_CONNECTIONS,
                timeout=SOCKET_TIMEOUT_SECONDS,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                **kwargs,
            )
        )
        # Commands that block, and subscriptions. They do not take connections away from the others.
        self.blocking = Redis(
            connection_pool=ConnectionPool(socket_timeout=longest_block_seconds + SOCKET_TIMEOUT_SECONDS, **kwargs)
        )

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
                if not _passes(error) or (repeated and time.monotonic() + pause > patience):
                    raise self.translated(error) from error
                if _read_only(error):
                    await self._look_for_the_master()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            repeated = True

    async def _look_for_the_master(self) -> None:
        """After a failover our connections still lead to what is a replica now: let go of those not in use."""
        for client in (self.commands, self.blocking):
            await client.connection_pool.disconnect(inuse_connections=False)

    def translated(self, error: Exception) -> QueueUnavailableError:
        """The error for our callers. Neither Redis' messages nor the address have the password."""
        if _refused(error):
            return QueueAuthError(
                f"Redis at {self.address} refuses us: {error}; check user and password in the URL, and the user's ACL"
            )
        if isinstance(error, _PASSING_ERRORS):
            return QueueUnavailableError(f"Redis at {self.address} does not answer: {error}")
        return QueueUnavailableError(f"Redis at {self.address} refuses a command: {error}")

    async def aclose(self) -> None:
        """Close all connections."""
        for client in (self.commands, self.blocking):
            await client.aclose()
            await client.connection_pool.aclose()
