# SPDX-License-Identifier: Apache-2.0
"""The service Queues: for those who look after queues and agents."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from agent_runtime.adapters.calls import tasks
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.calls.parameters import AgentsQuery, DeadChange, GateChange
from agent_runtime.adapters.grpc import reading, writing
from agent_runtime.adapters.grpc.envelope import Call, Message
from agent_runtime.adapters.grpc.errors import RefusedError
from agent_runtime.adapters.grpc.tasks import LOOK_SECONDS
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.queue.base import Gate

_EVENTS: Final = 100
"""How many are read at once."""
_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000


class Queues:
    """See the proto."""

    async def stats(self, call: Call, request: Message) -> Message:
        return writing.stats(await call.core.stats(call.queue(request.queue)))

    async def list(self, call: Call, _: Message) -> Message:
        core = call.core
        found = await asyncio.gather(*(core.stats(name) for name in core.queue_names))
        return pb.ListResponse(queues=[writing.stats(one) for one in found])

    async def agents(self, call: Call, request: Message) -> Message:
        asked = reading.checked(AgentsQuery, {"queue": request.queue or None, "agent": request.agent or None})
        found = await call.core.instances(queue=asked.queue, agent=asked.agent)
        return pb.AgentsResponse(instances=[writing.instance(one) for one in found])

    async def events(self, call: Call, request: Message) -> AsyncGenerator[Message, None]:
        core, queue, after = call.core, call.queue(request.queue), request.after
        while not core.draining:
            for event in await core.events(queue, after=after, limit=_EVENTS, wait_seconds=LOOK_SECONDS):
                yield writing.event(event)
                after = event.offset
        raise DrainingError("this pod is about to stop: go on at another one, after the last offset")

    async def dead(self, call: Call, request: Message) -> Message:
        limit = request.limit if request.HasField("limit") else _PAGE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise RefusedError(f"limit is {limit}, it must be 1 to {_LARGEST_PAGE}", field="limit")
        cursor = reading.task_id(request.cursor) if request.cursor else ""
        which = reading.dead_filter(request.filter)
        found = await call.core.dead(call.queue(request.queue), which, limit=limit, after=cursor)
        return pb.DeadResponse(
            tasks=[writing.task(one) for one in found], next=found[-1].id if len(found) == limit else ""
        )

    async def replay(self, call: Call, request: Message) -> Message:
        queue, asked = call.queue(request.queue), _selection(request)
        ids = await call.core.replay(queue, asked.which, by=asked.by or call.author)
        return pb.TaskIds(queue=queue, ids=ids)

    async def purge(self, call: Call, request: Message) -> Message:
        queue, asked = call.queue(request.queue), _selection(request)
        ids = await call.core.purge(queue, asked.which, by=asked.by or call.author)
        return pb.TaskIds(queue=queue, ids=ids)

    async def pause(self, call: Call, request: Message) -> Message:
        return await _set(call, request, Gate.CLAIMS, shut=True)

    async def resume(self, call: Call, request: Message) -> Message:
        return await _set(call, request, Gate.CLAIMS, shut=False)

    async def close(self, call: Call, request: Message) -> Message:
        return await _set(call, request, Gate.SUBMISSIONS, shut=True)

    async def open(self, call: Call, request: Message) -> Message:
        return await _set(call, request, Gate.SUBMISSIONS, shut=False)


async def _set(call: Call, request: Message, gate: Gate, *, shut: bool) -> Message:
    asked = reading.checked(GateChange, {"by": request.by or None})
    queue = call.queue(request.queue)
    gates = await tasks.set_gate(call.core, queue, gate, shut=shut, by=asked.by or call.author)
    return pb.Gates(queue=gates.queue, paused_by=gates.paused_by, closed_by=gates.closed_by)


def _selection(message: Message) -> DeadChange:
    fields: dict[str, object] = {"by": message.by or None}
    match message.WhichOneof("which"):
        case "filter":
            fields["filter"] = reading.dead_filter(message.filter)
        case "all":
            fields["all"] = message.all
    return reading.checked(DeadChange, fields)
