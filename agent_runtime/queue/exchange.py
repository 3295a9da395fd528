# SPDX-License-Identifier: Apache-2.0
"""Sending a command and reading its answer, with as little in between as redis-py allows.

Most of what a small command costs the client is bookkeeping of the connection pool and of timers. So a connection that
is idle is taken without a lock and without statistics, arguments are packed in C, and one timer covers the exchange.
"""

import asyncio
import builtins
import contextlib
from collections import deque
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError, TryAgainError

SOCKET_TIMEOUT_SECONDS: Final = 5.0
"""The longest wait for a connection, and for the answer to a command that does not block."""
WAIT_MS: Final = 1000
"""The longest wait for the replicas' confirmation, where the URL wants it; then the command is repeated."""


class CommandPool(ConnectionPool):
    """Connections for commands that do not block; who finds none waits for its turn. No timeout of its own."""

    wait_replicas = 0
    """How many replicas must have what a command has written before it counts as carried out."""

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        super().__init__(max_connections=max_connections, socket_timeout=None, **options)
        self._turns: deque[asyncio.Future[None]] = deque()

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        """A connection that is up, as far as is known without asking."""
        while True:
            while self._available_connections:
                connection = self._available_connections.pop()
                if _is_alive(connection):
                    self._in_use_connections.add(connection)
                    return connection
                await connection.disconnect()
            if len(self._in_use_connections) < self.max_connections:
                return await self._connected()
            await self._turn()

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)
        self._next_turn()

    async def _connected(self) -> AbstractConnection:
        connection: AbstractConnection = self.make_connection()  # type: ignore[no-untyped-call]
        self._in_use_connections.add(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self._in_use_connections.remove(connection)
            self._next_turn()
            raise
        return connection

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._next_turn()  # it was ours, and we do not want it any more
            raise

    def _next_turn(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return


def _is_alive(connection: AbstractConnection) -> bool:
    """Whether it is connected and the server has not hung up, as far as is known without asking."""
    reader = connection._reader
    outdated: bool = connection.should_reconnect()  # type: ignore[no-untyped-call]
    return reader is not None and not reader.at_eof() and not outdated


async def execute(client: Redis, *command: str | bytes | int) -> Any:
    """Send one command and return the raw answer. Raises redis-py's errors."""
    pool = client.connection_pool
    packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of any length
    if not isinstance(pool, CommandPool):
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        return await _exchange(pool, connection, packed)
    deadline = asyncio.timeout(SOCKET_TIMEOUT_SECONDS)
    try:
        async with deadline:
            connection = await pool.get_connection()
            # The wait for a connection and that for the answer may each take so long.
            deadline.reschedule(asyncio.get_running_loop().time() + SOCKET_TIMEOUT_SECONDS)
            return await _exchange(pool, connection, packed, replicas=pool.wait_replicas)
    except builtins.TimeoutError:
        if deadline.expired():
            raise TimeoutError(f"Timeout after {SOCKET_TIMEOUT_SECONDS:g} s") from None
        raise


async def _exchange(pool: ConnectionPool, connection: AbstractConnection, packed: bytes, *, replicas: int = 0) -> Any:
    """A connection that breaks, or whose answer is not waited for, is closed by redis-py."""
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
