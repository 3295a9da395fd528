# SPDX-License-Identifier: Apache-2.0
"""Dead tasks: listed, queued again, or removed for good."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from agent_runtime.queue import scripts
from agent_runtime.queue.calls import LARGEST_CALL, Calls, parts_of
from agent_runtime.queue.dead_filter import fits
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.records import json_inside
from agent_runtime.queue.scripts import Argument, Script
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import DeadFilter, TaskRecord

Read = Callable[[Sequence[str]], Awaitable[list[TaskRecord]]]
"""Reads tasks; those that are gone are left out."""

_PAGE: Final = 200
"""Records that are looked at together."""


class DeadTasks:
    """The dead tasks of one queue."""

    def __init__(self, calls: Calls, read: Read) -> None:
        self._calls = calls
        self._read = read

    async def page(self, which: DeadFilter, *, limit: int, after: str) -> list[TaskRecord]:
        """See TaskQueue.list_dead."""
        found: list[TaskRecord] = []
        at = 0 if not after else await self._rank(after) + 1
        while len(found) < limit:
            page = min(_PAGE, limit - len(found)) if _is_everything(which) else _PAGE
            ids = await self._range("ZREVRANGE", at, at + page - 1)
            if not ids:
                break
            found += [record for record in await self._read(ids) if fits(record, which)]
            at += len(ids)
        return found[:limit]

    async def replay(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.replay. Those that died first go first."""
        return await self._for_all(scripts.REPLAY, which, by)

    async def purge(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.purge."""
        return await self._for_all(scripts.PURGE, which, by)

    async def _for_all(self, script: Script, which: DeadFilter, by: str) -> list[str]:
        config = self._calls.config
        settings: list[Argument] = [config.keep_events, json_inside(by)]
        if script is scripts.PURGE:
            settings.insert(1, config.result_ttl_seconds)
        changed: list[str] = []
        async for ids in self._pages(which, changed):
            changed += [task_id.decode() for task_id in await self._calls.run(script, [*settings, *ids])]
        return changed

    async def _pages(self, which: DeadFilter, changed: Sequence[str]) -> AsyncIterator[Sequence[str]]:
        """The ids that fit. Whoever asks removes them and lists them in `changed`, which moves the others up."""
        if which.ids is not None:
            for part in parts_of(which.ids, LARGEST_CALL):
                yield await self._fitting(part, which)
            return
        # Not more than there are now: what is queued again may soon be dead again.
        left = await self._count()
        passed = 0
        while left > 0:
            before = len(changed)
            ids = await self._range("ZRANGE", passed, passed + min(LARGEST_CALL, left) - 1)
            if not ids:
                return
            left -= len(ids)
            yield await self._fitting(ids, which)
            passed += len(ids) - (len(changed) - before)

    async def _fitting(self, ids: Sequence[str], which: DeadFilter) -> Sequence[str]:
        if _is_everything(which.model_copy(update={"ids": None})):
            return ids
        return [record.id for part in parts_of(ids, _PAGE) for record in await self._read(part) if fits(record, which)]

    async def _count(self) -> int:
        key = self._calls.keys.name("dead")
        count: int = await self._calls.server.call(lambda _: execute(self._calls.server.commands, "ZCARD", key))
        return count

    async def _rank(self, task_id: str) -> int:
        key = self._calls.keys.name("dead")

        async def ask(_: bool) -> Any:
            return await execute(self._calls.server.commands, "ZREVRANK", key, task_id)

        rank: int | None = await self._calls.server.call(ask)
        if rank is None:
            raise InvalidTaskError(
                f"the task {task_id!r} is not dead, or not any more, so no page can follow it: begin anew",
                field="after",
            )
        return rank

    async def _range(self, command: str, first: int, last: int) -> list[str]:
        key = self._calls.keys.name("dead")
        ids = await self._calls.server.call(lambda _: execute(self._calls.server.commands, command, key, first, last))
        return [task_id.decode() for task_id in ids]


def _is_everything(which: DeadFilter) -> bool:
    return not which.model_dump(exclude_none=True)
