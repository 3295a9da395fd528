# SPDX-License-Identifier: Apache-2.0
"""MCP over a WebSocket: each message of JSON-RPC is one text message. The subprotocol is `mcp`."""

import logging
from typing import Any, Final

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCMessage
from mcp_types.jsonrpc import jsonrpc_message_adapter
from pydantic import ValidationError

from agent_runtime.telemetry.http_server import Receive, Scope, Send

_log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "mcp"
_REFUSED: Final = 1002
"""The client does not speak the protocol."""


async def serve(server: Server[Any], scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection, from its handshake to its end."""
    await receive()  # the request for the handshake
    if SUBPROTOCOL not in scope["subprotocols"]:
        await send({"type": "websocket.close", "code": _REFUSED, "reason": f"offer the subprotocol {SUBPROTOCOL}"})
        return
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    said, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_send, to_be_sent = anyio.create_memory_object_stream[SessionMessage](0)

    async def tell(message: JSONRPCMessage) -> None:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
        await send({"type": "websocket.send", "text": text})

    async def read() -> None:
        async with said:
            while (message := await receive())["type"] == "websocket.receive":
                parsed = _parsed(message)
                if isinstance(parsed, JSONRPCError):
                    await tell(parsed)
                else:
                    await said.send(SessionMessage(parsed))
        serving.cancel()  # nobody reads answers any more

    async def write() -> None:
        async with to_be_sent:
            async for message in to_be_sent:
                await tell(message.message)

    async with anyio.create_task_group() as group:
        serving = group.cancel_scope
        group.start_soon(read)
        group.start_soon(write)
        await server.run(heard, to_send, server.create_initialization_options())
        group.cancel_scope.cancel()


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
