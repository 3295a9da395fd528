# SPDX-License-Identifier: Apache-2.0
"""The event loop of all our processes: uvloop, whose defect with sockets that it is handed is kept away from here."""

import asyncio
import socket
from typing import Any

import uvloop


class EventLoop(uvloop.Loop):
    """uvloop that takes a socket over for good when it is to make a connection of it, as asyncio does."""

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> Any:
        """See asyncio.

        uvloop (0.23) closes the file descriptor of a connection that breaks in its first moment, and leaves the number
        of it in the socket object. When that is collected, the descriptor is closed once more, and by then it may be
        somebody else's: of a watch, of Redis. So it gets an object that never closes anything.
        """
        if isinstance(sock, socket.socket) and sock.type == socket.SOCK_STREAM:
            sock = _Lent(sock.family, sock.type, sock.proto, fileno=sock.detach())
        return await super().create_connection(protocol_factory, host, port, sock=sock, **options)


class _Lent(socket.socket):
    """A socket whose descriptor belongs to the loop."""

    def __del__(self) -> None:
        self.detach()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop factory of every `asyncio.Runner` of ours."""
    return EventLoop()
