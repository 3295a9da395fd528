# SPDX-License-Identifier: Apache-2.0
"""A connection breaks between two commands, under the event loop that agents run on."""

import asyncio
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from agent_runtime.queue.connection import Server
from agent_runtime.queue.exchange import execute
from tests.support.redis_server import RedisServer


def test_a_command_that_meets_a_closed_transport_is_repeated(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = AbstractConnection.send_packed_command
    broken: list[Any] = []

    async def break_and_send(connection: Any, command: bytes) -> None:
        if not broken and connection.is_connected:
            broken.append(connection)
            connection._writer.transport.abort()
            await asyncio.sleep(0)
        await send(connection, command)

    async def meet() -> Any:
        server = Server(redis_server.url, longest_block_seconds=1, key="any")
        try:
            await execute(server.commands, "PING")  # connects
            monkeypatch.setattr("redis.asyncio.connection.Connection.send_packed_command", break_and_send)
            return await server.call(lambda _: execute(server.commands, "PING"))
        finally:
            await server.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(meet()) == b"PONG"
    assert broken
