# SPDX-License-Identifier: Apache-2.0
"""Puts MCP on the HTTP port: /mcp, and /mcp/ws for WebSockets."""

import asyncio
import contextlib
from typing import Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.routing import Mount

from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.mcp import origins, websocket
from agent_runtime.adapters.mcp.admission import Admission
from agent_runtime.adapters.mcp.calls import Following
from agent_runtime.adapters.mcp.server import build_server
from agent_runtime.telemetry.http_server import Receive, Scope, Send, error_body, respond

PATH: Final = "/mcp"
WEBSOCKET_PATH: Final = f"{PATH}/ws"
_ENVELOPE_BYTES: Final = 64 * 1024
"""What a request may have besides its payload."""
_SETTLE_SECONDS: Final = 2.0
_ROUTE: Final = Mount(PATH, routes=[])


class McpAdapter:
    """MCP over streamable HTTP without sessions, and over WebSockets. See the package."""

    def __init__(self, surroundings: Surroundings) -> None:
        core = surroundings.core
        self._guard = surroundings.guard
        self._local = origins.is_local(surroundings.host)
        self._following = Following()
        self._server = build_server(core.name, self._following)
        self._http = StreamableHTTPSessionManager(
            self._server,
            stateless=True,
            security_settings=origins.SETTINGS if self._local else None,
            max_request_body_size=core.max_payload_bytes + _ENVELOPE_BYTES,
        )
        self._running: asyncio.Task[None] | None = None
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        surroundings.web.mount(PATH, self._app)

    async def start(self) -> None:
        """Be able to serve. The port is the HTTP port's business."""
        self._running = asyncio.create_task(self._run(), name="mcp")
        await self._started.wait()

    async def stop(self, *, grace_seconds: float) -> None:
        """Let calls end within the grace, then cut them. Cancels that are under way are finished."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        self._stopping.set()
        if self._running is not None:
            await self._running
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._following.settled()

    async def _run(self) -> None:
        # One task enters and leaves it, as anyio wants.
        async with self._http.run():
            self._started.set()
            await self._stopping.wait()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = _ROUTE  # for the figures of the port
        self._requests += 1
        self._idle.clear()
        try:
            await (self._serve_websocket if scope["type"] == "websocket" else self._serve_http)(scope, receive, send)
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._idle.set()

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].rstrip("/") != PATH:
            body = error_body(f"there is nothing at {scope['path']}: MCP is at {PATH}", code="NOT_FOUND")
            await respond(send, 404, body)
        elif not self._local and origins.refused(scope, local=False):
            await respond(send, 403, error_body("this web page may not call this server", code="ORIGIN_REFUSED"))
        elif self._stopping.is_set():
            body = error_body("this server stops; try again in 1 s", code="DRAINING")
            await respond(send, 503, body, headers=[(b"retry-after", b"1")])
        else:
            await self._http.handle_request(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].rstrip("/") != WEBSOCKET_PATH or origins.refused(scope, local=self._local):
            await receive()  # the server wants the request for a handshake to be taken before it is refused
            await send({"type": "websocket.close"})
        else:
            await websocket.serve(self._server, scope, receive, send, admission=Admission(self._guard, scope))
