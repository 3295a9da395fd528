# SPDX-License-Identifier: Apache-2.0
"""The calls, with types: what goes over the wire is checked on this side, too."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from agent_runtime.client.faults import UnknownServerError
from agent_runtime.client.pool import Backoff, Pool, Way
from agent_runtime.client.transport import Params
from kubeagents_api.errors import DuplicateTaskError, InvalidTaskError, TaskNotFoundError
from kubeagents_api.task import (
    InstanceInfo,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
    TaskState,
    task_of,
)

Model = TypeVar("Model", bound=BaseModel)
Followed = TypeVar("Followed", StreamItem, TaskEvent)

WAIT_SECONDS: Final = 20.0
"""The longest wait in one call."""

_LEAST_SLACK_SECONDS: Final = 5.0
"""How much longer than it was asked to wait a server may take, at least."""
_RECORDS = TypeAdapter(list[TaskRecord])
_INSTANCES = TypeAdapter(list[InstanceInfo])
_STATS = TypeAdapter(list[QueueStats])


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of submitted tasks."""

    ids: list[str]
    """In the order of the tasks; for merged ones, those of the earlier tasks."""
    queue: str


class Calls:
    """What a CentralAgent can do, over a pool of ways to it."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each call, besides what it waits on purpose."""
        self._pool = pool
        self.timeout_seconds = timeout_seconds

    async def call(self, name: str, params: Params, *, wait_seconds: float = 0.0, only: Way | None = None) -> Any:
        """See Pool.call. `wait_seconds` is for how long the server was asked to wait."""
        seconds = self.timeout_seconds + wait_seconds
        return await self._pool.call(name, params, timeout_seconds=seconds, only=only)

    def stream(self, name: str, params: Params) -> AsyncGenerator[Any, None]:
        """See Pool.stream: one that begins anew on each connection."""
        return self._pool.stream(name, lambda: params, timeout_seconds=self.timeout_seconds)

    async def submit(self, queue: str | None, tasks: Sequence[TaskRequest]) -> Submitted:
        """Queue the tasks, all or none.

        Those without an id are given one, so that a call whose answer got lost can be repeated: it is refused then,
        as the tasks exist, and that is a success.
        """
        named = [task if task.id is not None else task.model_copy(update={"id": new_id()}) for task in tasks]
        ours = next(
            (task.id for task, given in zip(named, tasks, strict=True) if given.id is None and not _keyed(task)), None
        )
        bodies = [_body(task, queue) for task in named]
        doubts = 0

        def doubt() -> None:
            nonlocal doubts
            doubts += 1

        try:
            return await self._submit(bodies, on_doubt=doubt)
        except DuplicateTaskError:
            if not doubts or not await self._arrived(queue, named, ours):
                raise
        # All or none: as one of them is there, all are. Keys that were merged say so again.
        keyed = [task for task in named if _keyed(task)]
        merged = await self._submit([_body(task, queue) for task in keyed]) if keyed else None
        found = dict(zip((task.id for task in keyed), merged.ids if merged else (), strict=True))
        ids = [found.get(task.id, task.id) for task in named]
        return Submitted([one for one in ids if one is not None], await self.queue_name(named[0].queue or queue))

    async def _submit(self, bodies: Sequence[Params], **more: Any) -> Submitted:
        seconds = self.timeout_seconds
        if len(bodies) == 1:
            answer = await self._pool.call("submit", {"task": bodies[0]}, timeout_seconds=seconds, **more)
            return Submitted([_text(answer, "id")], _text(answer, "queue"))
        answer = await self._pool.call("submitBatch", {"tasks": bodies}, timeout_seconds=seconds, **more)
        return Submitted([str(one) for one in answer["ids"]], _text(answer, "queue"))

    async def _arrived(self, queue: str | None, tasks: Sequence[TaskRequest], ours: str | None) -> bool:
        """Whether the tasks are those that have this id now, though the answer to their submission got lost."""
        task = next((task for task in tasks if task.id == ours), tasks[0])
        try:
            record = await self.task(await self.queue_name(task.queue or queue), str(task.id))
        except TaskNotFoundError:
            return False
        if task.id == ours:
            return True  # nobody else makes such an id
        return (record.payload, record.type, record.agent) == (task.payload, task.type, task.agent)

    async def task(self, queue: str, task_id: str) -> TaskRecord:
        """A task and all that is known about it. Raises TaskNotFoundError."""
        return read(TaskRecord, await self.call("task", {"queue": queue, "id": task_id}))

    async def results(self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """Those of the tasks that have ended once all have, or the time is over. Raises TaskNotFoundError."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ends_at = begun + timeout_seconds
        slack = min(self.timeout_seconds, max(_LEAST_SLACK_SECONDS, timeout_seconds))
        found: dict[str, TaskRecord] = {}
        pace = Pace()
        while pending := [task_id for task_id in task_ids if task_id not in found]:
            wait = min(WAIT_SECONDS, max(0.0, ends_at - begun))
            params = {"queue": queue, "ids": pending, "timeoutSeconds": wait}
            answer = await self._pool.call("results", params, timeout_seconds=wait + slack)
            found |= {record.id: record for record in read_list(_RECORDS, answer["tasks"])}
            if loop.time() >= ends_at:
                break
            if len(found) < len(set(task_ids)):
                await pace.breathe(begun, wait)
            begun = loop.time()
        return [found[task_id] for task_id in task_ids if task_id in found]

    def watch(self, queue: str, task_id: str, *, after: str) -> AsyncGenerator[StreamItem, None]:
        """What a task says, to its end, each item once."""
        return self._followed(StreamItem, "watch", {"queue": queue, "id": task_id}, after=after)

    def events(self, queue: str, *, after: str) -> AsyncGenerator[TaskEvent, None]:
        """What happens in a queue, without end, each event once."""
        return self._followed(TaskEvent, "events", {"queue": queue}, after=after)

    async def _followed(
        self, model: type[Followed], name: str, params: Params, *, after: str
    ) -> AsyncGenerator[Followed, None]:
        seen = after
        stream = self._pool.stream(name, lambda: {**params, "after": seen}, timeout_seconds=self.timeout_seconds)
        try:
            async for found in stream:
                item = read(model, found)
                seen = item.offset
                yield item
        finally:
            await stream.aclose()

    async def cancel(self, queue: str, task_ids: Sequence[str], *, by: str | None, reason: str) -> list[TaskState]:
        """End tasks, and return the state each is in now. Raises TaskNotFoundError."""
        answer = await self.call("cancel", {"queue": queue, "ids": list(task_ids), "reason": reason, "by": by})
        return [TaskState(task["state"]) for task in answer["tasks"]]

    async def agents(self, *, queue: str | None = None, agent: str | None = None) -> list[InstanceInfo]:
        """The known agent processes."""
        return read_list(_INSTANCES, await self.call("agents", {"queue": queue, "agent": agent}))

    async def stats(self, queue: str) -> QueueStats:
        """The figures of a queue."""
        return read(QueueStats, await self.call("stats", {"queue": queue}))

    async def queue_name(self, queue: str | None) -> str:
        """The queue, or the one that the server takes if none is named."""
        if queue is not None:
            return queue
        stats = read_list(_STATS, await self.call("queues", {}))
        if not stats:
            raise UnknownServerError("the CentralAgent serves no queue")
        return stats[0].queue


class Pace:
    """Keeps waits that end early, because the server drains, from turning into a busy loop."""

    def __init__(self) -> None:
        self._backoff = Backoff()

    async def breathe(self, begun: float, wait_seconds: float) -> None:
        """After a wait that has brought nothing: wait a little longer if it has ended much too early."""
        if asyncio.get_running_loop().time() - begun < wait_seconds / 2:
            await asyncio.sleep(min(wait_seconds, self._backoff.pause()))
        else:
            self._backoff.reset()


def new_id() -> str:
    """An id that no other task has."""
    return uuid.uuid4().hex


def request(task: TaskRequest | None, fields: Mapping[str, Any]) -> TaskRequest:
    """A task, given as such or by its fields. Raises InvalidTaskError, which names the field."""
    if task is not None:
        if fields:
            raise InvalidTaskError("give a TaskRequest or its fields, not both", field=next(iter(fields)))
        return task
    return task_of(fields)


def read(model: type[Model], answer: Any) -> Model:
    """An answer as a model. What a newer server says besides is left out. Raises UnknownServerError."""
    try:
        return model.model_validate(answer, extra="ignore")
    except ValidationError as error:
        raise _odd(error) from error


def read_list(adapter: TypeAdapter[list[Model]], answer: Any) -> list[Model]:
    """The same for a list."""
    try:
        return adapter.validate_python(answer, extra="ignore")
    except ValidationError as error:
        raise _odd(error) from error


def _odd(error: ValidationError) -> UnknownServerError:
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return UnknownServerError(f"an answer of the server does not fit this client: {where}: {fault['msg']}")


def _text(answer: Any, field: str) -> str:
    return str(answer[field])


def _keyed(task: TaskRequest) -> bool:
    return task.idempotency_key is not None


def _body(task: TaskRequest, queue: str | None) -> dict[str, Any]:
    body = task.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    if task.queue is None and queue is not None:
        body["queue"] = queue
    return body
