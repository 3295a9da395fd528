# SPDX-License-Identifier: Apache-2.0
"""The operations that change a queue, or tasks that are in it already. Each says who asked for it."""

import re
from typing import Annotated

from fastapi import Query, Request, Response

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.answers import QueueName, TaskPath, as_json
from agent_runtime.adapters.http.body import BATCH_BYTES, ENVELOPE_BYTES, parsed
from agent_runtime.adapters.http.errors import RefusedError
from agent_runtime.adapters.http.models import (
    Author,
    CancelledTasks,
    CancelQuery,
    CancelRequest,
    DeadSelection,
    Gates,
    Instances,
    InstanceSelection,
    TaskIds,
    TaskInState,
)
from agent_runtime.queue.base import Gate
from agent_runtime.queue.gates import SPEC

AUTHOR_HEADER = "x-kubeagents-by"
_AUTHOR = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")


class Steering:
    """Cancelling, replaying, purging, the gates, and cordons."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def cancel_task(
        self, queue: QueueName, task: TaskPath, query: Annotated[CancelQuery, Query()], request: Request
    ) -> Response:
        """Cancel a task that has not ended.

        Whoever runs it is told at once. A task that had ended is left as it is: the answer has its state.
        """
        by = _author(request, query)
        (state,) = await self._core.cancel(queue, [task], by=by, reason=query.reason)
        return as_json(TaskInState(id=task, state=state))

    async def cancel_tasks(self, queue: QueueName, request: Request) -> Response:
        """Cancel up to 10,000 tasks that have not ended: all of them, or none if one is not known."""
        asked = await parsed(request, CancelRequest, limit=BATCH_BYTES, advice="cancel fewer tasks at once")
        by = _author(request, asked)
        states = await self._core.cancel(queue, asked.ids, by=by, reason=asked.reason)
        tasks = [TaskInState(id=task, state=state) for task, state in zip(asked.ids, states, strict=True)]
        return as_json(CancelledTasks(queue=queue, tasks=tasks))

    async def replay_dead(self, queue: QueueName, request: Request) -> Response:
        """Queue dead tasks again, with all their attempts. What is not dead is left alone."""
        asked = await self._selection(request)
        ids = await self._core.replay(queue, asked.which, by=_author(request, asked))
        return as_json(TaskIds(queue=queue, ids=list(ids)))

    async def purge_dead(self, queue: QueueName, request: Request) -> Response:
        """Remove dead tasks for good. What is not dead is left alone."""
        asked = await self._selection(request)
        ids = await self._core.purge(queue, asked.which, by=_author(request, asked))
        return as_json(TaskIds(queue=queue, ids=list(ids)))

    async def pause(self, queue: QueueName, request: Request) -> Response:
        """Pause a queue: nobody takes tasks. What runs is finished, new tasks wait."""
        return await self._set(queue, request, Gate.CLAIMS, shut=True)

    async def resume(self, queue: QueueName, request: Request) -> Response:
        """Take back one's own pause. Tasks are taken again once all have done so."""
        return await self._set(queue, request, Gate.CLAIMS, shut=False)

    async def close(self, queue: QueueName, request: Request) -> Response:
        """Close a queue to new tasks. What is in it is worked off."""
        return await self._set(queue, request, Gate.SUBMISSIONS, shut=True)

    async def open(self, queue: QueueName, request: Request) -> Response:
        """Take back one's own closing. New tasks are taken again once all have done so."""
        return await self._set(queue, request, Gate.SUBMISSIONS, shut=False)

    async def cordon(self, queue: QueueName, request: Request) -> Response:
        """Let agent processes take nothing new. What they run is finished, and they stay where they are."""
        return await self._set_cordon(queue, request, cordoned=True)

    async def uncordon(self, queue: QueueName, request: Request) -> Response:
        """Take back one's own cordon. The processes take tasks again once all have done so."""
        return await self._set_cordon(queue, request, cordoned=False)

    async def _set_cordon(self, queue: str, request: Request, *, cordoned: bool) -> Response:
        asked = await parsed(request, InstanceSelection, limit=BATCH_BYTES, advice="name fewer processes at once")
        wanted = set(asked.instances)
        unknown = wanted - {found.instance for found in await self._core.instances(queue=queue, agent=None)}
        if unknown:
            raise RefusedError(
                404,
                "INSTANCE_NOT_FOUND",
                f"no agent process {min(unknown)!r} has sent a heartbeat to the queue {queue!r}; nothing was changed",
            )
        await self._core.set_cordon(queue, asked.instances, cordoned=cordoned, by=_author(request, asked))
        known = await self._core.instances(queue=queue, agent=None)
        return as_json(Instances(queue=queue, instances=[found for found in known if found.instance in wanted]))

    async def _selection(self, request: Request) -> DeadSelection:
        return await parsed(request, DeadSelection, limit=BATCH_BYTES, advice="name fewer tasks at once")

    async def _set(self, queue: str, request: Request, gate: Gate, *, shut: bool) -> Response:
        asked = await parsed(request, Author, limit=ENVELOPE_BYTES, advice="send {}")
        by = _author(request, asked)
        if by == SPEC:
            raise RefusedError(
                400, "INVALID_REQUEST", f"by: {SPEC!r} stands for the TaskQueue's own setting: change the manifest"
            )
        await self._core.set_gate(queue, gate, shut=shut, by=by)
        stats = await self._core.stats(queue)
        return as_json(Gates(queue=queue, paused_by=stats.paused_by, closed_by=stats.closed_by))


def _author(request: Request, asked: Author) -> str:
    if asked.by is not None:
        return asked.by
    if (said := request.headers.get(AUTHOR_HEADER)) is not None:
        if not _AUTHOR.fullmatch(said):
            raise RefusedError(
                400, "INVALID_REQUEST", f"the header {AUTHOR_HEADER} must be 1 to 128 printable ASCII characters"
            )
        return said
    return callers.name() or (request.client.host if request.client is not None else "unknown")
