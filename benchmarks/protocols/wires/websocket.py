# SPDX-License-Identifier: Apache-2.0
"""WebSocket: text messages of one frame. The mask is zero, so that masking costs the client nothing."""

import asyncio
import base64
import os
import struct
from dataclasses import dataclass

from benchmarks.protocols.wires import Answered, Failed, Stream, connected


class WebSocketConnection(Stream):
    """A connection after its handshake."""

    def __init__(self, answered: Answered, failed: Failed) -> None:
        super().__init__(answered, failed)
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, request: bytes) -> None:
        size = len(request)
        if size < 126:
            head = struct.pack("!BB", 0x81, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        self.transport.write(head + b"\0\0\0\0" + request)

    def parse(self) -> None:
        if not self.shaken.done():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            if not head.startswith(b"HTTP/1.1 101"):
                self.shaken.set_exception(RuntimeError(f"no WebSocket: {head!r}"))
                return
            self.shaken.set_result(None)
        while len(self.buffer) >= 2:
            size, start = self.buffer[1], 2
            if size == 126:
                if len(self.buffer) < 4:
                    return
                (size,), start = struct.unpack_from("!H", self.buffer, 2), 4
            elif size == 127:
                if len(self.buffer) < 10:
                    return
                (size,), start = struct.unpack_from("!Q", self.buffer, 2), 10
            if len(self.buffer) < start + size:
                return
            opcode, payload = self.buffer[0] & 0x0F, bytes(self.buffer[start : start + size])
            del self.buffer[: start + size]
            if opcode == 9:  # ping
                self.transport.write(struct.pack("!BB", 0x8A, 0x80 | size) + b"\0\0\0\0" + payload)
            elif opcode == 8:
                self.failed(f"closed: {payload!r}")
            elif opcode in (1, 2):
                if b'"error":' in payload[:200]:
                    self.failed(repr(payload[:500]))
                else:
                    self.answered(payload)


@dataclass(frozen=True, slots=True)
class WebSocketWire:
    """WebSockets to 127.0.0.1."""

    path: str

    async def open(self, *, port: int, key: str | None, answered: Answered, failed: Failed) -> WebSocketConnection:
        stream = await connected(lambda: WebSocketConnection(answered, failed), port)
        assert isinstance(stream, WebSocketConnection)
        nonce = base64.b64encode(os.urandom(16)).decode()
        authorization = f"authorization: Bearer {key}\r\n" if key is not None else ""
        stream.transport.write(
            f"GET {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {nonce}\r\nsec-websocket-version: 13\r\n{authorization}\r\n".encode()
        )
        await stream.shaken
        return stream
