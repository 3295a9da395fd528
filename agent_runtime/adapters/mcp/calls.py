# SPDX-License-Identifier: Apache-2.0
"""tools/call: a task is submitted, followed and waited for."""

import asyncio
import logging
import math
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    ResourceLink,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.mcp import resources
from agent_runtime.adapters.mcp.errors import UnfinishedError
from agent_runtime.adapters.mcp.tools import AgentTool
from agent_runtime.cancellation import end
from kubeagents_api.errors import InvalidTaskError, KubeagentsError, QueueUnavailableError
from kubeagents_api.task import StreamItem, TaskRecord, TaskRequest, TaskState

_log = logging.getLogger(__name__)

OURS: Final = "kubeagents.dev/"
"""Begins the names of what is ours in `_meta`."""
WAIT: Final = f"{OURS}waitSeconds"
"""How long a call waits at most; then it is answered with the task."""
TASK: Final = f"{OURS}task"
"""What a result says about the task behind it."""
_FIXED: Final = frozenset({"payload", "queue", "agent", "capability", "instance"})
"""Fields of a task that the tool and its arguments decide."""
_TURN_SECONDS: Final = 300.0
"""The longest wait in one call of the core."""
_REPEATED_BYTES: Final = 256 * 1024
"""A result that is larger is not in the text again: it would cost twice, and no model reads it."""
_MESSAGE_CHARACTERS: Final = 1000
"""Of a part of a result in a progress notification."""

Request = ServerRequestContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A task that a tool call has become."""

    queue: str
    task_id: str


def asked_to_wait(request: Request) -> float | None:
    """How long the client wants the call to wait; None if it does not say. Raises InvalidTaskError."""
    value = (request.meta or {}).get(WAIT)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86400:
        raise InvalidTaskError(f"_meta {WAIT} must be a number of seconds from 0 to 86400", field=f"_meta.{WAIT}")
    return float(value)


async def submit(core: Core, tool: AgentTool, params: CallToolRequestParams, meta: Mapping[str, Any] | None) -> Call:
    """Submit the task for a call. Raises InvalidTaskError and what `Core.submit` raises."""
    fields = {name.removeprefix(OURS): value for name, value in (meta or {}).items() if name.startswith(OURS)}
    fields.pop(WAIT.removeprefix(OURS), None)
    for name in sorted(_FIXED & fields.keys()):
        raise InvalidTaskError(f"_meta {OURS}{name} is decided by the tool: remove it", field=f"_meta.{OURS}{name}")
    target = {"agent": tool.agent} if tool.agent is not None else {"capability": tool.capability}
    try:
        # As JSON and strict, so that a task means the same on every wire.
        task = TaskRequest.model_validate_json(orjson.dumps({**fields, **target, "queue": tool.queue}), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        field = f"_meta.{OURS}{'.'.join(map(str, fault['loc']))}"
        raise InvalidTaskError(f"{field}: {fault['msg']}", field=field) from error
    payload = tool.payload(params.arguments)
    (task_id,) = await core.submit(tool.queue, [task.model_copy(update={"payload": payload})])
    return Call(tool.queue, task_id)


class Following:
    """Waits for calls, and cancels the tasks of those that are given up."""

    def __init__(self) -> None:
        self._aftermath: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Wait until what calls have left to do is done."""
        while self._aftermath:
            await asyncio.wait(tuple(self._aftermath))

    async def result(
        self, core: Core, call: Call, request: Request, *, tool: AgentTool, wait_seconds: float | None
    ) -> TaskRecord:
        """The task once it is final or the time is over; says meanwhile what it says. Raises UnfinishedError."""
        telling = asyncio.create_task(_tell(core, call, request, logger=tool.name))
        try:
            record = await _final(core, call, wait_seconds)
            if record.state.final:
                await telling  # what it has said last comes before its result
            return record
        except asyncio.CancelledError:
            if not core.draining and _means_cancel(request):
                self._afterwards(_cancel(core, call))
            raise
        finally:
            await end(telling)

    def _afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that a call which was cancelled cannot wait for."""
        task = asyncio.create_task(work)
        self._aftermath.add(task)
        task.add_done_callback(self._aftermath.discard)


def is_modern(request: Request) -> bool:
    """Whether the request is of a version without handshake and sessions."""
    return request.protocol_version in MODERN_PROTOCOL_VERSIONS


def _means_cancel(request: Request) -> bool:
    """Whether who stops to wait has cancelled. Not with older versions over HTTP, where a connection may be lost."""
    return is_modern(request) or request.request is None


async def _cancel(core: Core, call: Call) -> None:
    try:
        await core.cancel(call.queue, [call.task_id], by="mcp", reason="the MCP client has cancelled its call")
    except KubeagentsError as error:
        _log.warning("task %s of queue %s could not be cancelled: %s", call.task_id, call.queue, error)


async def _final(core: Core, call: Call, wait_seconds: float | None) -> TaskRecord:
    uri, name = resources.task_uri(call.queue, call.task_id), resources.task_name(call.queue, call.task_id)
    try:
        while True:
            seconds = _TURN_SECONDS if wait_seconds is None else wait_seconds
            (record,) = await core.results(call.queue, [call.task_id], timeout_seconds=seconds)
            if record.state.final or wait_seconds is not None:
                return record
            if core.draining:
                raise UnfinishedError("this server stops", code="DRAINING", task_id=name, uri=uri)
    except QueueUnavailableError as error:
        raise UnfinishedError(str(error), code=error.code, task_id=name, uri=uri) from error


async def _tell(core: Core, call: Call, request: Request, *, logger: str) -> None:
    """Pass on what a task says until it has ended, to a client that wants to hear it."""
    progress = (request.meta or {}).get("progress_token") is not None
    levels = allowed_log_levels(request.protocol_version, request.meta)
    logs = "info" in levels and (is_modern(request) or progress)
    if not (progress or logs):
        return
    teller = _Teller(request, logger=logger, progress=progress, logs=logs)
    try:
        async for item in core.stream(call.queue, call.task_id, after=""):
            await teller.tell(item)
    except KubeagentsError as error:  # the call itself may still get its result
        _log.warning("what task %s says cannot be followed: %s", call.task_id, error)


class _Teller:
    """Sends what one task says."""

    def __init__(self, request: Request, *, logger: str, progress: bool, logs: bool) -> None:
        self._request = request
        self._logger = logger
        self._progress = progress
        self._logs = logs
        self._last = 0.0

    async def tell(self, item: StreamItem) -> None:
        """Send one item."""
        data: Any = item.data
        match item.kind:
            case "progress":
                await self._report(data.get("fraction"), str(data.get("message") or ""))
            case "partial":
                await self._report(None, _text(data)[:_MESSAGE_CHARACTERS])
                await self._log(data)

    async def _report(self, fraction: float | None, message: str) -> None:
        if not self._progress:
            return
        # It must grow each time, whatever the handler says and however often the task is tried.
        grown = fraction if fraction is not None and fraction > self._last else math.nextafter(self._last, math.inf)
        self._last = grown
        total = 1.0 if fraction is not None else None
        await self._request.session.report_progress(grown, total, message or None)

    async def _log(self, data: Any) -> None:
        if self._logs:
            params = LoggingMessageNotificationParams(level="info", logger=self._logger, data=data)
            await self._request.session.send_notification(
                LoggingMessageNotification(params=params), related_request_id=self._request.request_id
            )


def about(record: TaskRecord) -> dict[str, Any]:
    """What is said about the task in the `_meta` of a result: what MCP has no word for."""
    said: dict[str, Any] = {
        "id": record.id,
        "queue": record.queue,
        "state": record.state.value,
        "attempts": record.attempts,
        "uri": resources.task_uri(record.queue, record.id),
    }
    return {TASK: said}


def outcome(record: TaskRecord, *, modern: bool) -> CallToolResult:
    """How a task ended, as the result of a call."""
    meta = about(record)
    if record.state is not TaskState.SUCCEEDED:
        failure = record.failures[-1] if record.failures else None
        code = failure.code if failure is not None else record.state.value.upper()
        message = failure.message if failure is not None else f"the task is {record.state}"
        error = {"state": record.state.value, "code": code, "message": message}
        content = [TextContent(text=f"{record.state}: {code}: {message}")]
        return CallToolResult(content=list(content), structured_content=error, is_error=True, _meta=meta)
    # Before 2026-07-28 it had to be an object.
    structured = record.result if modern or isinstance(record.result, dict) else {"result": record.result}
    return CallToolResult(
        content=[TextContent(text=_shown(record))], structured_content=structured, is_error=False, _meta=meta
    )


def handed_out(record: TaskRecord) -> CallToolResult:
    """The answer to a call that does not wait any longer, for a client that does not know tasks."""
    uri = resources.task_uri(record.queue, record.id)
    said = f"Task {record.id} is {record.state}. Its result will be at {uri}"
    link = ResourceLink(name=record.id, uri=uri, description="The task and its result.", mime_type=resources.JSON)
    structured = {"id": record.id, "queue": record.queue, "state": record.state.value, "uri": uri}
    return CallToolResult(
        content=[TextContent(text=said), link], structured_content=structured, is_error=False, _meta=about(record)
    )


def _shown(record: TaskRecord) -> str:
    text = _text(record.result)
    if len(text) <= _REPEATED_BYTES:
        return text
    uri = resources.task_uri(record.queue, record.id)
    return f"The result has {len(text.encode())} bytes: it is in structuredContent, and at {uri}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
