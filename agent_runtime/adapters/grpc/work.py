# SPDX-License-Identifier: Apache-2.0
"""The service Work: for agents outside of the cluster."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.grpc import reading, writing
from agent_runtime.adapters.grpc.envelope import Call, Message
from agent_runtime.adapters.grpc.errors import RefusedError, fault
from agent_runtime.adapters.grpc.pushing import GOING, Credit, Outbox, claimed
from agent_runtime.adapters.grpc.tasks import LOOK_SECONDS
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.queue import wire
from agent_runtime.queue.base import Claim, Worker, WorkerQueue
from kubeagents_api.errors import KubeagentsError, UnauthenticatedError
from kubeagents_api.task import TaskRequest

_CLAIM_SECONDS: Final = 30.0
_CLAIMS: Final = 1000
"""In one call."""
_ANSWER_BYTES: Final = 3 * 1024 * 1024
"""Payloads in one answer: clients take messages of 4 MiB unless they are told otherwise."""
_MESSAGE_TYPE: Final = "message"


class Work:
    """See the proto."""

    async def register(self, call: Call, request: Message) -> Message:
        return writing.terms(call.core.register(call.queue(request.queue), _worker(request)))

    async def heartbeat(self, call: Call, request: Message) -> Message:
        orders = await _lent(call, request).beat(wire.beat_of(reading.beat(request)))
        return pb.Orders(cordoned=orders.cordoned)

    async def next_task(self, call: Call, requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
        first = await _first(requests)
        queue, worker, credit = _lent(call, first), _worker(first), Credit(first.credit)
        outbox = Outbox(queue)

        async def read() -> None:
            async for request in requests:
                credit.add(request.credit)
            credit.close()

        async def claim() -> None:
            async with aclosing(claimed(call.core, queue, worker, credit)) as claims:
                async for one in claims:
                    await outbox.put(one)

        async with aclosing(outbox.items(read(), claim())) as items:
            async for item in items:
                yield writing.claimed(item) if isinstance(item, Claim) else item

    async def claim(self, call: Call, request: Message) -> Message:
        limit = request.limit if request.HasField("limit") else 1
        if not 1 <= limit <= _CLAIMS:
            raise RefusedError(f"limit is {limit}, it must be 1 to {_CLAIMS}", field="limit")
        wait = reading.wait_seconds(request, default=_CLAIM_SECONDS, most=LOOK_SECONDS)
        queue, worker = _lent(call, request), _worker(request)
        claims = await queue.claim(worker, limit=limit, wait_seconds=wait)
        if not claims and call.core.draining:
            raise DrainingError(GOING)
        fitting, others = _cut(claims)
        if others:
            await queue.release(others)
        return pb.ClaimResponse(claims=[writing.claimed(claim) for claim in fitting])

    async def extend(self, call: Call, request: Message) -> Message:
        held = [wire.held(ref) for ref in reading.claim_refs(request.claims)]
        lost = await _lent(call, request).extend(held)
        return pb.ExtendResponse(lost=[writing.claim_ref(claim) for claim in lost])

    async def settle(self, call: Call, request: Message) -> Message:
        outcomes = [
            wire.outcome_of(reading.outcome(message, where=f"outcomes.{index}"))
            for index, message in enumerate(request.outcomes)
        ]
        return pb.SettleResponse(held=await _lent(call, request).settle(outcomes))

    async def release(self, call: Call, request: Message) -> Message:
        await _lent(call, request).release([wire.held(ref) for ref in reading.claim_refs(request.claims)])
        return pb.ReleaseResponse()

    async def emit(self, call: Call, request: Message) -> Message:
        claim = wire.held(reading.claim_ref(request.claim))
        items = [reading.work_item(message, where=f"items.{index}") for index, message in enumerate(request.items)]
        return pb.EmitResponse(held=await _lent(call, request).emit(claim, wire.said_of(items)))

    async def parents(self, call: Call, request: Message) -> Message:
        claim = wire.held(reading.claim_ref(request.claim))
        found = await _lent(call, request).parents(claim)
        return pb.ParentsResponse(parents={name: writing.parent(one) for name, one in found.items()})

    async def leave(self, call: Call, request: Message) -> Message:
        await _lent(call, request).leave(_worker(request))
        return pb.LeaveResponse()

    async def revoked(self, call: Call, request: Message) -> AsyncGenerator[Message, None]:
        listening: Any = _lent(call, request).revoked(_worker(request))
        async with aclosing(listening):
            async for ids in listening:
                yield pb.RevokedResponse(ids=ids)
        raise DrainingError(GOING)

    async def stream_messages(self, call: Call, requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
        first = await _first(requests)
        name, credit = call.queue(first.queue), Credit(first.credit)
        # Who only sends needs no right to work.
        queue = call.core.worker_queue(name) if first.HasField("worker") else None
        outbox = Outbox(queue)

        async def handle(request: Message) -> None:
            match request.WhichOneof("what"):
                case "send":
                    await outbox.put(pb.StreamMessagesResponse(sent=await _sent(call, name, request.send)))
                case "settle":
                    await outbox.put(pb.StreamMessagesResponse(settled=await _settled(call, name, request.settle)))

        async def read() -> None:
            await handle(first)
            async for request in requests:
                credit.add(request.credit)
                await handle(request)
            credit.close()

        async def receive() -> None:
            if queue is not None:
                async with aclosing(claimed(call.core, queue, _worker(first), credit)) as claims:
                    async for one in claims:
                        await outbox.put(one)

        async with aclosing(outbox.items(read(), receive())) as items:
            async for item in items:
                if isinstance(item, Claim):
                    yield pb.StreamMessagesResponse(received=writing.claimed(item))
                else:
                    yield item


async def _sent(call: Call, queue: str, message: Message) -> Message:
    """A message that was sent, or why it was not."""
    try:
        core = await call.admitted_again()
        fields: dict[str, Any] = {
            "agent": message.to,
            "type": _MESSAGE_TYPE,
            "payload": reading.json_value(message.payload_json, "payload"),
        }
        if message.HasField("id"):
            fields["id"] = message.id
        (task_id,) = await core.submit(queue, [reading.checked(TaskRequest, fields)])
    except UnauthenticatedError:
        raise
    except KubeagentsError as error:
        return pb.StreamMessagesResponse.Sent(number=message.number, fault=fault(error))
    return pb.StreamMessagesResponse.Sent(number=message.number, id=task_id)


async def _settled(call: Call, queue: str, message: Message) -> Message:
    """A message that was settled, or why it was not."""
    try:
        core = await call.admitted_again()
        outcome = wire.outcome_of(reading.outcome(message, where="settle"))
        (held,) = await core.worker_queue(queue).settle([outcome])
    except UnauthenticatedError:
        raise
    except KubeagentsError as error:
        return pb.StreamMessagesResponse.Settled(id=message.claim.id, fault=fault(error))
    return pb.StreamMessagesResponse.Settled(id=message.claim.id, held=held)


async def _first(requests: AsyncIterator[Message]) -> Message:
    first = await anext(requests, None)
    if first is None:
        raise RefusedError("the stream has ended before it has begun: the first message says who it is")
    return first


def _lent(call: Call, request: Message) -> WorkerQueue:
    return call.core.worker_queue(call.queue(request.queue))


def _worker(request: Message) -> Worker:
    return wire.worker_of(reading.worker(request.worker))


def _cut(claims: list[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Those that fit into one answer, which is one at least, and the others."""
    size = 0
    for index, claim in enumerate(claims):
        size += len(claim.payload)
        if size > _ANSWER_BYTES and index:
            return claims[:index], claims[index:]
    return claims, []
