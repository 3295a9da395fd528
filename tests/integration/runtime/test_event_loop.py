# SPDX-License-Identifier: Apache-2.0
"""A file descriptor is closed once, whatever becomes of its connection: closed twice, it is somebody else's."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

import pytest

from agent_runtime.event_loop import new_event_loop


def in_our_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def connected(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection: ours, and the server's."""
    ours = socket.create_connection(server.getsockname())
    theirs, _ = server.accept()
    return ours, theirs


@pytest.mark.parametrize("tls", [None, ssl.create_default_context()], ids=["plain", "TLS"])
def test_the_socket_of_a_connection_that_breaks_at_once_closes_nothing_later(tls: ssl.SSLContext | None) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours, theirs = connected(server)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
            theirs.close()
            loop, broken = asyncio.get_running_loop(), asyncio.Event()

            class Told(asyncio.Protocol):
                def connection_lost(self, _error: Exception | None) -> None:
                    broken.set()

            name = "localhost" if tls is not None else None
            try:
                await loop.create_connection(Told, sock=ours, ssl=tls, server_hostname=name)
            except ConnectionResetError:
                pass
            else:
                await broken.wait()

            assert ours.fileno() == -1
            del ours
            assert server.fileno() != -1

    in_our_loop(work)


def test_a_socket_that_is_handed_over_serves_its_connection() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours, theirs = connected(server)
            loop = asyncio.get_running_loop()
            with theirs:
                reader = asyncio.StreamReader()
                transport, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=ours)
                theirs.sendall(b"hello\n")
                assert await reader.readline() == b"hello\n"
                transport.close()
                assert await asyncio.to_thread(theirs.recv, 1) == b"", "closed with its transport"

    in_our_loop(work)


def test_what_is_no_stream_is_refused_and_stays_its_owners() -> None:
    async def work() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            with pytest.raises(ValueError, match="Stream Socket"):
                await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=datagrams)
            assert datagrams.fileno() != -1

    in_our_loop(work)
