# SPDX-License-Identifier: Apache-2.0
"""The adapter for WebSockets, and one client's connection."""

import asyncio
import contextlib
import logging
from typing import Final
from urllib.parse import urlsplit

from agent_runtime.adapters.base import Core, Surroundings
from agent_runtime.adapters.calls.figures import Figures
from agent_runtime.adapters.calls.session import Session
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.envelope import REQUEST_ID
from agent_runtime.cancellation import end
from agent_runtime.security import Credentials, Guard, GuardedCore
from agent_runtime.telemetry.http_server import Receive, Scope, Send, error_body, respond
from kubeagents_api.errors import UnauthenticatedError

_log = logging.getLogger(__name__)

PATH: Final = "/v1/ws"
SUBPROTOCOL: Final = "kubeagents.v1"

_UNSUPPORTED = 1003
_NOT_ALLOWED = 1008
_RESTARTING = 1012


class WebSocketAdapter:
    """Answers at /v1/ws."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._core = surroundings.core
        self._guard = surroundings.guard
        self._figures = Figures("websocket", registry=surroundings.registry)
        self._connections: set[_Connection] = set()
        self._announcing: asyncio.Task[None] | None = None
        surroundings.web.mount(PATH, self._answer)

    async def start(self) -> None:
        """The port is shared; only what is to be told when the process stops is listened for."""
        self._announcing = asyncio.create_task(self._announce(), name="websocket-drain")

    async def stop(self, *, grace_seconds: float) -> None:
        """Close each connection once its calls have ended; after the grace, all."""
        if self._announcing is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._announcing
                await asyncio.gather(*(connection.finish() for connection in self._connections))
        await end(self._announcing)

    async def _announce(self) -> None:
        await self._core.drained()
        await asyncio.gather(*(connection.session.notice_draining() for connection in self._connections))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            return await _refuse(scope, receive, send, 404, "NOT_FOUND", f"there is nothing here; it is at {PATH}")
        if scope["type"] != "websocket":
            message = f"{PATH} is for WebSockets: send a handshake, or see /docs for what there is without one"
            body = error_body(message, code="UPGRADE_REQUIRED")
            return await respond(send, 426, body, headers=[(b"upgrade", b"websocket")])
        if (trouble := _foreign(scope)) is not None:
            return await _refuse(scope, receive, send, 403, "ORIGIN_REFUSED", trouble)
        await receive()  # the request for a handshake
        offered = scope.get("subprotocols", ())
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        connection = _Connection(scope, receive, send, core=self._core, guard=self._guard, figures=self._figures)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """One client's."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, core: Core, guard: Guard | None, figures: Figures
    ) -> None:
        self._receive = receive
        self._send = send
        self._core = core
        self._guard = guard
        self._caller = current.caller if isinstance(current := callers.current_core(), GuardedCore) else None
        self._credentials: Credentials = callers.credentials(scope, request=scope["state"][REQUEST_ID])
        self._closed = False
        by = self._caller.name if self._caller is not None else self._credentials.address or "unknown"
        self.session = Session(admit=self._admit, send=self._send_text, by=by, figures=figures)

    async def run(self) -> None:
        """Until it goes."""
        watch = asyncio.create_task(self._watch())
        try:
            if self._core.draining:
                await self.session.notice_draining()
            while (message := await self._receive())["type"] == "websocket.receive":
                if (text := message.get("text")) is None:
                    await self._close(_UNSUPPORTED, "messages are JSON in text frames")
                else:
                    await self.session.receive(text)
        finally:
            self._closed = True
            await end(watch)
            await self.session.close()

    async def finish(self) -> None:
        """Close it once its calls have been answered."""
        await self.session.finish()
        await self._close(_RESTARTING, "this pod stops")

    async def _admit(self) -> Core:
        return self._core if self._guard is None else await self._guard.admit(self._credentials)

    async def _watch(self) -> None:
        """Close it if the key is not valid any more."""
        if self._guard is None or self._caller is None:
            return
        try:
            await self._guard.watch(self._caller, self._credentials)
        except UnauthenticatedError as error:
            await self.session.fail(error)
            await self._close(_NOT_ALLOWED, error.code)

    async def _send_text(self, text: str) -> None:
        if self._closed:
            raise BrokenPipeError("the connection is closed")
        await self._send({"type": "websocket.send", "text": text})

    async def _close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the client was first
                await self._send({"type": "websocket.close", "code": code, "reason": reason})


def _foreign(scope: Scope) -> str | None:
    """What is wrong if the page of somebody else wants a connection: browsers let them, and say whose page it is."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"origin", b"host")}
    origin = headers.get(b"origin")
    if origin is None or urlsplit(origin).netloc.lower() == headers.get(b"host", "").lower():
        return None
    return f"pages of {origin!r} may not connect to {headers.get(b'host', '')!r}"


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str) -> None:
    body = error_body(message, code=code)
    if scope["type"] != "websocket":
        return await respond(send, status, body)
    await receive()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": head})
    await send({"type": "websocket.http.response.body", "body": body})
