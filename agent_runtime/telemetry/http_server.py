# SPDX-License-Identifier: Apache-2.0
"""uvicorn inside the caller's event loop: the caller owns the signals, the socket and the end.

Limits that uvicorn lacks are set here: a request head over 64 KiB, like anything that is no HTTP, is answered with 400
and an ErrorBody. A WebSocket whose client is silent to a ping is closed, and at the end all are, but not at once:
whoever serves them may end what runs on them first.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.task import ErrorBody

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

CLIENT_CERTIFICATE = "kubeagents.client_certificate"
"""Key of the scope's `state`: the certificate that the client has shown and the handshake has verified, in PEM."""
_HEAD_LIMIT_BYTES = 65536
_PING_SECONDS = 20.0
"""Between two pings of a WebSocket, and how long one may stay unanswered."""
_LAST_SECONDS = 1.0
"""What is left of the grace when WebSockets are closed, for what has served them to end."""
_NOT_UTF8 = 1007


def error_body(message: str, *, code: str, details: dict[str, Any] | None = None) -> bytes:
    """An ErrorBody as JSON."""
    body = ErrorBody(error=message, code=code, timestamp=datetime.now(UTC), details=details or {})
    return body.model_dump_json(by_alias=True).encode()


async def respond(
    send: Send, status: int, body: bytes, *, content_type: bytes = b"application/json", headers: Headers = ()
) -> None:
    """Send a whole response."""
    length = str(len(body)).encode()
    head = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class HttpServer:
    """Serves an ASGI application on one socket from `start` to `stop`."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        host: str,
        port: int,
        max_message_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`max_message_bytes` limits each message of a WebSocket; without it there are none."""
        self._tls = tls
        self._app = app
        self._max_message_bytes = max_message_bytes
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._host, self._port

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if the address cannot be had."""
        listener = self._listen()
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none" if self._max_message_bytes is None else _WebSocketProtocol,
            ws_max_size=self._max_message_bytes or 0,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # costs more than the network between pods
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_context_factory=(lambda _, __: tls) if (tls := self._tls) is not None else None,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http-server")
        await self._server.listening.wait()

    async def stop(self, *, grace_seconds: float) -> None:
        """Stop listening, let running requests end within the grace, then cut them."""
        if self._server is None or self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, int(grace_seconds))
        self._server.should_exit = True
        await self._serving

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise RuntimeConfigError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}; free the port or configure another"
            ) from error
        listener.setblocking(False)
        return listener


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with an event instead of a flag."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 with a bounded request head, our form of errors, and the client's certificate, if it has shown one."""

    head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True) if connection is not None else None
        if shown is not None:
            # The state is copied into the scope of every request, and handed on when a WebSocket begins.
            self.app_state = {**self.app_state, CLIENT_CERTIFICATE: ssl.DER_cert_to_PEM_cert(shown)}

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > _HEAD_LIMIT_BYTES:
            raise ValueError("the head of the request is too large")  # httptools makes a parser error of it

    def send_400_response(self, msg: str) -> None:
        body = error_body(
            f"this is no valid HTTP/1.1 request, or its head is over {_HEAD_LIMIT_BYTES} bytes", code="INVALID_HTTP"
        )
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets that get their share of the grace."""

    closing: asyncio.TimerHandle | None = None

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent:
            grace = float(self.config.timeout_graceful_shutdown or 0)
            self.closing = self.loop.call_later(max(0.0, grace - _LAST_SECONDS), super().shutdown)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closing is not None:
            self.closing.cancel()
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # a refusal completes it, too: uvicorn would log an error
        if self.close_timer is not None and message["type"] == "websocket.close":
            # Whoever does not read would never let a close come to its end.
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()  # for the same reason

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # uvicorn would close it too, but log the error of the client as one of its own
                self.frames = []
                self.conn.send_close(_NOT_UTF8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()
