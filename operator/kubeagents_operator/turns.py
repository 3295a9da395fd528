# SPDX-License-Identifier: Apache-2.0
"""Fairness between tenants: namespaces take turns, so what one has waiting delays another by one item per round.

    shop     a b c d e …                 taken: a  x  b  c  d …
    lab      x                                     ▲ lab has waited for one item of shop, not for all of them

Within a namespace what was put first comes before what was put later, but every eighth turn belongs to the latter;
otherwise the order is that of arrival. Putting and taking cost the same however much waits.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_LATER_EVERY = 8


class _Line(Generic[T]):
    """What waits in one namespace."""

    def __init__(self) -> None:
        self.first: OrderedDict[T, None] = OrderedDict()
        self._later: OrderedDict[T, None] = OrderedDict()
        self._overtaken = 0
        """How many have come before the first of `_later` since one of these had its turn."""

    def __len__(self) -> int:
        return len(self.first) + len(self._later)

    def put(self, item: T, *, first: bool) -> None:
        (self.first if first else self._later)[item] = None

    def prefer(self, item: T) -> None:
        if item in self._later:
            del self._later[item]
            self.first[item] = None

    def take(self) -> T:
        if self.first and (not self._later or self._overtaken < _LATER_EVERY - 1):
            self._overtaken += 1
            return self.first.popitem(last=False)[0]
        self._overtaken = 0
        return self._later.popitem(last=False)[0]


class Turns(Generic[T]):
    """What waits, by namespace, each item once."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[T]] = OrderedDict()
        """The namespaces in which something waits, that whose turn it is first."""
        self._paused: dict[str, _Line[T]] = {}

    def __bool__(self) -> bool:
        """Whether it is anybody's turn."""
        return bool(self._lines)

    def put(self, namespace: str, item: T, *, first: bool = False) -> None:
        """Add at the end of the namespace's line, or of the part of it that comes first."""
        line = self._line(namespace)
        if line is None:
            line = self._lines[namespace] = _Line()
        line.put(item, first=first)

    def prefer(self, namespace: str, item: T) -> None:
        """Something that waits is to come first."""
        if (line := self._line(namespace)) is not None:
            line.prefer(item)

    def waiting(self, namespace: str) -> int:
        """How much waits in a namespace, paused or not."""
        line = self._line(namespace)
        return len(line) if line is not None else 0

    def has_first(self, namespace: str) -> bool:
        """Whether something waits in a namespace that comes first."""
        line = self._line(namespace)
        return line is not None and bool(line.first)

    def has_any_first(self) -> bool:
        """Whether something waits that comes first, in whatever namespace."""
        return any(line.first for lines in (self._lines, self._paused) for line in lines.values())

    def pause(self, namespace: str) -> None:
        """It has no turn until it is resumed; what is put meanwhile waits as well."""
        line = self._lines.pop(namespace) if namespace in self._lines else _Line[T]()
        self._paused[namespace] = line

    def resume(self, namespace: str) -> None:
        """It takes turns again, as the last one."""
        if line := self._paused.pop(namespace):
            self._lines[namespace] = line

    def _line(self, namespace: str) -> _Line[T] | None:
        paused = self._paused.get(namespace)  # it may be empty, and is it nevertheless
        return paused if paused is not None else self._lines.get(namespace)

    def take(self) -> T:
        """The first item of the namespace whose turn it is, which is then the last to have another one. Raises KeyError
        if nothing waits."""
        namespace, line = self._lines.popitem(last=False)
        item = line.take()
        if line:
            self._lines[namespace] = line
        return item

    def take_first(self) -> T | None:
        """The same among what was put first; None if there is nothing of that."""
        namespace = next((namespace for namespace, line in self._lines.items() if line.first), None)
        if namespace is None:
            return None
        line = self._lines.pop(namespace)
        item = line.first.popitem(last=False)[0]
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
