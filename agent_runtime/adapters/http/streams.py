# SPDX-License-Identifier: Apache-2.0
"""What comes bit by bit: the events of a queue, and what a running task says.

As server-sent events (text/event-stream) each item has its offset as `id`, so that a browser that reconnects goes on
where it was by itself, and a silence is broken by comments. For programs there are lines of JSON
(application/x-ndjson). The stream of a task closes with `end`. One that closes without was cut: the pod stopped, or its
queue broke, which is said by `fault`. Reconnect and go on after the last offset.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Final

from fastapi import Query, Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.answers import CLIENT_GONE, QueueName, TaskPath, as_json, unless_gone
from agent_runtime.adapters.http.models import Events, EventsQuery, StreamEnd, StreamQuery
from agent_runtime.cancellation import end
from agent_runtime.telemetry.http_server import error_body
from kubeagents_api.errors import KubeagentsError, TaskNotFoundError

EVENT_STREAM: Final = "text/event-stream"
JSON_LINES: Final = "application/x-ndjson"

_FIRST_SECONDS: Final = 0.5
"""How long the head of the answer waits for the first item: an error that comes by then has its own status."""
_SILENCE_SECONDS: Final = 15.0
"""Proxies cut connections that are silent for longer, mostly than a minute."""
_LOOK_SECONDS: Final = 300.0
"""The longest wait for events in one call of the core."""


class Streams:
    """The operations that may stream."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def events(self, queue: QueueName, query: Annotated[EventsQuery, Query()], request: Request) -> Response:
        """What happened in a queue.

        As JSON: what is there after the offset, or what comes within the time to wait. With `Accept:
        text/event-stream`: what is there and all that comes, until the client hangs up; `Last-Event-ID` goes before
        `after`.
        """
        if accepts(request, EVENT_STREAM):
            after = request.headers.get("last-event-id") or query.after
            return await opened(self._follow(queue, after, query.limit), request, EventStream())
        async with unless_gone(request) as gone:
            found = await self._core.events(
                queue, after=query.after, limit=query.limit, wait_seconds=query.wait_seconds
            )
        if gone.expired():
            return Response(status_code=CLIENT_GONE)
        return as_json(Events(events=list(found), next=found[-1].offset if found else query.after))

    async def stream(
        self, queue: QueueName, task: TaskPath, query: Annotated[StreamQuery, Query()], request: Request
    ) -> Response:
        """What a task says while it runs: how far it is, and parts of its result.

        From the offset on, until the task has ended. Server-sent events, with `Last-Event-ID` going before `after`; or
        lines of JSON with `Accept: application/x-ndjson`. The last thing is `{"kind": "end"}`, as event `end`.
        """
        await self._core.task(queue, task)  # so that an unknown task is 404 for certain, however slow the queue is
        after = request.headers.get("last-event-id") or query.after
        form = JsonLines() if accepts(request, JSON_LINES) else EventStream()
        return await opened(self._say(queue, task, after), request, form)

    async def _follow(self, queue: str, after: str, limit: int) -> AsyncGenerator[tuple[str, BaseModel], None]:
        while not self._core.draining:
            for event in await self._core.events(queue, after=after, limit=limit, wait_seconds=_LOOK_SECONDS):
                yield event.offset, event
                after = event.offset

    async def _say(self, queue: str, task: str, after: str) -> AsyncGenerator[tuple[str, BaseModel], None]:
        async for item in self._core.stream(queue, task, after=after):
            yield item.offset, item
        if not self._core.draining:
            try:
                state = (await self._core.task(queue, task)).state
            except TaskNotFoundError:
                state = None
            yield "", StreamEnd(state=state)


def accepts(request: Request, kind: str) -> bool:
    """Whether the client wants the answer in that form."""
    return kind in request.headers.get("accept", "").lower()


class EventStream:
    """As server-sent events."""

    media_type = EVENT_STREAM
    silence = b": nothing new\n\n"

    def item(self, offset: str, model: BaseModel) -> bytes:
        """One item; without an offset, the end."""
        data = model.model_dump_json(by_alias=True, exclude_none=True)
        head = f"id: {offset}" if offset else "event: end"
        return f"{head}\ndata: {data}\n\n".encode()

    def fault(self, error: bytes) -> bytes:
        """What broke the stream."""
        return b"event: fault\ndata: " + error + b"\n\n"


class JsonLines:
    """As lines of JSON."""

    media_type = JSON_LINES
    silence = b""  # a line that is no JSON would be an error to most readers

    def item(self, offset: str, model: BaseModel) -> bytes:
        """One item; without an offset, the end."""
        return model.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"

    def fault(self, error: bytes) -> bytes:
        """What broke the stream."""
        return error + b"\n"


Item = tuple[str, BaseModel]
"""With its offset; without for the last one."""
Items = AsyncGenerator[Item, None]
Form = EventStream | JsonLines


async def _next(items: Items) -> Item | None:
    return await anext(items, None)


async def opened(items: Items, request: Request, form: Form) -> Response:
    """The answer that streams the items. Raises what goes wrong before the first one."""
    first = asyncio.create_task(_next(items))
    try:
        await asyncio.wait({first}, timeout=_FIRST_SECONDS)
    except asyncio.CancelledError:
        await end(first)
        raise
    if first.done():
        first.result()
    return _Live(items, first, request, form)


class _Live(Response):
    """Sends items as they come, until there are no more or the client has gone."""

    def __init__(self, items: Items, first: asyncio.Task[Item | None], request: Request, form: Form) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(media_type=form.media_type, headers=headers)
        del self.headers["content-length"]
        self._items = items
        self._next = first
        self._request = request
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with unless_gone(self._request):
                await self._send_all(send)
        finally:
            await end(self._next)
            await self._items.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async def send_part(part: bytes) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": True})

        while True:
            done, _ = await asyncio.wait({self._next}, timeout=_SILENCE_SECONDS)
            try:
                if not done:
                    await send_part(self._form.silence)
                elif (found := self._next.result()) is None:
                    return
                else:
                    await send_part(self._form.item(*found))
                    self._next = asyncio.create_task(_next(self._items))
            except KubeagentsError as error:
                await send_part(self._form.fault(error_body(str(error), code=error.code)))
                return
