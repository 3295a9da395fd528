# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue, for agents outside of the cluster; and messages, which are tasks of the type `message`.

What a claim is answered with is given back if the answer cannot be delivered. All else is safe to repeat: its token
fences each attempt.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any, Final, NamedTuple

import orjson
from pydantic import Field, JsonValue

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls.answer import Answer, End, text
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.http.models import Seconds
from agent_runtime.queue import wire
from agent_runtime.queue.base import Worker
from kubeagents_api.model import ApiModel, ObjectName
from kubeagents_api.task import ParentOutcome, TaskId, TaskRequest
from kubeagents_api.work import (
    ClaimedTask,
    ClaimRef,
    InstanceId,
    Terms,
    WorkerBeat,
    WorkerInfo,
    WorkerOrders,
    WorkItem,
    WorkOutcome,
)

MESSAGE_TYPE: Final = "message"

_Limit = Annotated[int, Field(ge=1, le=1000)]


class OneWorker(ApiModel):
    """A process."""

    worker: WorkerInfo
    """Who it is."""


class Heartbeat(ApiModel):
    """A sign of life."""

    beat: WorkerBeat
    """What the process says about itself."""


class ClaimRequest(OneWorker):
    """Who wants tasks, and how many."""

    limit: _Limit = 1
    """How many, at most."""
    wait_seconds: Seconds = 0.0
    """How long to wait for the first one."""


class HeldClaims(ApiModel):
    """Attempts that are held."""

    claims: list[ClaimRef] = Field(min_length=1, max_length=1000)
    """The attempts."""


class Outcomes(ApiModel):
    """How attempts ended."""

    outcomes: list[WorkOutcome] = Field(min_length=1, max_length=1000)
    """One for each."""


class OneClaim(ApiModel):
    """An attempt that is held."""

    claim: ClaimRef
    """The attempt."""


class Saying(OneClaim):
    """What an attempt says while it runs."""

    items: list[WorkItem] = Field(min_length=1, max_length=1000)
    """In this order."""


class Message(ApiModel):
    """A message to an Agent."""

    to: ObjectName
    """The Agent."""
    payload: JsonValue = None
    """What it says."""
    id: TaskId | None = None
    """Makes a repeated sending harmless, as the id of a task does; made up if unset."""


class Inbox(ApiModel):
    """Whose messages are wanted, and how many."""

    agent: ObjectName
    """The Agent."""
    instance: InstanceId | None = None
    """Name of the process, unique on the queue; `<agent>-messages` if unset."""
    limit: _Limit = 1
    """How many, at most."""
    wait_seconds: Seconds = 0.0
    """How long to wait for the first one."""


class ClaimedTasks(ApiModel):
    """Tasks that are held under a lease from now on."""

    claims: list[ClaimedTask]
    """The tasks, best first; none if the time is over."""


class LostClaims(ApiModel):
    """Attempts that are no longer held: their work must be abandoned."""

    lost: list[ClaimRef]
    """The attempts."""


class Recorded(ApiModel):
    """Which outcomes were recorded."""

    held: list[bool]
    """For each: whether the attempt was still held. If not, nothing was changed."""


class Heard(ApiModel):
    """Whether something that was said has arrived."""

    held: bool
    """Whether the attempt was still held. If not, nothing was added."""


class Parents(ApiModel):
    """How the tasks ended that a task depends on."""

    parents: dict[str, ParentOutcome]
    """By their ids."""


class Revoked(ApiModel):
    """Tasks that were taken away from a process."""

    ids: list[str]
    """Their names. Empty: some may have been missed, so extend what is held; or there are new orders, so beat."""


class Sent(ApiModel):
    """A message that was sent."""

    id: str
    """Its name; results can be waited for as for each task."""


class Done(ApiModel):
    """It is done."""


async def register(core: Core, queue: str, params: OneWorker) -> Answer:
    """What a process has to know of the queue before it works for it. Its first heartbeat shows it."""
    return text(core.register(queue, wire.worker_of(params.worker)))


async def beat(core: Core, queue: str, params: Heartbeat) -> Answer:
    """Show that a process is alive, and be told what it is to do."""
    orders = await core.worker_queue(queue).beat(wire.beat_of(params.beat))
    return text(WorkerOrders(cordoned=orders.cordoned))


async def claim(core: Core, queue: str, params: ClaimRequest) -> Answer:
    """Take tasks, best first; waits for the first one. Refused with CORDONED while the process is to take none."""
    return await _claim(core, queue, wire.worker_of(params.worker), params.limit, params.wait_seconds)


async def extend(core: Core, queue: str, params: HeldClaims) -> Answer:
    """Renew the leases of attempts, and be told which are no longer held."""
    lost = await core.worker_queue(queue).extend([wire.held(one) for one in params.claims])
    return _answer({"lost": [wire.ref_fields(one) for one in lost]})


async def settle(core: Core, queue: str, params: Outcomes) -> Answer:
    """Record how attempts ended."""
    held = await core.worker_queue(queue).settle([wire.outcome_of(one) for one in params.outcomes])
    return _answer({"held": held})


async def release(core: Core, queue: str, params: HeldClaims) -> Answer:
    """Give tasks back to the places they had in the queue, without spending an attempt."""
    await core.worker_queue(queue).release([wire.held(one) for one in params.claims])
    return text(Done())


async def emit(core: Core, queue: str, params: Saying) -> Answer:
    """Say how far an attempt is, and parts of its result."""
    held = await core.worker_queue(queue).emit(wire.held(params.claim), wire.said_of(params.items))
    return _answer({"held": held})


async def parents(core: Core, queue: str, params: OneClaim) -> Answer:
    """How the tasks ended that a claimed one depends on."""
    return text(Parents(parents=dict(await core.worker_queue(queue).parents(wire.held(params.claim)))))


async def leave(core: Core, queue: str, params: OneWorker) -> Answer:
    """Forget a process that stops in order."""
    await core.worker_queue(queue).leave(wire.worker_of(params.worker))
    return text(Done())


async def revoked(core: Core, queue: str, params: OneWorker) -> AsyncGenerator[str | End, None]:
    """Which tasks are taken away from a process: cancelled, or expired."""
    listening: Any = core.worker_queue(queue).revoked(wire.worker_of(params.worker))
    try:
        async for ids in listening:
            yield Revoked(ids=list(ids)).model_dump_json()
    finally:
        await listening.aclose()
    raise DrainingError("this pod is about to stop: listen to another one, and extend what is held")


async def send(core: Core, queue: str, params: Message) -> Answer:
    """Send a message to an Agent: a task of the type `message`."""
    task = TaskRequest(id=params.id, agent=params.to, type=MESSAGE_TYPE, payload=params.payload)
    (found,) = await core.submit(queue, core.named(queue, [task]))
    return text(Sent(id=found))


async def receive(core: Core, queue: str, params: Inbox) -> Answer:
    """Take messages to an Agent, and what other tasks there are for it. They are acknowledged as tasks are settled."""
    worker = Worker(params.agent, params.instance or f"{params.agent}-messages")
    return await _claim(core, queue, worker, params.limit, params.wait_seconds)


async def _claim(core: Core, queue: str, worker: Worker, limit: int, wait_seconds: float) -> Answer:
    lent = core.worker_queue(queue)
    claims = await lent.claim(worker, limit=limit, wait_seconds=wait_seconds)
    answer = _answer({"claims": [wire.claimed_fields(one) for one in claims]})
    return Answer(answer.json, undo=lambda: lent.release(claims)) if claims else answer


def _answer(fields: dict[str, Any]) -> Answer:
    return Answer(orjson.dumps(fields).decode())


class Work(NamedTuple):
    """One call of a process."""

    run: Callable[[Core, str, Any], Awaitable[Answer]]
    params: type[ApiModel]
    answer: type[ApiModel]


WORK: Final[dict[str, Work]] = {
    "register": Work(register, OneWorker, Terms),
    "beat": Work(beat, Heartbeat, WorkerOrders),
    "claim": Work(claim, ClaimRequest, ClaimedTasks),
    "extend": Work(extend, HeldClaims, LostClaims),
    "settle": Work(settle, Outcomes, Recorded),
    "release": Work(release, HeldClaims, Done),
    "emit": Work(emit, Saying, Heard),
    "parents": Work(parents, OneClaim, Parents),
    "leave": Work(leave, OneWorker, Done),
}
"""By name, in the order in which a process needs them. `revoked` is a stream."""
