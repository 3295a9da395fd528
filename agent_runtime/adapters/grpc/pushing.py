# SPDX-License-Identifier: Apache-2.0
"""Pushing tasks to a worker as far as it has given credit for them; whatever it does not get is given back."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.grpc.envelope import Message
from agent_runtime.adapters.grpc.tasks import LOOK_SECONDS
from agent_runtime.cancellation import end
from agent_runtime.queue.base import Claim, Worker, WorkerQueue

GOING: Final = "this pod is about to stop: go on at another one"
_TOGETHER: Final = 32
"""Tasks that are taken at once."""


class Credit:
    """How many more tasks the other side wants."""

    def __init__(self, credit: int) -> None:
        self._left = credit
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, credit: int) -> None:
        """More are wanted."""
        self._left += credit
        self._changed.set()

    def close(self) -> None:
        """No more will be added."""
        self._closed = True
        self._changed.set()

    def spend(self, credit: int) -> None:
        """So many have been taken."""
        self._left -= credit

    async def some(self) -> int:
        """What there is, once there is some; 0 if there will be none any more."""
        while not (self._left or self._closed):
            self._changed.clear()
            await self._changed.wait()
        return self._left


class Outbox:
    """What is to be written to a stream, by several at once. Nobody gets ahead of the reader.

    A claim that could not be written is given back.
    """

    def __init__(self, queue: WorkerQueue | None) -> None:
        """The queue is where claims come from."""
        self._queue = queue
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def put(self, item: Message | Claim) -> None:
        """Hand over an item, once the one before has been taken."""
        try:
            await self._items.put(item)
        except asyncio.CancelledError:
            await self._give_back(item)
            raise

    async def items(self, *sources: Coroutine[Any, Any, None]) -> AsyncGenerator[Any, None]:
        """What the sources hand over, until all have ended. Raises what the first one raises."""

        async def run(source: Coroutine[Any, Any, None]) -> None:
            error = None
            try:
                await source
            except Exception as trouble:
                error = trouble
            await self._items.put(_End(error))

        running = [asyncio.create_task(run(source)) for source in sources]
        ended = 0
        item: Any = None
        try:
            while ended < len(running):
                item = await self._items.get()
                if not isinstance(item, _End):
                    yield item
                    item = None
                    continue
                ended += 1
                if item.error is not None:
                    raise item.error
        finally:
            await end(*running)
            await self._give_back(item)
            while not self._items.empty():
                await self._give_back(self._items.get_nowait())

    async def _give_back(self, item: Any) -> None:
        if isinstance(item, Claim) and self._queue is not None:
            await self._queue.release([item])


class _End:
    """A source has ended."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


async def claimed(core: Core, queue: WorkerQueue, worker: Worker, credit: Credit) -> AsyncGenerator[Claim, None]:
    """Tasks as far as there is credit. What was taken and is not wanted any more is given back."""
    while wanted := await credit.some():
        claims = await queue.claim(worker, limit=min(wanted, _TOGETHER), wait_seconds=LOOK_SECONDS)
        if not claims and core.draining:
            raise DrainingError(GOING)
        credit.spend(len(claims))
        handed = 0
        try:
            for claim in claims:
                handed += 1
                yield claim
        finally:
            if handed < len(claims):
                await queue.release(claims[handed:])
