# SPDX-License-Identifier: Apache-2.0
"""MCP over streamable HTTP, by the client of its SDK."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar

import httpx2
from mcp import Client as McpSession
from mcp.client import advertise
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result, TextResourceContents
from pydantic import ConfigDict

from tests.conformance.protocols.driver import BrokenError, Client, Driver, Errand, Outcome, RefusedError, Said
from tests.conformance.protocols.drivers.overheard import Overheard, code_in
from tests.conformance.protocols.features import Feature
from tests.support.eventually import eventually_async

OURS = "kubeagents.dev/"


class McpDriver(Driver):
    """Agents as tools."""

    name = "mcp"
    title = "MCP"
    endpoint = "mcp"
    client = "the MCP SDK"
    offers: ClassVar = {
        Feature.ROUND_TRIP: "`tools/call`; the result is in `structuredContent`",
        Feature.STREAM: "progress and log notifications of the call",
        Feature.CANCEL: "`tasks/cancel`; also by cancelling the call",
        Feature.DEADLINE: "`_meta` `kubeagents.dev/deadline`",
        Feature.PRIORITY: "`_meta` `kubeagents.dev/priority`",
        Feature.IDEMPOTENCY: "`_meta` `kubeagents.dev/idempotencyKey`",
        Feature.LARGE: "an error of JSON-RPC over the limit",
        Feature.MALFORMED: "an error of JSON-RPC; ours have a `code` in `data`",
        Feature.UNAUTHENTICATED: "401; `Authorization: Bearer` or `x-api-key`",
        Feature.FORBIDDEN: "an agent that one may not use is no tool; `FORBIDDEN` for the rest",
        Feature.DRAIN: "`DRAINING`, with the id of the task, which goes on",
        Feature.REPLICAS: "any replica answers: no sessions",
    }
    lacks: ClassVar = {
        Feature.BATCH: "a call is one task, and a request of MCP is one call",
        Feature.RECONNECT: "notifications belong to one call; a task that was handed out is read again as a resource, "
        "or by `tasks/get`, over any connection",
    }
    not_allowed = "TOOL_NOT_FOUND"

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[Client]:
        """A client without a session."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        overheard = Overheard()
        async with httpx2.AsyncClient(headers=headers, timeout=90, event_hooks={"response": [overheard]}) as http:
            yield _McpClient(http, f"http://127.0.0.1:{port}/mcp", overheard)


class _TaskParams(RequestParams):
    model_config = ConfigDict(extra="allow")


class _TaskRequest(Request[_TaskParams, str]):
    name_param = "taskId"


class _McpClient(Client):
    def __init__(self, http: httpx2.AsyncClient, url: str, overheard: Overheard) -> None:
        self._http = http
        self._url = url
        self._overheard = overheard

    async def submit(self, errand: Errand) -> str:
        found = await self._call(errand, {f"{OURS}waitSeconds": 0})
        task: str = found.meta[f"{OURS}task"]["id"]
        return task

    async def run(self, errand: Errand) -> Outcome:
        return _outcome(await self._call(errand, {}))

    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        async with self._session() as session:

            async def final() -> dict[str, Any]:
                with self._translating():
                    uri = f"kubeagents://queues/main/tasks/{task}"
                    (content,) = (await session.read_resource(uri)).contents
                assert isinstance(content, TextResourceContents)
                record: dict[str, Any] = json.loads(content.text)
                assert "finishedAt" in record, record
                return record

            found = await eventually_async(final, what=f"task {task} is final", timeout=seconds)
        return Outcome(found["id"], found["state"], found.get("result"))

    async def cancel(self, task: str, *, reason: str) -> None:
        params = _TaskParams.model_validate({"taskId": f"main/{task}"})
        async with self._session(extensions=[advertise("io.modelcontextprotocol/tasks")]) as session:
            with self._translating():
                await session.session.send_request(_TaskRequest(method="tasks/cancel", params=params), Result)

    async def listen(self, errand: Errand) -> AsyncIterator[Said]:
        said: asyncio.Queue[Said | Exception] = asyncio.Queue()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            if total is not None:
                said.put_nowait(Said("", "progress", {"fraction": progress}))

        async def on_log(params: Any) -> None:
            said.put_nowait(Said("", "partial", params.data))

        task = uuid.uuid4().hex

        async def call() -> None:
            try:
                found = await self._call(
                    errand, {f"{OURS}id": task}, on_progress=on_progress, logging_callback=on_log, log_level="info"
                )
                said.put_nowait(Said("", "end", found.meta[f"{OURS}task"]["state"]))
            except Exception as error:
                said.put_nowait(error)

        async with asyncio.TaskGroup() as group:
            group.create_task(call())
            yield Said("", "task", task)
            while True:
                match await said.get():
                    case Exception() as error:
                        raise error
                    case Said(kind="end") as end:
                        yield end
                        return
                    case Said() as item:
                        yield item

    async def malformed(self) -> Mapping[str, str]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }

        def call(params: Any) -> bytes:
            return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()

        bodies = {
            "no JSON": b"{",
            "a list": b"[]",
            "half a character": b'"\xc3"',
            "another version of JSON-RPC": b'{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}',
            "parameters that are a list": call([1]),
            "no tool": call({"_meta": meta}),
            "a tool that does not exist": call({"name": "nothing", "_meta": meta}),
            "a priority that does not exist": call({"name": "worker", "_meta": {**meta, f"{OURS}priority": 10}}),
            "nesting without end": b"[" * 100_000,
        }
        headers = {
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call",
        }  # fmt: skip
        found = {}
        for what, body in bodies.items():
            names = {"mcp-name": json.loads(body)["params"]["name"]} if b'"name"' in body else {}
            answer = await self._http.post(self._url, content=body, headers=headers | names)
            assert 400 <= answer.status_code < 500, (what, answer.text)
            error = answer.json()["error"]
            data = error.get("data")
            # What the SDK refuses has a number only.
            found[what] = data["code"] if isinstance(data, dict) and "code" in data else f"RPC{-error['code']}"
            assert error["code"] != -32603, (what, error)
        return found

    async def _call(self, errand: Errand, more: Mapping[str, Any], *, on_progress: Any = None, **settings: Any) -> Any:
        wire = {name: value for name, value in errand.to_wire().items() if name not in ("payload", "agent")}
        meta: Any = {**{OURS + name: value for name, value in wire.items()}, **more}
        async with self._session(**settings) as session:
            with self._translating():
                return await session.call_tool(errand.agent, errand.payload, meta=meta, progress_callback=on_progress)

    @contextlib.asynccontextmanager
    async def _session(self, **settings: Any) -> AsyncIterator[McpSession]:
        # Of its own for each call: there is nothing to keep, and the SDK's are bound to the task that opens them.
        with self._translating():
            async with McpSession(streamable_http_client(self._url, http_client=self._http), **settings) as session:
                yield session

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """The SDK drops what comes with a status of HTTP that is an error."""
        try:
            yield
        except ExceptionGroup as group:  # its task groups wrap what a block of ours raises
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            with self._translating():
                raise error from group
        except MCPError as error:
            code = code_in(error.data) or self._overheard.code()
            if code is None:
                raise BrokenError(repr(error)) from error
            raise RefusedError(code, error.message) from error
        except httpx2.TransportError as error:
            raise BrokenError(repr(error)) from error


def _outcome(found: CallToolResult) -> Outcome:
    assert found.meta is not None
    task = found.meta[f"{OURS}task"]
    return Outcome(task["id"], task["state"], found.structured_content if not found.is_error else None)
