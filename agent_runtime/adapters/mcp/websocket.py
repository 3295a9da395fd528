# SPDX-License-Identifier: Apache-2.0
"""MCP over a WebSocket: each message of JSON-RPC is one text message. The subprotocol is `mcp`."""

import contextlib
from typing import Any, Final

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.jsonrpc import jsonrpc_message_adapter
from pydantic import ValidationError

from agent_runtime.adapters.mcp.admission import Admission
from agent_runtime.adapters.mcp.errors import UNAVAILABLE
from agent_runtime.telemetry.http_server import Receive, Scope, Send
from kubeagents_api.errors import UnauthenticatedError

SUBPROTOCOL: Final = "mcp"
_MOST_REQUESTS: Final = 256
"""Of one connection, that wait for their answers."""
_NOT_ALLOWED: Final = 1008
_REFUSED: Final = 1002
"""The client does not speak the protocol."""


async def serve(server: Server[Any], scope: Scope, receive: Receive, send: Send, *, admission: Admission) -> None:
    """Serve one connection, from its handshake to its end, or until its key is not valid any more."""
    await receive()  # the request for the handshake
    if SUBPROTOCOL not in scope["subprotocols"]:
        await send({"type": "websocket.close", "code": _REFUSED, "reason": f"offer the subprotocol {SUBPROTOCOL}"})
        return
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    admission.apply()
    await _Connection(server, receive, send, admission).run()


class _Connection:
    """One client's, once it is accepted."""

    def __init__(self, server: Server[Any], receive: Receive, send: Send, admission: Admission) -> None:
        self._server = server
        self._receive = receive
        self._send = send
        self._admission = admission
        self._said, self._heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._to_send, self._to_be_sent = anyio.create_memory_object_stream[SessionMessage](0)
        self._pending: set[RequestId] = set()
        """Requests that have not been answered."""

    async def run(self) -> None:
        """Until it ends, or its key is not valid any more."""
        async with anyio.create_task_group() as group:
            for part in (self._watch, self._read, self._write):
                group.start_soon(part, group.cancel_scope)
            await self._server.run(self._heard, self._to_send, self._server.create_initialization_options())
            group.cancel_scope.cancel()

    async def _read(self, whole: anyio.CancelScope) -> None:
        async with self._said:
            while (message := await self._receive())["type"] == "websocket.receive":
                parsed = self._admitted(_parsed(message))
                if isinstance(parsed, JSONRPCError):
                    await self._tell(parsed)
                else:
                    await self._said.send(SessionMessage(parsed))
        whole.cancel()  # nobody reads answers any more

    def _admitted(self, message: JSONRPCMessage) -> JSONRPCMessage:
        """The message, or the error for one request too many."""
        match message:
            case JSONRPCRequest(id=name) if len(self._pending) >= _MOST_REQUESTS:
                said = f"{_MOST_REQUESTS} requests wait for their answers on this connection already; try again in 1 s"
                data = {"code": "TOO_MANY_CALLS", "retryAfterSeconds": 1}
                return JSONRPCError(jsonrpc="2.0", id=name, error=ErrorData(code=UNAVAILABLE, message=said, data=data))
            case JSONRPCRequest(id=name):
                self._pending.add(name)
            case JSONRPCNotification(method="notifications/cancelled", params=params):
                self._pending.discard((params or {}).get("requestId", ""))  # it will not be answered
        return message

    async def _write(self, _: anyio.CancelScope) -> None:
        async with self._to_be_sent:
            async for message in self._to_be_sent:
                if isinstance(message.message, JSONRPCResponse | JSONRPCError) and message.message.id is not None:
                    self._pending.discard(message.message.id)
                await self._tell(message.message)

    async def _watch(self, whole: anyio.CancelScope) -> None:
        try:
            await self._admission.watch()
        except UnauthenticatedError as error:
            with contextlib.suppress(OSError):
                await self._send({"type": "websocket.close", "code": _NOT_ALLOWED, "reason": error.code})
            whole.cancel()

    async def _tell(self, message: JSONRPCMessage) -> None:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
        with contextlib.suppress(OSError):  # the client has gone, which is read as well
            await self._send({"type": "websocket.send", "text": text})


def _parsed(message: Any) -> JSONRPCMessage:
    """What a client has sent; the error for what is no message of JSON-RPC."""
    text = message.get("text") or message.get("bytes") or b""
    try:
        parsed: JSONRPCMessage = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        syntax = any(fault["type"] == "json_invalid" for fault in error.errors(include_url=False))
        code, said = (PARSE_ERROR, "Parse error") if syntax else (INVALID_REQUEST, "Not a message of JSON-RPC 2.0")
        return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=said))
    return parsed
