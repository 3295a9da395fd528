# SPDX-License-Identifier: Apache-2.0
"""WebSocket, by websockets."""

import contextlib
from collections.abc import AsyncIterator
from typing import ClassVar

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conformance.protocols.driver import BrokenError, Driver, RefusedError, code_of
from tests.conformance.protocols.drivers.frames import OFFERS, FramesClient
from tests.conformance.protocols.features import Feature


class WebSocketDriver(Driver):
    """Calls and streams on one connection."""

    name = "websocket"
    title = "WebSocket"
    endpoint = "websocket"
    client = "websockets"
    offers: ClassVar = {
        **OFFERS,
        Feature.UNAUTHENTICATED: "401 in place of the handshake; `Authorization`, or the subprotocol `key.<key>`",
    }

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[FramesClient]:
        """One connection."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        try:
            connection = await websockets.asyncio.client.connect(
                f"ws://127.0.0.1:{port}/v1/ws", additional_headers=headers, max_size=2**25, proxy=None, close_timeout=5
            )
        except InvalidStatus as error:
            raise RefusedError(code_of(bytes(error.response.body))) from error
        async with connection:
            client = _WebSocketClient(connection)
            async with client.reading():
                yield client


class _WebSocketClient(FramesClient):
    def __init__(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        super().__init__()
        self._connection = connection

    async def transmit(self, frame: bytes) -> None:
        try:
            await self._connection.send(frame.decode())
        except ConnectionClosed as error:
            raise BrokenError(str(error)) from error

    async def frames(self) -> AsyncIterator[str | bytes]:
        try:
            while True:
                yield await self._connection.recv()
        except ConnectionClosed as error:
            raise BrokenError(str(error)) from error
