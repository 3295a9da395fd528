# SPDX-License-Identifier: Apache-2.0
"""The way to the server: URL, connections, repeats, and the translation of Redis' errors into ours."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, RedisError, TimeoutError

from agent_runtime.queue.exchange import SOCKET_TIMEOUT_SECONDS, CommandPool
from agent_runtime.queue.faults import AUTH_ERRORS as AUTH_ERRORS
from agent_runtime.queue.faults import PASSING_ERRORS, passes, read_only, redirected, refused
from agent_runtime.queue.locators import locator_for
from agent_runtime.queue.routes import FollowingConnection, FollowingSSLConnection, Route
from agent_runtime.queue.urls import RedisUrl, parse_url
from kubeagents_api.errors import QueueAuthError, QueueUnavailableError

T = TypeVar("T")

PATIENCE_SECONDS: Final = 5.0
"""How long a command is repeated before the caller is told. Long enough for most restarts and failovers."""
MAX_CONNECTIONS: Final = 32
"""Commands in flight of one queue object; further ones wait for a free connection."""

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5


class Server:
    """The Redis or Valkey server that one queue is on, wherever that is at the time. Connects when first used."""

    def __init__(self, url: str, *, longest_block_seconds: float, key: str) -> None:
        """`key` is any key of the queue; its hash tag tells which node of a cluster serves it."""
        target = parse_url(url)
        locator = locator_for(target, key)
        self._route = None if locator is None else Route(locator)
        self._place = target.path or str(target.nodes[0])
        options = self._options(target)
        pool = CommandPool(max_connections=MAX_CONNECTIONS, **options)
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
                if self._route is not None and isinstance(error, TimeoutError):
                    self._route.unsure()
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
            said = str(error).rstrip(".")
            return QueueAuthError(
                f"Redis at {self.address} refuses us: {said}; check user and password in the URL, and the user's ACL"
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
