# SPDX-License-Identifier: Apache-2.0
"""A client that speaks frames by hand, over `websockets` or pyzmq: neither is ours."""

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Protocol

import zmq
import zmq.asyncio
from websockets.asyncio.client import ClientConnection, connect

from tests.support.runtime_process import RuntimeProcess

SECONDS = 60.0
Frame = dict[str, Any]


class Wire(Protocol):
    """Carries frames."""

    async def send(self, frame: str, /) -> None: ...

    async def recv(self) -> str | bytes: ...


class RefusedError(Exception):
    """An error frame."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body["error"])
        self.code: str = body["code"]
        self.details: dict[str, Any] = body["details"]


class Frames:
    """Sends calls, and reads the frames that answer: in any order, by their ids."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._ids = itertools.count(1)
        self._read: dict[str | None, list[Frame]] = defaultdict(list)

    async def send(self, frame: Any) -> None:
        """Send it as it is, or as JSON."""
        await self.wire.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def begin(self, call: str, *, credit: int | None = None, **params: Any) -> str:
        """Send a call; its id."""
        call_id = f"call-{next(self._ids)}"
        frame = {"id": call_id, "call": call, "params": params}
        await self.send(frame if credit is None else {**frame, "credit": credit})
        return call_id

    async def next(self, call_id: str | None) -> Frame:
        """The next frame with the id; None for those about the connection as a whole."""
        async with asyncio.timeout(SECONDS):
            while not self._read[call_id]:
                frame: Frame = json.loads(await self.wire.recv())
                assert len(frame.keys() - {"id"}) == 1, frame
                self._read[frame.get("id")].append(frame)
        return self._read[call_id].pop(0)

    def unread(self, call_id: str) -> int:
        """How many frames with the id have come while others were waited for."""
        return len(self._read[call_id])

    async def answer(self, call_id: str) -> Any:
        """The result of a call that was begun. Raises RefusedError."""
        frame = await self.next(call_id)
        if "error" in frame:
            raise RefusedError(frame["error"])
        return frame["result"]

    async def call(self, name: str, **params: Any) -> Any:
        """Call, and wait for the result. Raises RefusedError."""
        return await self.answer(await self.begin(name, **params))

    async def items(self, call_id: str) -> AsyncIterator[Any]:
        """What comes of a stream, to its end. Raises RefusedError."""
        while "item" in (frame := await self.next(call_id)):
            yield frame["item"]
        if "error" in frame:
            raise RefusedError(frame["error"])


@contextlib.asynccontextmanager
async def websocket(
    central: RuntimeProcess, *, key: str | None = None, path: str = "/v1/ws", **options: Any
) -> AsyncIterator[Frames]:
    """A connection over a WebSocket."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with raw_websocket(central, path=path, additional_headers=headers, **options) as connection:
        yield Frames(connection)


@contextlib.asynccontextmanager
async def raw_websocket(
    central: RuntimeProcess, *, path: str = "/v1/ws", **options: Any
) -> AsyncIterator[ClientConnection]:
    """The same without anything around it."""
    url = f"ws://127.0.0.1:{central.port}{path}"
    # Not by the context manager: its end waits for the other side, which is what some tests are about.
    connection = await connect(url, proxy=None, max_size=None, open_timeout=SECONDS, close_timeout=5, **options)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def zeromq(central: RuntimeProcess, *, key: str | None = None, **options: int | bytes) -> AsyncIterator[Frames]:
    """A connection over ZeroMQ, which has said hello. `options` are those of the socket."""
    async with raw_zeromq(central, **options) as wire:
        frames = Frames(wire)
        await frames.send({"hello": {} if key is None else {"key": key}})
        frame = await frames.next(None)
        if "error" in frame:
            raise RefusedError(frame["error"])
        assert frame == {"notice": "hello"}
        yield frames


class ZeroMqWire:
    """A DEALER socket."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket

    async def send(self, frame: str) -> None:
        await self.socket.send(frame.encode())

    async def recv(self) -> bytes:
        return bytes(await self.socket.recv())


@contextlib.asynccontextmanager
async def raw_zeromq(central: RuntimeProcess, **options: int | bytes) -> AsyncIterator[ZeroMqWire]:
    """A socket that is connected and has said nothing."""
    port = next(line["ports"]["zeromq"] for line in list(central.lines) if "ports" in line)
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    try:
        for name, value in {"LINGER": 0, **options}.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.connect(f"tcp://127.0.0.1:{port}")
        yield ZeroMqWire(socket)
    finally:
        socket.close()
        context.term()
