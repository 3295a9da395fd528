# SPDX-License-Identifier: Apache-2.0
"""HTTP: each call is a request, each stream one whose answer does not end (server-sent events)."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import UnknownServerError, UnreachableError, from_body, unreachable
from agent_runtime.client.transport import Params, given
from kubeagents_api.errors import KubeagentsError

_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 4.0
"""How long a connection is kept for the next call: a little less than servers keep theirs."""
_MOST_SHORT_CALLS: Final = 64
"""At once, so that many do not open as many connections. Those that wait on purpose do not count."""
_WAITS: Final = frozenset({"results", "work.claim"})
_NO_SUCH_CALLS: Final = frozenset({"NOT_FOUND", "METHOD_NOT_ALLOWED"})
"""What a process of ours answers that is no CentralAgent, or an old one."""
_GATEWAY_TROUBLES: Final = frozenset({502, 503, 504})
"""What something between us and the CentralAgent answers that does not reach it."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)


def _in_queue(method: str, rest: str = "", *, query: bool = False) -> Callable[[Params], _Request]:
    """A call below `/v1/queues/{queue}`; what is no part of the path is the body, or the query."""

    def request(params: Params) -> _Request:
        left = dict(params)
        path = f"/v1/queues/{quote(left.pop('queue'), safe='')}"
        for part in filter(None, rest.split("/")):
            path += "/" + (quote(left.pop(part[1:-1]), safe="") if part.startswith("{") else part)
        if query:
            return _Request(method, path, query=left)
        return _Request(method, path, None if method == "GET" else left)

    return request


_REQUESTS: Final[dict[str, Callable[[Params], _Request]]] = {
    "submit": lambda params: _Request("POST", "/v1/tasks", params["task"]),
    "submitBatch": lambda params: _Request("POST", "/v1/tasks/batch", params),
    "task": _in_queue("GET", "tasks/{id}"),
    "results": _in_queue("POST", "results"),
    "cancel": _in_queue("POST", "cancel"),
    "stats": _in_queue("GET"),
    "queues": lambda _: _Request("GET", "/v1/queues"),
    "agents": lambda params: _Request("GET", "/v1/agents", query=dict(params)),
    **{
        f"work.{name}": _in_queue("POST", f"work/{name}")
        for name in ("register", "beat", "claim", "extend", "settle", "release", "emit", "parents", "leave")
    },
}
_STREAMS: Final[dict[str, Callable[[Params], _Request]]] = {
    "watch": _in_queue("GET", "tasks/{id}/stream", query=True),
    "events": _in_queue("GET", "events", query=True),
    "work.revoked": _in_queue("POST", "work/revoked"),
}


class HttpTransport:
    """A Transport. Connections are kept and used again."""

    def __init__(self, endpoint: Endpoint, *, key: Key, trust: Trust) -> None:
        self._endpoint = endpoint
        self._key = key
        self._client = httpx.AsyncClient(
            base_url=endpoint.url,
            verify=trust.context() if endpoint.secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=_IDLE_SECONDS),
        )
        self._turns = asyncio.Semaphore(_MOST_SHORT_CALLS)
        self.draining = False

    async def call(self, name: str, params: Params, *, timeout_seconds: float) -> Any:
        """See Transport."""
        request = _REQUESTS[name](given(params))
        async with self._turns if name not in _WAITS else contextlib.nullcontext():
            response = await self._send(request, timeout_seconds=timeout_seconds)
        if not response.is_success:
            raise self._refusal(request, response)
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        return self._decoded(request, response.content)

    async def stream(self, name: str, params: Params, *, silence_seconds: float) -> AsyncGenerator[Any, None]:
        """See Transport."""
        request = _STREAMS[name](given(params))
        timeout = httpx.Timeout(silence_seconds, connect=_CONNECT_SECONDS)
        headers, content = self._written(request)
        headers["accept"] = "text/event-stream"
        try:
            async with self._client.stream(
                request.method,
                request.path,
                params=request.query or None,
                content=content,
                headers=headers,
                timeout=timeout,
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise self._refusal(request, response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise self._not_ours(f"{request.method} {request.path} answered with something that is no stream")
                self.draining = _closes(response)
                async for kind, data in _events(response.aiter_lines()):
                    if kind == "end":
                        return
                    if kind == "fault":
                        raise from_body(data) or self._not_ours("a fault in a stream has no code")
                    yield self._decoded(request, data)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        raise UnreachableError(f"{self._endpoint} has cut a stream off")

    async def probe(self, *, timeout_seconds: float) -> None:
        """See Transport."""
        response = await self._send(_Request("GET", "/readyz"), timeout_seconds=timeout_seconds)
        if response.status_code in _GATEWAY_TROUBLES and not response.content.startswith(b'{"ok"'):
            raise self._refusal(_Request("GET", "/readyz"), response)
        try:
            self.draining = orjson.loads(response.content)["checks"]["draining"] != "ok"
        except (ValueError, KeyError, TypeError):  # whatever is in front does not let probes pass
            self.draining = False

    async def reset(self) -> None:
        """See Transport. The key is shown with each request, so there is nothing to do."""

    async def aclose(self) -> None:
        """See Transport."""
        await self._client.aclose()

    async def _send(self, request: _Request, *, timeout_seconds: float) -> httpx.Response:
        headers, content = self._written(request)
        timeout = httpx.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds))
        try:
            response = await self._client.request(
                request.method,
                request.path,
                params=request.query or None,
                content=content,
                headers=headers,
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        self.draining = _closes(response)
        return response

    def _written(self, request: _Request) -> tuple[dict[str, str], bytes | None]:
        """Headers and body."""
        headers = self._key.headers()
        if request.body is None:
            return headers, None
        headers["content-type"] = "application/json"
        return headers, orjson.dumps(request.body)

    def _decoded(self, request: _Request, content: bytes | str) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._not_ours(f"{request.method} {request.path} answered with something that is not JSON") from None

    def _refusal(self, request: _Request, response: httpx.Response) -> KubeagentsError:
        status = response.status_code
        seconds = response.headers.get("retry-after", "")
        retry_after = float(seconds) if seconds.isdigit() else None
        error = from_body(response.content, retry_after=retry_after, passing=status >= 500)
        if error is not None:
            return self._not_ours(str(error)) if error.code in _NO_SUCH_CALLS else error
        what = f"{request.method} {request.path} answered {status}"
        if status in _GATEWAY_TROUBLES:
            return UnreachableError(f"{self._endpoint} does not get through to a CentralAgent: {what}")
        return self._not_ours(what)

    def _unreachable(self, error: httpx.HTTPError) -> KubeagentsError:
        if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
            return EndpointError(f"{self._endpoint}: {error}")
        what = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return unreachable(self._endpoint, what, sent=False)
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(f"{self._endpoint} does not answer")
        return UnreachableError(f"the connection to {self._endpoint} broke: {what}")

    def _not_ours(self, what: str) -> UnknownServerError:
        return UnknownServerError(f"{self._endpoint} does not look like a CentralAgent: {what}")


def _closes(response: httpx.Response) -> bool:
    # Our servers say so while they drain, so that the next request goes elsewhere.
    return "close" in response.headers.get_list("connection")


async def _events(lines: AsyncIterator[str]) -> AsyncGenerator[tuple[str, str], None]:
    """Server-sent events: kind and data."""
    kind, data = "", ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line and data:
            yield kind, data
            kind, data = "", ""
