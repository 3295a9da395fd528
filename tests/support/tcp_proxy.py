# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks connections at the worst moment: the server has acted, the client has not heard of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

_CONNECT_SECONDS = 10.0


class TcpProxy:
    """Stands between a client and a server, on 127.0.0.1 itself. Use it as an async context manager."""

    def __init__(self, *, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target_host = target_host
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut_after: bytes | None = None
        self._request_bytes: int | None = None
        self._reply_bytes: int | None = None
        self._refuse = False
        self.cuts = 0
        """Requests and replies that were swallowed, or cut into."""
        self.delay_seconds = 0.0
        """By how much everything is held up, in both directions."""

    @property
    def port(self) -> int:
        """Where clients connect."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut_reply_to(self, command: bytes) -> None:
        """Swallow the reply to the next request that contains these bytes, and break its connection."""
        self._cut_after = command

    def cut_into_request(self, *, after: int) -> None:
        """Let so many bytes of the next request pass, and break its connection."""
        self._request_bytes = after

    def cut_into_reply(self, *, after: int) -> None:
        """Let so many bytes of the next reply pass, and break its connection."""
        self._reply_bytes = after

    def cut_all(self) -> None:
        """Break all connections now."""
        for writer in self._writers:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Break all connections, and accept no new ones until the end of the block."""
        self._refuse = True
        self.cut_all()
        try:
            yield
        finally:
            self._refuse = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._refuse = True
        self.cut_all()
        await asyncio.gather(*self._links)  # they end with their connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._link(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._links.discard(task)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):  # a target that is gone may be silent for minutes
            server_reader, server_writer = await asyncio.open_connection(self._target_host, self._target_port)
        self._writers.add(server_writer)
        doomed = asyncio.Event()
        halves = {
            asyncio.create_task(self._requests(reader, server_writer, doomed)),
            asyncio.create_task(self._replies(server_reader, writer, doomed)),
        }
        try:
            if not self._refuse:
                await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            server_writer.transport.abort()
            self._writers.discard(server_writer)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._cut_after is not None and self._cut_after in data:
                    self._cut_after = None
                    doomed.set()
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                part, self._request_bytes = data[: self._request_bytes], None
                writer.write(part)
                await writer.drain()
                if len(part) < len(data):
                    self.cuts += 1
                    return

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if doomed.is_set():
                    self.cuts += 1
                    return
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                part, self._reply_bytes = data[: self._reply_bytes], None
                writer.write(part)
                await writer.drain()
                if len(part) < len(data):
                    self.cuts += 1
                    return
