# SPDX-License-Identifier: Apache-2.0
"""What is said and what happens in a queue in memory: the streams of tasks, and the queue's events."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

from agent_runtime.queue.base import Partial, Progress
from agent_runtime.queue.records import moment
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import StreamItem, TaskEvent, TaskEventKind

ITEMS_KEPT: Final = 10_000
"""Items of a task's stream that are kept."""
Offset = tuple[int, int]
"""Time in ms, and the order in that ms."""
BEGINNING: Final[Offset] = (-1, 0)


def next_offset(last: Offset, now: int) -> Offset:
    """The offset of what comes next in a stream."""
    return (now, 0) if now > last[0] else (last[0], last[1] + 1)


def text_of(offset: Offset) -> str:
    """An offset as it is told."""
    return f"{offset[0]}-{offset[1]}"


def parse_offset(text: str) -> Offset:
    """An offset that was told. Raises InvalidTaskError."""
    if not text:
        return BEGINNING
    ms, _, order = text.partition("-")
    if not (ms.isascii() and ms.isdigit() and order.isascii() and order.isdigit()):
        raise InvalidTaskError(
            f"{text!r} is no offset: give one that this queue has told, or nothing to read from the beginning",
            field="after",
        )
    return int(ms), int(order)


@dataclass(slots=True)
class Said:
    """What a task has said: its newest items."""

    items: deque[tuple[Offset, StreamItem]] = field(default_factory=lambda: deque(maxlen=ITEMS_KEPT))
    last: Offset = BEGINNING
    dropped: Offset | None = None
    """The offset of the newest item that is not kept any more."""

    def add(self, item: Progress | Partial, *, attempt: int, now: int) -> None:
        """Add an item."""
        if len(self.items) == self.items.maxlen:
            self.dropped = self.items[0][0]
        self.last = next_offset(self.last, now)
        self.items.append(
            (
                self.last,
                StreamItem(
                    offset=text_of(self.last),
                    attempt=attempt,
                    at=moment(now),
                    kind="progress" if isinstance(item, Progress) else "partial",
                    data=orjson.loads(encode_item(item)),
                ),
            )
        )

    def after(self, offset: Offset) -> list[tuple[Offset, StreamItem]]:
        """What came after the offset; a gap first, if the offset is one from which on not all is kept."""
        found = [entry for entry in self.items if entry[0] > offset]
        if self.dropped is not None and BEGINNING < offset < self.dropped:
            first = found[0][1]
            gap = StreamItem(offset=text_of(self.dropped), attempt=first.attempt, at=first.at, kind="gap")
            found.insert(0, (self.dropped, gap))
        return found


class EventLog:
    """The newest events. Times in ms since 1970."""

    def __init__(self, *, keep: int, now: Callable[[], int], on_event: Callable[[], None]) -> None:
        self.last: Offset = BEGINNING
        self._now = now
        self._on_event = on_event
        self._events: deque[tuple[Offset, TaskEvent]] = deque(maxlen=keep)

    def note(
        self,
        kind: TaskEventKind,
        task: str | None = None,
        *,
        attempt: int | None = None,
        by: str | None = None,
        since: int | None = None,
    ) -> None:
        """Add to what happened. `since` is when the attempt began, for what ends one."""
        now = self._now()
        self.last = next_offset(self.last, now)
        event = TaskEvent(
            offset=text_of(self.last),
            at=moment(now),
            kind=kind,
            task=task,
            attempt=attempt,
            seconds=None if since is None else (now - since) / 1000,
            by=by,
        )
        self._events.append((self.last, event))
        self._on_event()

    def before_newest(self) -> Offset:
        """An offset after which the newest event comes, or the first one."""
        return (self.last[0], self.last[1] - 1)

    def after(self, offset: Offset, *, limit: int) -> list[TaskEvent]:
        """What happened after the offset, oldest first."""
        newer: list[TaskEvent] = []
        for at, event in reversed(self._events):
            if at <= offset:
                break
            newer.append(event)
        return newer[::-1][:limit]


def encode_item(item: Progress | Partial) -> bytes:
    """What a task says, as JSON."""
    if isinstance(item, Partial):
        return item.data
    return orjson.dumps({"fraction": item.fraction, "message": item.message})
