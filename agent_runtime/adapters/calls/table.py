# SPDX-License-Identifier: Apache-2.0
"""What can be called. Sorted by what it is about; the reference of the calls follows it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import tasks, work
from agent_runtime.adapters.calls.answer import Answer, End, text
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.calls.parameters import (
    Cancellation,
    ClaimOfQueue,
    DeadChange,
    Followed,
    GateChange,
    HeartbeatOfQueue,
    HeldClaimsOfQueue,
    InboxOfQueue,
    MessageOfQueue,
    Nothing,
    OfQueue,
    OneClaimOfQueue,
    OneTask,
    OutcomesOfQueue,
    SayingOfQueue,
    SomeDead,
    SomeResults,
    Submission,
    Watched,
    WorkerOfQueue,
)
from agent_runtime.adapters.calls.tasks import chosen
from agent_runtime.adapters.http.models import AgentsQuery, StreamEnd, TaskIds
from agent_runtime.queue.base import Gate
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.model import ApiModel
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import BatchRequest, InstanceInfo, QueueStats, TaskRecord

P = TypeVar("P", bound=ApiModel)

_EVENTS: Final = 100
"""How many are read at once, at most."""
_LOOK_SECONDS: Final = 300.0
"""The longest wait for events in one call of the core."""

_RECORDS = TypeAdapter(list[TaskRecord])
_STATS = TypeAdapter(list[QueueStats])
_INSTANCES = TypeAdapter(list[InstanceInfo])
_SCHEDULES = TypeAdapter(list[ScheduleInfo])


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """Has one answer."""

    params: type[P]
    run: Callable[[Core, P, str], Awaitable[Answer]]
    """Core, parameters, and who calls if the parameters do not say it."""
    waits: Callable[[Core, P], bool] = lambda core, params: False
    """Whether it may wait long. Then it is cancelled when its client goes; otherwise it is finished."""


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[P]):
    """Has many items, and perhaps an end."""

    params: type[P]
    run: Callable[[Core, P], AsyncGenerator[str | End, None]]


def _list(adapter: TypeAdapter[Any], items: Any) -> Answer:
    return Answer(adapter.dump_json(list(items), by_alias=True, exclude_none=True).decode())


async def _submit(core: Core, params: Submission, _: str) -> Answer:
    return text(await tasks.submit(core, params.task))


async def _submit_batch(core: Core, params: BatchRequest, _: str) -> Answer:
    return text(await tasks.submit_batch(core, params.tasks))


async def _task(core: Core, params: OneTask, _: str) -> Answer:
    return text(await core.task(chosen(core, params.queue), params.id))


async def _results(core: Core, params: SomeResults, _: str) -> Answer:
    queue = chosen(core, params.queue)
    return text(await tasks.results(core, queue, params.ids, timeout_seconds=params.timeout_seconds))


async def _cancel(core: Core, params: Cancellation, by: str) -> Answer:
    queue = chosen(core, params.queue)
    return text(await tasks.cancel(core, queue, params.ids, by=params.by or by, reason=params.reason))


async def _stats(core: Core, params: OfQueue, _: str) -> Answer:
    return text(await core.stats(chosen(core, params.queue)))


async def _queues(core: Core, _params: Nothing, _: str) -> Answer:
    return _list(_STATS, await asyncio.gather(*(core.stats(name) for name in core.queue_names)))


async def _agents(core: Core, params: AgentsQuery, _: str) -> Answer:
    return _list(_INSTANCES, await core.instances(queue=params.queue, agent=params.agent))


async def _schedules(core: Core, params: OfQueue, _: str) -> Answer:
    return _list(_SCHEDULES, await core.schedules(chosen(core, params.queue)))


async def _dead(core: Core, params: SomeDead, _: str) -> Answer:
    queue = chosen(core, params.queue)
    return _list(_RECORDS, await core.dead(queue, params.which, limit=params.limit, after=params.cursor))


async def _replay(core: Core, params: DeadChange, by: str) -> Answer:
    queue = chosen(core, params.queue)
    return text(TaskIds(queue=queue, ids=list(await core.replay(queue, params.which, by=params.by or by))))


async def _purge(core: Core, params: DeadChange, by: str) -> Answer:
    queue = chosen(core, params.queue)
    return text(TaskIds(queue=queue, ids=list(await core.purge(queue, params.which, by=params.by or by))))


def _gate(gate: Gate, *, shut: bool) -> Call[GateChange]:
    async def run(core: Core, params: GateChange, by: str) -> Answer:
        queue = chosen(core, params.queue)
        return text(await tasks.set_gate(core, queue, gate, shut=shut, by=params.by or by))

    return Call(GateChange, run)


def _may_block(core: Core, queue: str | None) -> bool:
    return core.may_block(chosen(core, queue))


def _has_time(_: Core, params: ClaimOfQueue | InboxOfQueue) -> bool:
    return params.wait_seconds > 0


def _of_queue(
    act: Callable[[Core, str, Any], Awaitable[Answer]],
    params: type[OfQueue],
    *,
    waits: Callable[[Core, Any], bool] = lambda core, params: False,
) -> Call[Any]:
    """A call whose parameters also name the queue."""

    async def run(core: Core, params: Any, _: str) -> Answer:
        return await act(core, chosen(core, params.queue), params)

    return Call(params, run, waits)


CALLS: Final[Mapping[str, Call[Any]]] = {
    "submit": Call(Submission, _submit, waits=lambda core, params: _may_block(core, params.task.queue)),
    "submitBatch": Call(
        BatchRequest, _submit_batch, waits=lambda core, params: _may_block(core, params.tasks[0].queue)
    ),
    "task": Call(OneTask, _task),
    "results": Call(SomeResults, _results, waits=lambda _, params: params.timeout_seconds > 0),
    "cancel": Call(Cancellation, _cancel),
    "stats": Call(OfQueue, _stats),
    "queues": Call(Nothing, _queues),
    "agents": Call(AgentsQuery, _agents),
    "schedules": Call(OfQueue, _schedules),
    "dead": Call(SomeDead, _dead),
    "replay": Call(DeadChange, _replay),
    "purge": Call(DeadChange, _purge),
    "pause": _gate(Gate.CLAIMS, shut=True),
    "resume": _gate(Gate.CLAIMS, shut=False),
    "close": _gate(Gate.SUBMISSIONS, shut=True),
    "open": _gate(Gate.SUBMISSIONS, shut=False),
    "message.send": _of_queue(work.send, MessageOfQueue, waits=lambda core, params: _may_block(core, params.queue)),
    "message.receive": _of_queue(work.receive, InboxOfQueue, waits=_has_time),
    "work.register": _of_queue(work.register, WorkerOfQueue),
    "work.beat": _of_queue(work.beat, HeartbeatOfQueue),
    "work.claim": _of_queue(work.claim, ClaimOfQueue, waits=_has_time),
    "work.extend": _of_queue(work.extend, HeldClaimsOfQueue),
    "work.settle": _of_queue(work.settle, OutcomesOfQueue),
    "work.release": _of_queue(work.release, HeldClaimsOfQueue),
    "work.emit": _of_queue(work.emit, SayingOfQueue),
    "work.parents": _of_queue(work.parents, OneClaimOfQueue),
    "work.leave": _of_queue(work.leave, WorkerOfQueue),
}
"""By name."""


async def _watch(core: Core, params: Watched) -> AsyncGenerator[str | End, None]:
    queue = chosen(core, params.queue)
    items: Any = core.stream(queue, params.id, after=params.after)
    try:
        async for item in items:
            yield item.model_dump_json(by_alias=True, exclude_none=True)
    finally:
        await items.aclose()
    if core.draining:
        raise DrainingError("this pod is about to stop: go on at another one, after the last offset")
    try:
        state = (await core.task(queue, params.id)).state
    except TaskNotFoundError:
        state = None
    yield End(StreamEnd(state=state).model_dump_json(exclude={"kind"}, exclude_none=True))


async def _events(core: Core, params: Followed) -> AsyncGenerator[str | End, None]:
    queue, after = chosen(core, params.queue), params.after
    while not core.draining:
        for event in await core.events(queue, after=after, limit=_EVENTS, wait_seconds=_LOOK_SECONDS):
            yield event.model_dump_json(by_alias=True, exclude_none=True)
            after = event.offset
    raise DrainingError("this pod is about to stop: go on at another one, after the last offset")


def _revoked(core: Core, params: Any) -> AsyncGenerator[str | End, None]:
    return work.revoked(core, chosen(core, params.queue), params)


STREAMS: Final[Mapping[str, StreamCall[Any]]] = {
    "events": StreamCall(Followed, _events),
    "watch": StreamCall(Watched, _watch),
    "work.revoked": StreamCall(WorkerOfQueue, _revoked),
}
"""By name."""
