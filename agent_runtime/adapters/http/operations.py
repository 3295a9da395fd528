# SPDX-License-Identifier: Apache-2.0
"""The operations: each reads a request, asks the core, and writes the answer as JSON without further ado."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, TypeVar

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, TypeAdapter

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.body import BATCH_BYTES, ENVELOPE_BYTES, parsed
from agent_runtime.adapters.http.errors import RefusedError
from agent_runtime.adapters.http.models import (
    AgentOverview,
    AgentsQuery,
    CentralStatus,
    DeadQuery,
    QueueStatus,
    ResultQuery,
    Results,
    ResultsRequest,
    SubmittedBatch,
    SubmittedTask,
    TaskId,
)
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.task import BatchRequest, InstanceInfo, QueueStats, TaskRecord, TaskRequest, TaskState

Model = TypeVar("Model", bound=BaseModel)
QueueName = Annotated[str, Path(description="Name of the TaskQueue.")]
TaskPath = Annotated[TaskId, Path(description="Id of the task.")]
AgentName = Annotated[str, Path(description="Name of the Agent.")]

_RECORDS = TypeAdapter(list[TaskRecord])
_STATS = TypeAdapter(list[QueueStats])
_INSTANCES = TypeAdapter(list[InstanceInfo])

_POLL_AGAIN = {"retry-after": "1"}
_CLIENT_GONE = 499
"""Nobody reads it; metrics and log show it."""


class Operations:
    """What `/v1` offers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def submit(self, request: Request) -> Response:
        """Queue one task.

        Give it an id of your own to make a repeated call harmless: the second one is refused with 409.
        """
        limit = self._core.max_payload_bytes + ENVELOPE_BYTES
        advice = "send a reference to the data instead of the data"
        task = await parsed(request, TaskRequest, limit=limit, advice=advice)
        queue = task.queue or self._core.queue_names[0]
        ids = await self._core.submit(queue, [task])
        return _json(SubmittedTask(id=ids[0], queue=queue, state=TaskState.QUEUED), status=201)

    async def submit_batch(self, request: Request) -> Response:
        """Queue up to 10,000 tasks of one queue in one call: all of them, or none."""
        limit = max(BATCH_BYTES, self._core.max_payload_bytes + ENVELOPE_BYTES)
        batch = await parsed(request, BatchRequest, limit=limit, advice="split the batch")
        queue = batch.tasks[0].queue or self._core.queue_names[0]
        ids = await self._core.submit(queue, batch.tasks)
        return _json(SubmittedBatch(ids=list(ids), queue=queue), status=201)

    async def task(self, queue: QueueName, task: TaskPath) -> Response:
        """A task and all that is known about it."""
        return _json(await self._core.task(queue, task))

    async def result(
        self, queue: QueueName, task: TaskPath, query: Annotated[ResultQuery, Query()], request: Request
    ) -> Response:
        """Wait until a task is final.

        200 as soon as it is. 202 with the task as it is now when the time is over, or when this pod is about to stop:
        ask again.
        """
        async with _unless_gone(request) as gone:
            records = await self._core.results(queue, [task], timeout_seconds=query.timeout_seconds)
        if gone.expired():
            return Response(status_code=_CLIENT_GONE)
        record = records[0]
        return _json(record) if record.state.final else _json(record, status=202, headers=_POLL_AGAIN)

    async def results(self, queue: QueueName, request: Request) -> Response:
        """Wait until many tasks are final, or the time is over: what is final, and the ids of the others."""
        asked = await parsed(request, ResultsRequest, limit=BATCH_BYTES, advice="ask for fewer tasks at once")
        async with _unless_gone(request) as gone:
            records = await self._core.results(queue, asked.ids, timeout_seconds=asked.timeout_seconds)
        if gone.expired():
            return Response(status_code=_CLIENT_GONE)
        final = [record for record in records if record.state.final]
        pending = [record.id for record in records if not record.state.final]
        return _json(Results(tasks=final, pending=pending), headers=_POLL_AGAIN if pending else None)

    async def queues(self) -> Response:
        """The figures of all queues, the default one first."""
        stats = await asyncio.gather(*(self._core.stats(name) for name in self._core.queue_names))
        return _json_list(_STATS, stats)

    async def queue(self, queue: QueueName) -> Response:
        """The figures of one queue."""
        return _json(await self._core.stats(queue))

    async def dead(self, queue: QueueName, query: Annotated[DeadQuery, Query()]) -> Response:
        """Tasks that have used up their attempts, newest first."""
        return _json_list(_RECORDS, await self._core.dead(queue, limit=query.limit))

    async def agents(self, query: Annotated[AgentsQuery, Query()]) -> Response:
        """The known processes of all Agents."""
        return _json_list(_INSTANCES, await self._core.instances(queue=query.queue, agent=query.agent))

    async def agent(self, agent: AgentName) -> Response:
        """One Agent: its processes and how many of them are healthy."""
        instances = await self._core.instances(queue=None, agent=agent)
        if not instances:
            message = f"no process of an Agent {agent!r} has sent a heartbeat to the queues of this CentralAgent"
            raise RefusedError(404, "AGENT_NOT_FOUND", message)
        return _json(_overview(agent, instances))

    async def status(self) -> Response:
        """One look at everything; a queue that does not answer is part of the picture, not an error."""
        looks = await asyncio.gather(*(self._look(name) for name in self._core.queue_names))
        instances = [found for _, processes in looks for found in processes]
        agents = sorted({found.agent for found in instances})
        return _json(
            CentralStatus(
                name=self._core.name,
                version=RUNTIME_VERSION,
                instance=self._core.instance,
                leader=self._core.leader,
                queues=[look for look, _ in looks],
                agents=[_overview(name, [found for found in instances if found.agent == name]) for name in agents],
            )
        )

    async def _look(self, queue: str) -> tuple[QueueStatus, Sequence[InstanceInfo]]:
        # A queue that is known to be away is not waited for: the picture of the others must not come late.
        if trouble := self._core.trouble(queue):
            return QueueStatus(queue=queue, trouble=trouble), []
        try:
            stats = await self._core.stats(queue)
            return QueueStatus(queue=queue, stats=stats), await self._core.instances(queue=queue, agent=None)
        except QueueUnavailableError as error:
            return QueueStatus(queue=queue, trouble=str(error)), []


def _overview(agent: str, instances: Sequence[InstanceInfo]) -> AgentOverview:
    return AgentOverview(
        agent=agent,
        known=len(instances),
        healthy=sum(found.healthy for found in instances),
        running=sum(found.running for found in instances),
        instances=list(instances),
    )


def _json(model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = model.model_dump_json(by_alias=True, exclude_none=True).encode()
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _json_list(adapter: TypeAdapter[list[Model]], items: Iterable[Model]) -> Response:
    body = adapter.dump_json(list(items), by_alias=True, exclude_none=True)
    return Response(body, media_type="application/json")


@contextlib.asynccontextmanager
async def _unless_gone(request: Request) -> AsyncIterator[asyncio.Timeout]:
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
