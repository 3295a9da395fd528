# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 with keep-alive. A request is a whole one but for its last header, the key."""

from dataclasses import dataclass

from benchmarks.protocols.wires import Answered, Failed, Stream, connected

_END = b"\r\n\r\n"


def request(method: str, path: str, body: bytes | None = None, *, headers: str = "") -> bytes:
    """A request in the form that `HttpConnection.send` takes."""
    content = b"" if body is None else b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}".encode()
    return head + content + b"\r\n" + (body or b"")


class HttpConnection(Stream):
    """Answers are whole; anything but 2xx is a failure. Of server-sent events the last one is the body."""

    authorization = b""

    def send(self, request: bytes) -> None:
        head, _, body = request.partition(_END)
        self.transport.write(b"%b\r\n%b\r\n%b" % (head, self.authorization, body))

    def parse(self) -> None:
        end = self.buffer.find(_END)
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        start = end + len(_END)
        at = head.find(b"content-length: ")
        if at >= 0:
            whole = start + int(head[at + 16 :].partition(b"\r\n")[0])
            if len(self.buffer) < whole:
                return
            body = bytes(self.buffer[start:whole])
        else:
            whole = self.buffer.find(b"\r\n0\r\n\r\n", end) + 7
            if whole < 7:
                return
            body = _last_event(_chunks(bytes(self.buffer[start:whole])))
        del self.buffer[:whole]
        if head[9:10] != b"2":
            self.failed(f"{head[:40]!r}: {body[:500]!r}")
        else:
            self.answered(body)


def _chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[line + 2 : line + 2 + size])
        at = line + 2 + size + 2


def _last_event(body: bytes) -> bytes:
    _, found, data = body.rpartition(b"data: ")
    return data.partition(b"\r\n")[0].partition(b"\n")[0] if found else body


@dataclass(frozen=True, slots=True)
class HttpWire:
    """HTTP to 127.0.0.1."""

    async def open(self, *, port: int, key: str | None, answered: Answered, failed: Failed) -> HttpConnection:
        stream = await connected(lambda: HttpConnection(answered, failed), port)
        assert isinstance(stream, HttpConnection)
        if key is not None:
            stream.authorization = f"authorization: Bearer {key}\r\n".encode()
        return stream
