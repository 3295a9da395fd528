# SPDX-License-Identifier: Apache-2.0
"""The operations: each reads a request, asks the core, and writes the answer as JSON without further ado."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Path, Query, Request, Response
from pydantic import TypeAdapter

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.answers import (
    CLIENT_GONE,
    QueueName,
    TaskPath,
    as_json,
    as_json_list,
    unless_gone,
)
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
)
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from kubeagents_api.errors import QueueUnavailableError, TaskNotFoundError
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import BatchRequest, InstanceInfo, QueueStats, TaskRecord, TaskRequest, TaskState

AgentName = Annotated[str, Path(description="Name of the Agent.")]

_RECORDS = TypeAdapter(list[TaskRecord])
_STATS = TypeAdapter(list[QueueStats])
_INSTANCES = TypeAdapter(list[InstanceInfo])
_SCHEDULES = TypeAdapter(list[ScheduleInfo])

_POLL_AGAIN = {"retry-after": "1"}


class Operations:
    """What `/v1` offers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def submit(self, request: Request) -> Response:
        """Queue one task.

        Give it an id of your own to make a repeated call harmless: the second one is refused with 409. With an
        idempotency key that an earlier task has, nothing is queued: the answer is 200 with that one's id.
        """
        limit = self._core.max_payload_bytes + ENVELOPE_BYTES
        advice = "send a reference to the data instead of the data"
        task = await parsed(request, TaskRequest, limit=limit, advice=advice)
        queue = task.queue or self._core.queue_names[0]
        (named,) = self._core.named(queue, [task])
        ids = await self._submit(queue, [named], request)
        if ids is None:
            return Response(status_code=CLIENT_GONE)
        merged = named.id is not None and ids[0] != named.id
        state = await self._state(queue, named, ids[0], merged=merged)
        return as_json(SubmittedTask(id=ids[0], queue=queue, state=state, merged=merged), status=200 if merged else 201)

    async def submit_batch(self, request: Request) -> Response:
        """Queue up to 10,000 tasks of one queue in one call: all of them, or none.

        Tasks with an idempotency key that an earlier task has are not queued; `merged` has the ids of the earlier ones.
        """
        limit = max(BATCH_BYTES, self._core.max_payload_bytes + ENVELOPE_BYTES)
        batch = await parsed(request, BatchRequest, limit=limit, advice="split the batch")
        queue = batch.tasks[0].queue or self._core.queue_names[0]
        tasks = self._core.named(queue, batch.tasks)
        ids = await self._submit(queue, tasks, request)
        if ids is None:
            return Response(status_code=CLIENT_GONE)
        merged = [found for task, found in zip(tasks, ids, strict=True) if task.id is not None and task.id != found]
        return as_json(SubmittedBatch(ids=list(ids), queue=queue, merged=merged), status=201)

    async def task(self, queue: QueueName, task: TaskPath) -> Response:
        """A task and all that is known about it."""
        return as_json(await self._core.task(queue, task))

    async def result(
        self, queue: QueueName, task: TaskPath, query: Annotated[ResultQuery, Query()], request: Request
    ) -> Response:
        """Wait until a task is final.

        200 as soon as it is. 202 with the task as it is now when the time is over, or when this pod is about to stop:
        ask again.
        """
        async with unless_gone(request) as gone:
            records = await self._core.results(queue, [task], timeout_seconds=query.timeout_seconds)
        if gone.expired():
            return Response(status_code=CLIENT_GONE)
        record = records[0]
        return as_json(record) if record.state.final else as_json(record, status=202, headers=_POLL_AGAIN)

    async def results(self, queue: QueueName, request: Request) -> Response:
        """Wait until many tasks are final, or the time is over: what is final, and the ids of the others."""
        asked = await parsed(request, ResultsRequest, limit=BATCH_BYTES, advice="ask for fewer tasks at once")
        async with unless_gone(request) as gone:
            records = await self._core.results(queue, asked.ids, timeout_seconds=asked.timeout_seconds)
        if gone.expired():
            return Response(status_code=CLIENT_GONE)
        final = [record for record in records if record.state.final]
        pending = [record.id for record in records if not record.state.final]
        return as_json(Results(tasks=final, pending=pending), headers=_POLL_AGAIN if pending else None)

    async def queues(self) -> Response:
        """The figures of all queues, the default one first."""
        stats = await asyncio.gather(*(self._core.stats(name) for name in self._core.queue_names))
        return as_json_list(_STATS, stats)

    async def queue(self, queue: QueueName) -> Response:
        """The figures of one queue."""
        return as_json(await self._core.stats(queue))

    async def dead(self, queue: QueueName, query: Annotated[DeadQuery, Query()]) -> Response:
        """Tasks that have used up their attempts, newest first, page by page.

        Where there may be more, the header `link` has the address of the next page.
        """
        found = await self._core.dead(queue, query.which, limit=query.limit, after=query.cursor)
        headers = None
        if len(found) == query.limit:
            again = query.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"cursor": found[-1].id}
            headers = {"link": f'<?{urlencode(again)}>; rel="next"'}
        return as_json_list(_RECORDS, found, headers=headers)

    async def schedules(self, queue: QueueName) -> Response:
        """The schedules of a queue: when each has fired, and when it will."""
        return as_json_list(_SCHEDULES, await self._core.schedules(queue))

    async def agents(self, query: Annotated[AgentsQuery, Query()]) -> Response:
        """The known processes of all Agents."""
        return as_json_list(_INSTANCES, await self._core.instances(queue=query.queue, agent=query.agent))

    async def agent(self, agent: AgentName) -> Response:
        """One Agent: its processes and how many of them are healthy."""
        instances = await self._core.instances(queue=None, agent=agent)
        if not instances:
            message = f"no process of an Agent {agent!r} has sent a heartbeat to the queues of this CentralAgent"
            raise RefusedError(404, "AGENT_NOT_FOUND", message)
        queues = sorted({found.queue for found in instances})
        stats = await asyncio.gather(*(self._core.stats(queue) for queue in queues))
        return as_json(_overview(agent, instances, {found.queue: found.waiting for found in stats}))

    async def status(self) -> Response:
        """One look at everything; a queue that does not answer is part of the picture, not an error."""
        looks = await asyncio.gather(*(self._look(name) for name in self._core.queue_names))
        instances = [found for _, processes in looks for found in processes]
        agents = sorted({found.agent for found in instances})
        waiting = {look.queue: look.stats.waiting for look, _ in looks if look.stats is not None}
        return as_json(
            CentralStatus(
                name=self._core.name,
                version=RUNTIME_VERSION,
                instance=self._core.instance,
                leader=self._core.leader,
                queues=[look for look, _ in looks],
                agents=[
                    _overview(name, [found for found in instances if found.agent == name], waiting) for name in agents
                ],
            )
        )

    async def _submit(self, queue: str, tasks: Sequence[TaskRequest], request: Request) -> Sequence[str] | None:
        """The ids; None if the client has gone while the tasks waited for room: they are not queued any more then."""
        if not self._core.may_block(queue):
            return await self._core.submit(queue, tasks)
        ids: Sequence[str] | None = None
        async with unless_gone(request):
            ids = await self._core.submit(queue, tasks)
        return ids

    async def _state(self, queue: str, task: TaskRequest, task_id: str, *, merged: bool) -> TaskState | None:
        """Where a submitted task is. Only the queue knows whether its parents have ended and what time it is."""
        if not (merged or task.depends_on or task.not_before):
            return TaskState.SCHEDULED if task.delay_seconds else TaskState.QUEUED
        try:
            return (await self._core.task(queue, task_id)).state
        except (QueueUnavailableError, TaskNotFoundError):
            return None  # the task is submitted: an error would say that it is not

    async def _look(self, queue: str) -> tuple[QueueStatus, Sequence[InstanceInfo]]:
        # A queue that is known to be away is not waited for: the picture of the others must not come late.
        if trouble := self._core.trouble(queue):
            return QueueStatus(queue=queue, trouble=trouble), []
        try:
            stats = await self._core.stats(queue)
            schedules = list(await self._core.schedules(queue))
            instances = await self._core.instances(queue=queue, agent=None)
            return QueueStatus(queue=queue, stats=stats, schedules=schedules), instances
        except QueueUnavailableError as error:
            return QueueStatus(queue=queue, trouble=str(error)), []


def _overview(agent: str, instances: Sequence[InstanceInfo], waiting: Mapping[str, Mapping[str, int]]) -> AgentOverview:
    """What is known of an Agent. `waiting` has the waiting tasks of its queues by target."""
    taking = [found for found in instances if found.takes_tasks]
    slots = sum(found.concurrency for found in taking)
    targets: dict[str, set[str]] = {}
    for found in instances:
        names = {"", f"agent/{agent}", f"instance/{found.instance}"}
        names.update(f"capability/{capability}" for capability in found.capabilities)
        targets.setdefault(found.queue, set()).update(names)
    return AgentOverview(
        agent=agent,
        known=len(instances),
        healthy=sum(found.healthy for found in instances),
        running=sum(found.running for found in instances),
        slots=slots,
        utilization=min(1.0, sum(found.running for found in taking) / slots) if slots else 0.0,
        waiting=sum(waiting.get(queue, {}).get(target, 0) for queue, names in targets.items() for target in names),
        instances=list(instances),
    )
