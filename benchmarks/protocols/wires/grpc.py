# SPDX-License-Identifier: Apache-2.0
"""Unary gRPC: HTTP/2 with heads that are encoded by hand, once. A request is `path` NUL `message`.

Heads of answers are not decoded: an answer with a message is one that went well, as gRPC sends none with an error.
"""

import asyncio
import struct
from dataclasses import dataclass
from typing import Final

from benchmarks.protocols.wires import Answered, Failed, Stream, connected

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _PADDED = 1, 1, 8
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGE: Final = 2**30
_FRAME: Final = struct.Struct("!HBBBI")


def request(path: str, message: bytes) -> bytes:
    """A request in the form that `GrpcConnection.send` takes."""
    return path.encode() + b"\0" + message


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that goes into no table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class GrpcConnection(Stream):
    """One HTTP/2 connection, one stream at a time."""

    def __init__(self, answered: Answered, failed: Failed, *, key: str | None) -> None:
        super().__init__(answered, failed)
        self._extra = b"" if key is None else _literal(b"authorization", f"Bearer {key}".encode())
        self._stream = 1
        self._heads: dict[bytes, bytes] = {}
        self._message = bytearray()
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server before it can say anything, with as much room for its answers as there may be."""
        super().connection_made(transport)
        settings = struct.pack("!HIHI", 1, 0, 4, _LARGE)  # no table of headers; a large window for each stream
        window = struct.pack("!I", _LARGE)
        self.transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, window))

    def send(self, request: bytes) -> None:
        path, _, message = request.partition(b"\0")
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = b"".join(
                (
                    b"\x83\x86",  # :method POST, :scheme http
                    _literal(b":path", path),
                    _literal(b":authority", b"127.0.0.1"),
                    _literal(b"content-type", b"application/grpc"),
                    _literal(b"te", b"trailers"),
                    self._extra,
                )
            )
        body = struct.pack("!BI", 0, len(message)) + message
        self.transport.write(_frame(_HEADERS, 4, self._stream, head) + _frame(_DATA, _END_STREAM, self._stream, body))

    def parse(self) -> None:
        while len(self.buffer) >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(self.buffer)
            whole = 9 + (high << 8 | low)
            if len(self.buffer) < whole:
                return
            payload = bytes(self.buffer[9:whole])
            del self.buffer[:whole]
            self._take(kind, flags, stream & 0x7FFFFFFF, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case 0:
                self._received += len(payload)
                if self._received > _LARGE // 2:
                    self.transport.write(_frame(_WINDOW, 0, 0, struct.pack("!I", self._received)))
                    self._received = 0
                if flags & _PADDED:
                    self.failed("a padded frame, which this client does not know")
                self._message += payload
            case 4 if not flags & _ACK:
                self.transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            case 6 if not flags & _ACK:
                self.transport.write(_frame(_PING, _ACK, 0, payload))
            case 3 | 7:
                self.failed(f"the server ends the stream or the connection: {payload!r}")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM and stream == self._stream:
            self._stream += 2
            message, self._message = bytes(self._message), bytearray()
            if message:
                self.answered(message[5:])
            else:
                self.failed(f"an answer without a message: {payload!r}")


@dataclass(frozen=True, slots=True)
class GrpcWire:
    """gRPC to 127.0.0.1."""

    async def open(self, *, port: int, key: str | None, answered: Answered, failed: Failed) -> GrpcConnection:
        stream = await connected(lambda: GrpcConnection(answered, failed, key=key), port)
        assert isinstance(stream, GrpcConnection)
        return stream
