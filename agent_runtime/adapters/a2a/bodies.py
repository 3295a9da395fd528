# SPDX-License-Identifier: Apache-2.0
"""Around the dispatchers of the SDK: a body is measured while it arrives, and is strict JSON when they get it.

They would take a body of any size, and some bad ones, such as numbers of thousands of digits, for faults of the server.
That they want the header `A2A-Version` also keeps web pages of others from posting here: a browser asks before it sends
one across origins.
"""

from typing import Any, Final

import orjson
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import A2AError, InvalidRequestError, JSONParseError

from agent_runtime.adapters.a2a.errors import TooLargeA2AError, status
from agent_runtime.telemetry.http_server import AsgiApp, Receive, Scope, Send, respond

ENVELOPE_BYTES: Final = 64 * 1024
"""What a message may have besides its payload."""
_DEEPEST: Final = 100
"""Levels of JSON; parsers that recurse, which are behind this, manage some hundreds."""


class Bodies:
    """An ASGI application around another."""

    def __init__(self, app: AsgiApp, *, max_payload_bytes: int) -> None:
        self._app = app
        self._limit = max_payload_bytes * 2 + ENVELOPE_BYTES  # base64 and escapes make it longer than the payload
        self._payload = max_payload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        try:
            body = await self._read(scope, receive)
            if body is None:
                return
            body = _strict(body) if body else b""
        except A2AError as error:
            return await _refuse(error, scope, send)
        given = False

        async def replay() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client has gone."""
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> TooLargeA2AError:
        return TooLargeA2AError(
            f"the body has more than {self._limit} bytes: a payload may have {self._payload}, put larger ones "
            "elsewhere and send where",
            {"code": "BODY_TOO_LARGE"},
        )


def _strict(body: bytes) -> bytes:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JSONParseError(f"the body is no JSON: {error}", {"code": "INVALID_JSON"}) from error
    if body.count(b"{") + body.count(b"[") > _DEEPEST and _is_deep(value):
        raise InvalidRequestError(f"the body is deeper than {_DEEPEST} levels", {"code": "INVALID_REQUEST"})
    return orjson.dumps(value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True


async def _refuse(error: A2AError, scope: Scope, send: Send) -> None:
    """In the form of the binding, which the path tells."""
    is_rest = "/message:" in scope["path"] or "/tasks" in scope["path"]
    mapping, _ = status(error)
    code = 400 if isinstance(error, JSONParseError) else mapping.http_code
    if is_rest:
        answer = build_rest_error_payload(InvalidRequestError(error.message, error.data) if code == 400 else error)
    else:
        answer = build_error_response(None, error)
        code = 200 if code == 400 else code
    await respond(send, code, orjson.dumps(answer))
