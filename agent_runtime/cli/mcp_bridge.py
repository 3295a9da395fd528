# SPDX-License-Identifier: Apache-2.0
"""From MCP on stdin and stdout to the /mcp of a CentralAgent.

Every request goes there by itself, so the CentralAgent may be restarted meanwhile, and its pods may take turns. The
client here may speak any version; there it is always the newest one, in which giving up a call cancels its task.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from agent_runtime.cli.errors import CliError
from agent_runtime.telemetry.metrics import RUNTIME_VERSION

if TYPE_CHECKING:
    from agent_runtime.cli.server import Server as Target

_VERSION: Final = "2026-07-28"
_KEY_HEADER: Final = "x-api-key"
_OURS: Final = "kubeagents.dev/"
_UNREACHABLE: Final = -32006
"""The code with which a CentralAgent itself says that something does not answer."""
_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 60.0
"""A call that takes long says something every 15 s, if only that it is still there."""

Request = ServerRequestContext[Any, Any]


class _RefusedError(Exception):
    """The server has answered with an error that is not MCP's: of the API key, or of what is on the way."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


async def serve(target: "Target") -> None:
    """Serve until the input ends. Raises CliError if the server does not answer now."""
    # Not as Authorization: on the way through the Kubernetes API server that is for the latter.
    key = {_KEY_HEADER: target.key} if target.key is not None else {}
    connection = {**target.connection, "headers": {**target.connection.get("headers", {}), **key}}
    async with httpx2.AsyncClient(
        timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        event_hooks={"response": [_raise_refusal]},
        **connection,
    ) as http:
        bridge = _Bridge(target, http)
        try:
            async with bridge.remote("auto") as there:
                server = bridge.server(there.instructions)
        except MCPError as error:
            raise CliError(error.message) from error
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


async def _raise_refusal(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    try:
        body = json.loads(await response.aread())
    except ValueError:
        body = None
    match body:
        case {"error": str(message), "code": str(code)}:
            raise _RefusedError(message, code=code)
        case {"jsonrpc": "2.0"}:
            return
    raise _RefusedError(f"it has answered with HTTP {response.status_code}", code=f"HTTP_{response.status_code}")


class _Bridge:
    """Answers by asking there."""

    def __init__(self, target: "Target", http: httpx2.AsyncClient) -> None:
        self._target = target
        self._url = f"{target.url.rstrip('/')}/mcp"
        self._http = http

    def server(self, instructions: str | None) -> Server[Any]:
        """The server for the client here."""
        return Server(
            "kubeagents",
            version=RUNTIME_VERSION,
            instructions=instructions,
            get_tool_input_schema=lambda _: None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )

    @contextlib.asynccontextmanager
    async def remote(self, mode: str = _VERSION) -> AsyncIterator[Client]:
        """A client of the CentralAgent, for one request. Raises MCPError, also for what is on the way."""
        transport = streamable_http_client(self._url, http_client=self._http, max_sse_event_size=None)
        with self._as_mcp():
            async with Client(transport, mode=mode) as client:
                yield client

    @contextlib.contextmanager
    def _as_mcp(self) -> Iterator[None]:
        """Take what went wrong out of the groups that it comes in."""
        try:
            yield
        except BaseExceptionGroup as group:
            causes = list(_leaves(group))
            for cause in causes:
                if isinstance(cause, _RefusedError):
                    raise MCPError(_UNREACHABLE, f"{self._where}: {cause}", {"code": cause.code}) from cause
            for cause in causes:
                if isinstance(cause, httpx2.HTTPError):
                    said = f"{self._where} does not answer: {cause or type(cause).__name__}. {self._target.advice}"
                    raise MCPError(_UNREACHABLE, said, {"code": "UNREACHABLE"}) from cause
            for cause in causes:
                if isinstance(cause, MCPError):
                    raise cause from None
            raise

    @property
    def _where(self) -> str:
        return f"the CentralAgent at {self._target.describe()}"

    async def _list_tools(self, request: Request, params: PaginatedRequestParams | None) -> ListToolsResult:
        async with self.remote() as there:
            return await there.list_tools()

    async def _call_tool(self, request: Request, params: CallToolRequestParams) -> CallToolResult:
        given = request.meta or {}
        meta: Any = {name: value for name, value in given.items() if name.startswith(_OURS)}

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            await request.session.report_progress(progress, total, message)

        wants_progress = given.get("progress_token") is not None
        async with self.remote() as there:
            result = await there.call_tool(
                params.name, params.arguments, progress_callback=on_progress if wants_progress else None, meta=meta
            )
        if request.protocol_version != _VERSION and not isinstance(result.structured_content, dict | None):
            return result.model_copy(update={"structured_content": {"result": result.structured_content}})
        return result

    async def _list_resources(self, request: Request, params: PaginatedRequestParams | None) -> ListResourcesResult:
        async with self.remote() as there:
            return await there.list_resources()

    async def _list_templates(
        self, request: Request, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        async with self.remote() as there:
            return await there.list_resource_templates()

    async def _read_resource(self, request: Request, params: ReadResourceRequestParams) -> ReadResourceResult:
        async with self.remote() as there:
            return await there.read_resource(str(params.uri))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
