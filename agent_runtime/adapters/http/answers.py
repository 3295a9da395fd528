# SPDX-License-Identifier: Apache-2.0
"""What the operations share: their path parameters, answers in JSON, and noticing that the client has gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final, TypeVar

from fastapi import Path, Request, Response
from pydantic import BaseModel, TypeAdapter

from kubeagents_api.task import TaskId

Model = TypeVar("Model", bound=BaseModel)
QueueName = Annotated[str, Path(description="Name of the TaskQueue.")]
TaskPath = Annotated[TaskId, Path(description="Id of the task.")]

CLIENT_GONE: Final = 499
"""Nobody reads it; metrics and log show it."""


def as_json(model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A model as an answer."""
    body = model.model_dump_json(by_alias=True, exclude_none=True).encode()
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def as_json_list(
    adapter: TypeAdapter[list[Model]], items: Iterable[Model], *, headers: dict[str, str] | None = None
) -> Response:
    """Models as an answer."""
    body = adapter.dump_json(list(items), by_alias=True, exclude_none=True)
    return Response(body, media_type="application/json", headers=headers)


@contextlib.asynccontextmanager
async def unless_gone(request: Request) -> AsyncIterator[asyncio.Timeout]:
    """Cut the block short when the client hangs up; then `expired()` of what it yields is true."""
    loop = asyncio.get_running_loop()

    async def listen(block: asyncio.Timeout) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        block.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as block:
            listener = loop.create_task(listen(block))
            try:
                yield block
            finally:
                listener.cancel()
    except TimeoutError:
        if not block.expired():
            raise
