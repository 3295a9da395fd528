# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue for agents that poll over HTTP, and messages: the calls of `adapters.calls.work`."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import work
from agent_runtime.adapters.calls.answer import Answer, End
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.calls.parameters import InboxOfQueue, MessageOfQueue
from agent_runtime.adapters.calls.tasks import chosen
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.answers import CLIENT_GONE, QueueName, unless_gone
from agent_runtime.adapters.http.body import BATCH_BYTES, ENVELOPE_BYTES, parsed
from agent_runtime.adapters.http.streams import JSON_LINES, EventStream, Item, JsonLines, accepts, opened
from kubeagents_api.model import ApiModel

Act = Callable[[Core, str, Any], Awaitable[Answer]]


class Work:
    """The operations."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def operation(self, name: str, act: Act, params: type[ApiModel]) -> Callable[..., Coroutine[Any, Any, Response]]:
        """The one that makes a call of a process."""

        async def operation(queue: QueueName, request: Request) -> Response:
            limit = max(BATCH_BYTES, self._core.max_payload_bytes + ENVELOPE_BYTES)
            asked = await parsed(request, params, limit=limit, advice="send fewer at once")
            waits = getattr(asked, "wait_seconds", 0) > 0
            return await self._answered(act, queue, asked, request, waits=waits)

        operation.__name__ = f"work_{name}"
        operation.__doc__ = act.__doc__
        return operation

    async def work_revoked(self, queue: QueueName, request: Request) -> Response:
        """Which tasks are taken away from a process: cancelled, or expired.

        Server-sent events, or lines of JSON with `Accept: application/x-ndjson`, until the client hangs up or this pod
        stops.
        """
        asked = await parsed(request, work.OneWorker, limit=ENVELOPE_BYTES, advice="name the process only")
        form = JsonLines() if accepts(request, JSON_LINES) else EventStream()
        return await opened(_items(callers.current_core(), queue, asked), request, form)

    async def send_message(self, request: Request) -> Response:
        """Send a message to an Agent: a task of the type `message`. Its result can be waited for as for each task."""
        limit = self._core.max_payload_bytes + ENVELOPE_BYTES
        advice = "send a reference to the data instead of the data"
        asked = await parsed(request, MessageOfQueue, limit=limit, advice=advice)
        queue = chosen(self._core, asked.queue)
        waits = self._core.may_block(queue)
        return await self._answered(work.send, queue, asked, request, waits=waits, status=201)

    async def receive_messages(self, request: Request) -> Response:
        """Take messages to an Agent, and what other tasks there are for it; waits for the first one.

        They are held under a lease, and acknowledged as tasks are settled.
        """
        asked = await parsed(request, InboxOfQueue, limit=ENVELOPE_BYTES, advice="name the Agent only")
        queue = chosen(self._core, asked.queue)
        return await self._answered(work.receive, queue, asked, request, waits=asked.wait_seconds > 0)

    async def _answered(
        self, act: Act, queue: str, asked: ApiModel, request: Request, *, waits: bool, status: int = 200
    ) -> Response:
        # What does not wait is finished, whoever hears of it.
        answer = await (self._unless_gone(act, queue, asked, request) if waits else act(self._core, queue, asked))
        if answer is None:
            return Response(status_code=CLIENT_GONE)
        return Response(answer.json, status_code=status, media_type="application/json")

    async def _unless_gone(self, act: Act, queue: str, asked: ApiModel, request: Request) -> Answer | None:
        """The answer; None if the client has gone before. What was claimed for it is given back."""
        answer: Answer | None = None
        async with unless_gone(request) as gone:
            answer = await act(self._core, queue, asked)
        if gone.expired() and answer is not None and answer.undo is not None:
            await answer.undo()
        return answer


async def _items(core: Core, queue: str, asked: work.OneWorker) -> AsyncGenerator[Item, None]:
    items = work.revoked(core, queue, asked)
    try:
        number = 0
        async for item in items:
            if not isinstance(item, End):
                number += 1
                yield str(number), work.Revoked.model_validate_json(item)
    except DrainingError:
        return  # the stream ends without an end, as all do when the pod stops
    finally:
        await items.aclose()
