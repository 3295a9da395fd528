# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ, by pyzmq."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import zmq
import zmq.asyncio

from tests.conformance.protocols.driver import BrokenError, Driver, RefusedError
from tests.conformance.protocols.drivers.frames import OFFERS, FramesClient
from tests.conformance.protocols.features import Feature

SECONDS = 60.0


class ZeroMqDriver(Driver):
    """A DEALER socket."""

    name = "zeromq"
    title = "ZeroMQ"
    endpoint = "zeromq"
    client = "pyzmq"
    offers: ClassVar[Mapping[Feature, str]] = {
        **OFFERS,
        Feature.UNAUTHENTICATED: 'an error frame; `{"hello": {"key": …}}` comes first',
    }

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[FramesClient]:
        """One socket, whose end is noticed: ZeroMQ itself would connect again and say nothing."""
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            client = _ZeroMqClient(socket)
            socket.connect(f"tcp://127.0.0.1:{port}")
            try:
                if key is not None:
                    await socket.send(json.dumps({"hello": {"key": key}}).encode())
                    answer = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
                    if "error" in answer:
                        raise RefusedError(answer["error"]["code"], answer["error"]["error"])
                async with client.reading():
                    yield client
            finally:
                socket.disable_monitor()
                client.monitor.close(linger=0)


class _ZeroMqClient(FramesClient):
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        super().__init__()
        self._socket = socket
        self.monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    async def transmit(self, frame: bytes) -> None:
        await self._socket.send(frame)

    async def frames(self) -> AsyncIterator[str | bytes]:
        ended = asyncio.ensure_future(self.monitor.recv_multipart())
        try:
            while True:
                frame = asyncio.ensure_future(self._socket.recv())
                try:
                    await asyncio.wait({frame, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not frame.done():
                        raise BrokenError("the connection has ended")
                    yield frame.result()
                finally:
                    frame.cancel()
        finally:
            ended.cancel()
