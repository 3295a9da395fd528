# SPDX-License-Identifier: Apache-2.0
"""Around every request: its id, whose it is, its figures, its log line, and the last catch."""

import logging
import uuid
from collections.abc import Container, MutableMapping
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.headers import REQUEST_ID_HEADER, request_id
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.errors import refusal
from agent_runtime.security import Guard
from agent_runtime.telemetry import logs
from agent_runtime.telemetry.http_server import AsgiApp, Receive, Scope, Send, error_body, respond
from agent_runtime.telemetry.probes import PROBE_PATHS
from kubeagents_api.errors import KubeagentsError

_log = logging.getLogger(__name__)

REQUEST_ID = "request_id"
"""Where the `state` of a request has its id."""
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_REQUEST_ID_NAME = REQUEST_ID_HEADER.encode()


class Envelope:
    """An ASGI application around another; probes bypass it."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        core: Core,
        guard: Guard | None,
        public: Container[str],
        probes: AsgiApp,
        registry: CollectorRegistry,
    ) -> None:
        """Without a guard, whoever reaches the port may do everything; with one, still what is at `public` paths."""
        self._app = app
        self._core = core
        self._guard = guard
        self._public = public
        self._probes = probes
        self._requests = Counter(
            "kubeagents_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "kubeagents_http_request_seconds",
            "Time from a request to the end of its answer; long polls are as long as they wait.",
            ["route"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one WebSocket from its handshake to its end."""
        if scope["type"] == "http" and scope["path"] in PROBE_PATHS:
            return await self._probes(scope, receive, send)
        request_id = scope.setdefault("state", {})[REQUEST_ID] = _request_id(scope)
        token = logs.bind({"request": request_id})
        started = perf_counter()
        status = 0

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            if message["type"] in _STARTS:
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                if self._core.draining:
                    headers["connection"] = "close"  # so that the client's next request goes to another pod
            await send(message)

        try:
            bound = callers.bind(await self._core_for(scope, request_id))
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                callers.unbind(bound)
        except KubeagentsError as error:  # of the guard: what the application raises, it answers itself
            await self._refuse(error, scope, receive, send_with_id)
        except ClientDisconnect:
            status = 499
        except Exception:
            _log.exception("%s %s failed", _method(scope), scope["path"])
            if status == 0 and scope["type"] == "http":
                body = error_body(
                    f"something went wrong in the server; its log has more under request {request_id}",
                    code="INTERNAL",
                    details={"requestId": request_id},
                )
                await respond(send_with_id, 500, body)
        finally:
            seconds = perf_counter() - started
            self._record(scope, status, seconds)
            logs.unbind(token)

    async def _core_for(self, scope: Scope, request_id: str) -> Core:
        if self._guard is None:
            return self._core
        credentials = callers.credentials(scope, request=request_id)
        if scope["path"] in self._public:
            return self._guard.admit_anybody(credentials)
        return await self._guard.admit(credentials)

    async def _refuse(self, error: KubeagentsError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an error of the guard. A WebSocket gets it instead of its handshake."""
        if scope["type"] == "websocket":
            await receive()  # the server wants the request for a handshake to be taken before it is refused
        await refusal(error)(scope, receive, send)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, not the path: a label per task id would never end.
        route = getattr(scope.get("route"), "path", "none")
        self._requests.labels(_method(scope), route, status).inc()
        self._seconds.labels(route).observe(seconds)
        level = logging.INFO if status >= 400 else logging.DEBUG
        _log.log(level, "%s %s -> %d in %.1f ms", _method(scope), scope["path"], status, seconds * 1000)


def _method(scope: Scope) -> str:
    return str(scope["method"]) if scope["type"] == "http" else "WEBSOCKET"


def _request_id(scope: Scope) -> str:
    given = (
        (REQUEST_ID_HEADER, value.decode("latin-1")) for name, value in scope["headers"] if name == _REQUEST_ID_NAME
    )
    return request_id(given) or uuid.uuid4().hex
