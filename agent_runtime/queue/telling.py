# SPDX-License-Identifier: Apache-2.0
"""What running tasks say, and what happens in a queue: two kinds of streams that can be read on from any place."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import orjson

from agent_runtime.queue import scripts
from agent_runtime.queue.base import Claim, Partial, Progress
from agent_runtime.queue.calls import LONGEST_BLOCK_SECONDS, Calls
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.records import moment
from agent_runtime.queue.scripts import Argument, Held
from kubeagents_api.errors import InvalidTaskError, PayloadTooLargeError
from kubeagents_api.task import StreamItem, TaskEvent, TaskEventKind

KEPT_ITEMS: Final = 10_000
"""About how many items of a task are kept."""
_PAGE: Final = 500
_ITEM_OFFSET: Final = re.compile(r"\d{1,20}-\d{1,20}")
_EVENT_OFFSET: Final = re.compile(r"(\d{1,20}-\d{1,20})\.(\d{1,4})")


class Sayings:
    """What the tasks of one queue say while they run."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def add(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See TaskQueue.emit."""
        # Kept as long as the result, and while the task runs, however long it is silent.
        kept = self._calls.config.result_ttl_seconds + round(claim.timeout_seconds) + 1
        arguments: list[Argument] = [claim.id, claim.token, KEPT_ITEMS, kept]
        for item in items:
            kind, data = _encode(item)
            if len(data) > self._calls.config.max_payload_bytes:
                raise PayloadTooLargeError(
                    f"task {claim.id} says something of {len(data)} bytes as JSON, the queue "
                    f"{self._calls.config.name!r} takes at most {self._calls.config.max_payload_bytes} "
                    "(spec.maxPayloadBytes): say it in smaller parts",
                    field="data",
                )
            arguments += (kind, data)
        return bool(await self._calls.run(scripts.EMIT, arguments) == Held.HELD)

    async def read(self, task_id: str, *, after: str) -> AsyncIterator[StreamItem]:
        """All that is there after an offset, after a `gap` if what the offset stands for is not kept any more."""
        if after and not _ITEM_OFFSET.fullmatch(after):
            raise InvalidTaskError(
                f"{after!r} is no offset of a stream: give one that an item had, or none to begin at the beginning",
                field="after",
            )
        key = self._calls.keys.said(task_id)
        if after and not await self._range(key, after, after, 1):
            first = await self._range(key, "-", "+", 1)
            if first:
                yield StreamItem(offset=after, attempt=0, at=moment(_ms_of(first[0][0])), kind="gap")
        position = f"({after}" if after else "-"
        while entries := await self._range(key, position, "+", _PAGE):
            for entry, fields in entries:
                yield _decode(entry.decode(), fields)
            position = f"({entries[-1][0].decode()}"

    async def _range(self, key: str, first: str, last: str, count: int) -> list[Any]:
        found: list[Any] = await self._calls.server.call(
            lambda _: execute(self._calls.server.commands, "XRANGE", key, first, last, "COUNT", count)
        )
        return found


class EventLog:
    """What happens in one queue."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._key = calls.keys.name("events")

    async def read(self, *, after: str, limit: int, wait_seconds: float) -> list[TaskEvent]:
        """See TaskQueue.events."""
        entry, index = "0-0", -1
        if after == "$":
            newest = await self._newest()
            if newest:
                return newest
        elif after:
            match = _EVENT_OFFSET.fullmatch(after)
            if match is None:
                raise InvalidTaskError(
                    f"{after!r} is no offset of an event: give one that an event had, `$` for the newest, or none",
                    field="after",
                )
            entry, index = match[1], int(match[2])
        found = await self._rest(entry, index)
        if len(found) < limit:
            block = min(wait_seconds, LONGEST_BLOCK_SECONDS) if not found else 0.0
            for name, fields in await self._following(entry, limit, block):
                found += _decode_entry(name.decode(), fields)
        return found[:limit]

    async def _newest(self) -> list[TaskEvent]:
        entries = await self._calls.server.call(
            lambda _: execute(self._calls.server.commands, "XREVRANGE", self._key, "+", "-", "COUNT", 1)
        )
        return [event for name, fields in entries for event in _decode_entry(name.decode(), fields)][-1:]

    async def _rest(self, entry: str, index: int) -> list[TaskEvent]:
        """What an entry has after one of its events."""
        if index < 0:
            return []
        entries = await self._calls.server.call(
            lambda _: execute(self._calls.server.commands, "XRANGE", self._key, entry, entry)
        )
        return [event for name, fields in entries for event in _decode_entry(name.decode(), fields)][index + 1 :]

    async def _following(self, entry: str, limit: int, block_seconds: float) -> list[Any]:
        server = self._calls.server
        # The limit is in events, of which an entry has many: a page of entries is plenty.
        command: list[str | int] = ["XREAD", "COUNT", min(limit, _PAGE)]
        if block_seconds > 0:
            command += ["BLOCK", max(1, round(block_seconds * 1000))]
        command += ["STREAMS", self._key, entry]
        client = server.blocking if block_seconds > 0 else server.commands
        answer = await server.call(lambda _: execute(client, *command))
        if not answer:
            return []
        entries: list[Any] = answer[0][1]
        return entries


def _encode(item: Progress | Partial) -> tuple[str, bytes]:
    if isinstance(item, Partial):
        return "partial", item.data
    return "progress", orjson.dumps({"fraction": item.fraction, "message": item.message})


def _decode(offset: str, fields: list[bytes]) -> StreamItem:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return StreamItem(
        offset=offset,
        attempt=int(values[b"a"]),
        at=moment(_ms_of(offset.encode())),
        kind="partial" if values[b"k"] == b"partial" else "progress",
        data=orjson.loads(values[b"d"]),
    )


def _decode_entry(name: str, fields: list[bytes]) -> list[TaskEvent]:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    kind = TaskEventKind(values[b"k"].decode())
    by = orjson.loads(b'"' + values[b"b"] + b'"') or None
    at = moment(_ms_of(name.encode()))
    words = values[b"t"].decode().split()
    if not words:
        return [TaskEvent(offset=f"{name}.0", at=at, kind=kind, by=by)]
    return [
        TaskEvent(
            offset=f"{name}.{index}",
            at=at,
            kind=kind,
            task=task,
            attempt=int(attempt) or None,
            seconds=None if ms == "-1" else int(ms) / 1000,
            by=by,
        )
        for index, (task, attempt, ms) in enumerate(zip(words[::3], words[1::3], words[2::3], strict=True))
    ]


def _ms_of(offset: bytes) -> int:
    return int(offset.split(b"-")[0])
