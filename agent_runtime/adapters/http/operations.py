# SPDX-License-Identifier: Apache-2.0
"""The operations: each reads a request, asks the core, and writes the answer as JSON without further ado."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Path, Query, Request, Response
from pydantic import TypeAdapter

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import tasks
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
    ResultsRequest,
)
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import BatchRequest, InstanceInfo, QueueStats, TaskRecord, TaskRequest

T = TypeVar("T")
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
        queue = tasks.chosen(self._core, task.queue)
        submitted = await self._unless_gone(queue, lambda: tasks.submit(self._core, task), request)
        if submitted is None:
            return Response(status_code=CLIENT_GONE)
        return as_json(submitted, status=200 if submitted.merged else 201)

    async def submit_batch(self, request: Request) -> Response:
        """Queue up to 10,000 tasks of one queue in one call: all of them, or none.

        Tasks with an idempotency key that an earlier task has are not queued; `merged` has the ids of the earlier ones.
        """
        limit = max(BATCH_BYTES, self._core.max_payload_bytes + ENVELOPE_BYTES)
        batch = await parsed(request, BatchRequest, limit=limit, advice="split the batch")
        queue = tasks.chosen(self._core, batch.tasks[0].queue)
        submitted = await self._unless_gone(queue, lambda: tasks.submit_batch(self._core, batch.tasks), request)
        if submitted is None:
            return Response(status_code=CLIENT_GONE)
        return as_json(submitted, status=201)

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
            found = await tasks.results(self._core, queue, asked.ids, timeout_seconds=asked.timeout_seconds)
        if gone.expired():
            return Response(status_code=CLIENT_GONE)
        return as_json(found, headers=_POLL_AGAIN if found.pending else None)

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

    async def _unless_gone(self, queue: str, submit: Callable[[], Awaitable[T]], request: Request) -> T | None:
        """What it returns; None if the client has gone while it waited for room: nothing is queued any more then."""
        if not self._core.may_block(queue):
            return await submit()
        submitted: T | None = None
        async with unless_gone(request):
            submitted = await submit()
        return submitted

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
