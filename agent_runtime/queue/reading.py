# SPDX-License-Identifier: Apache-2.0
"""Looking tasks up, and waiting for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import orjson
from pydantic import JsonValue

from agent_runtime.queue import scripts
from agent_runtime.queue.blobs import BlobStore
from agent_runtime.queue.calls import Calls, parts_of
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.records import Blob, StoredTask, blob_of, decode_parent
from agent_runtime.queue.watching import Watch, Watches
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import ParentOutcome, TaskRecord


class Reading:
    """Reads the tasks of one queue."""

    def __init__(self, calls: Calls, blobs: BlobStore) -> None:
        self._calls = calls
        self._blobs = blobs
        self._completions = Watches(calls.server, calls.keys.name("done"))
        self._sayings = Watches(calls.server, calls.keys.name("saying"))

    async def records(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """Tasks as they are now. Raises TaskNotFoundError."""
        found = []
        for task_id, task in zip(task_ids, await self._read(task_ids), strict=True):
            if task is None:
                raise TaskNotFoundError(
                    f"queue {self._calls.config.name!r} has no task {task_id!r}: it was never submitted, or its result "
                    f"has expired ({self._calls.config.result_ttl_seconds} s after it finished)"
                )
            found.append(await self._complete(task))
        return found

    async def known(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The same without those that do not exist."""
        return [await self._complete(task) for task in await self._read(task_ids) if task is not None]

    async def parents(self, task_id: str) -> dict[str, ParentOutcome]:
        """How the tasks ended that this one depends on."""
        key = self._calls.keys.name("parents") + task_id
        flat = await self._calls.server.call(lambda _: execute(self._calls.server.commands, "HGETALL", key))
        found = {}
        for parent, text in zip(flat[::2], flat[1::2], strict=True):
            outcome = orjson.loads(text)
            name = parent.decode()
            found[name] = decode_parent(outcome, result=await self._content(blob_of(outcome), name))
        return found

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See TaskQueue.wait."""
        wanted = list(dict.fromkeys(task_ids))
        known = await self._until_final(wanted, timeout_seconds) if timeout_seconds > 0 else {}
        unsure = [task_id for task_id in wanted if task_id not in known or not known[task_id].state.final]
        known |= {record.id: record for record in await self.records(unsure)}
        return [known[task_id] for task_id in task_ids]

    async def _until_final(self, wanted: Sequence[str], timeout_seconds: float) -> dict[str, TaskRecord]:
        """What is known of the tasks once all are final, or the time is over."""
        known: dict[str, TaskRecord] = {}
        try:
            async with asyncio.timeout(timeout_seconds), self._completions.watch(wanted) as watch:
                if not watch.stale:
                    # The subscription does not stand yet: see at once whether there is anything to wait for.
                    await self._look(watch, known)
                while watch.pending:
                    if watch.stale:
                        watch.stale = False
                        await self._look(watch, known)
                    else:
                        await watch.change()
        except TimeoutError:
            pass  # the records say how far the tasks are
        return known

    @contextlib.asynccontextmanager
    async def news_of(self, task_id: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Gives a function that returns once a task may have said something or ended since its last call."""
        async with self._sayings.watch([task_id]) as said, self._completions.watch([task_id]) as ended:

            async def news() -> None:
                changes = [asyncio.ensure_future(watch.change()) for watch in (said, ended)]
                try:
                    done, _ = await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for change in changes:
                        change.cancel()
                for change in done:
                    change.result()
                said.pending.add(task_id)

            yield news

    async def aclose(self) -> None:
        """End the subscriptions."""
        await self._completions.aclose()
        await self._sayings.aclose()

    async def _look(self, watch: Watch, known: dict[str, TaskRecord]) -> None:
        """Read what a watch waits for."""
        for record in await self.records(list(watch.pending)):
            known[record.id] = record
            if record.state.final:
                watch.finish(record.id)

    async def _read(self, task_ids: Sequence[str]) -> list[StoredTask | None]:
        found: list[StoredTask | None] = []
        for part in parts_of(task_ids, self._calls.records_per_call):
            rows = await self._calls.run(scripts.READ, part)
            for record, *beside in zip(*rows, strict=True):
                found.append(None if record is None else StoredTask.decode(record, *beside))
        return found

    async def _complete(self, task: StoredTask) -> TaskRecord:
        task_id = task.task["id"]
        return task.record(
            queue=self._calls.config.name,
            payload=await self._content(task.payload_blob, task_id),
            result=await self._content(task.result_blob, task_id),
        )

    async def _content(self, blob: Blob | None, task_id: str) -> JsonValue:
        if blob is None:
            return None
        content: JsonValue = orjson.loads(await self._blobs.read(blob, task_id=task_id))
        return content
