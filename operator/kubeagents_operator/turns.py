# SPDX-License-Identifier: Apache-2.0
"""Fairness between tenants: namespaces take turns, so what one has waiting delays another by one item per round.

    shop     a b c d e …                 taken: a  x  b  c  d …
    lab      x                                     ▲ lab has waited for one item of shop, not for all of them

Within a namespace the order is that of arrival. Putting and taking cost the same however much waits.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by namespace."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        """The namespaces in which something waits, that whose turn it is first."""
        self._paused: dict[str, deque[T]] = {}

    def __bool__(self) -> bool:
        """Whether it is anybody's turn."""
        return bool(self._lines)

    def put(self, namespace: str, item: T) -> None:
        """Add at the end of the namespace's line."""
        if (paused := self._paused.get(namespace)) is not None:
            paused.append(item)
        else:
            self._lines.setdefault(namespace, deque()).append(item)

    def waiting(self, namespace: str) -> int:
        """How much waits in a namespace, paused or not."""
        return len(self._lines.get(namespace) or self._paused.get(namespace) or ())

    def pause(self, namespace: str) -> None:
        """It has no turn until it is resumed; what is put meanwhile waits as well."""
        self._paused[namespace] = self._lines.pop(namespace, deque())

    def resume(self, namespace: str) -> None:
        """It takes turns again, as the last one."""
        if line := self._paused.pop(namespace):
            self._lines[namespace] = line

    def take(self) -> T:
        """The first item of the namespace whose turn it is, which is then the last to have another one. Raises KeyError
        if nothing waits."""
        namespace, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[namespace] = line
        return item


class FairLimit:
    """A semaphore whose waiters take turns by namespace."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: Turns[asyncio.Future[None]] = Turns()

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Hold one of the places during the block; waits until there is one."""
        await self._acquire(namespace)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, namespace: str) -> None:
        if self._free > 0:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(namespace, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was ours already
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            place = self._waiting.take()
            if not place.done():  # else whoever waited was cancelled
                place.set_result(None)
                return
        self._free += 1
