# SPDX-License-Identifier: Apache-2.0
"""Just enough of each wire to send prepared requests and to find the ends of answers."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

Answered = Callable[[bytes], None]
Failed = Callable[[str], None]


class Connection(Protocol):
    """One request at a time."""

    def send(self, request: bytes) -> None:
        """Send a request; its answer's body goes to what was given to `open`."""
        ...

    def close(self) -> None: ...


class Wire(Protocol):
    """Opens connections."""

    async def open(self, *, port: int, key: str | None, answered: Answered, failed: Failed) -> Connection:
        """A connection whose answers go to `answered`, and what is none to `failed`."""
        ...


class Stream(asyncio.Protocol):
    """A TCP connection that gathers what arrives."""

    transport: asyncio.Transport

    def __init__(self, answered: Answered, failed: Failed) -> None:
        self.answered = answered
        self.failed = failed
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.failed(f"the connection is lost: {exc!r}")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.parse()

    def parse(self) -> None:
        """Take what is whole out of the buffer."""
        raise NotImplementedError

    def close(self) -> None:
        self.transport.close()


async def connected(make: Callable[[], Stream], port: int) -> Stream:
    """A stream to 127.0.0.1."""
    _, stream = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
    return stream
