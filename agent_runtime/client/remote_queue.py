# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue that a CentralAgent lends, as if it were one's own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from agent_runtime.client.calls import Calls, Pace, read, read_list
from agent_runtime.client.pool import Way
from agent_runtime.client.transport import Params
from agent_runtime.queue import wire
from agent_runtime.queue.base import Beat, Claim, Orders, Outcome, Partial, Progress, Succeeded, Worker
from kubeagents_api.errors import (
    CordonedError,
    ForbiddenError,
    InvalidTaskError,
    KubeagentsError,
    QueueAuthError,
    QueueUnavailableError,
    TaskNotFoundError,
    TemporaryError,
    UnauthenticatedError,
)
from kubeagents_api.task import InstanceInfo, ParentOutcome, QueueStats, TaskRecord, TaskRequest, TaskState
from kubeagents_api.work import ClaimedTask, Terms, WorkerOrders

Item = TypeVar("Item")

_MOST_ITEMS: Final = 1000
_MOST_BYTES: Final = 65536
_CLAIMED: Final = TypeAdapter(list[ClaimedTask])


class RemoteQueue:
    """A WorkerQueue over any of the wires.

    Every call may go by another way, to another CentralAgent: what is claimed by one is settled by the next. As long as
    none can be reached, all methods raise QueueUnavailableError; so they do when a CentralAgent refuses the key that it
    took before, or does not know the queue any more (QueueAuthError for the former).
    """

    def __init__(self, calls: Calls, name: str, *, most_bytes: int = _MOST_BYTES) -> None:
        """`most_bytes` of results go into one call; see Terms.max_payload_bytes, which `register` finds out."""
        self.name = name
        self._calls = calls
        self._pace = Pace()
        self._most_bytes = most_bytes

    async def register(self, worker: Worker) -> Terms:
        """What there is to know of the queue. Raises whatever the CentralAgent answers with."""
        params = {"queue": self.name, "worker": wire.worker_info(worker).to_wire()}
        terms = read(Terms, await self._calls.call("work.register", params))
        self._most_bytes = terms.max_payload_bytes
        return terms

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See WorkerQueue."""
        return (await self._calls.submit(self.name, tasks)).ids

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See WorkerQueue."""
        return await self._calls.cancel(self.name, task_ids, by=by, reason=reason)

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float, only: Way | None = None) -> list[Claim]:
        """See WorkerQueue. By way of `only`, if that is given."""
        begun = asyncio.get_running_loop().time()
        params = {"worker": wire.worker_info(worker).to_wire(), "limit": limit, "waitSeconds": wait_seconds}
        answer = await self._work("claim", params, wait_seconds=wait_seconds, only=only)
        claims = [wire.claim_of(task) for task in read_list(_CLAIMED, answer["claims"])]
        if not claims:
            await self._pace.breathe(begun, wait_seconds)
        return claims

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See WorkerQueue."""
        lost: set[tuple[str, str]] = set()
        for part in _parts(claims):
            answer = await self._work("extend", {"claims": [wire.ref_fields(claim) for claim in part]})
            lost.update((ref["id"], ref["token"]) for ref in answer["lost"])
        return [claim for claim in claims if (claim.id, claim.token) in lost]

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See WorkerQueue."""
        held: list[bool] = []
        for part in _parts(outcomes, size=_size, most_bytes=self._most_bytes):
            answer = await self._work("settle", {"outcomes": [wire.outcome_fields(outcome) for outcome in part]})
            held += map(bool, answer["held"])
        return held

    async def release(self, claims: Sequence[Claim]) -> None:
        """See WorkerQueue."""
        for part in _parts(claims):
            await self._work("release", {"claims": [wire.ref_fields(claim) for claim in part]})

    async def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See WorkerQueue."""
        params = {"queue": self.name, "worker": wire.worker_info(worker).to_wire()}
        stream = self._calls.stream("work.revoked", params)
        try:
            async with aclosing(stream):
                async for item in stream:
                    yield item["ids"]
        except KubeagentsError as error:
            raise _passing(error) from error

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See WorkerQueue."""
        for part in _parts(items, size=_size, most_bytes=self._most_bytes):
            answer = await self._work("emit", {"claim": wire.ref_fields(claim), "items": wire.said_fields(part)})
            if not answer["held"]:
                return False
        return True

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See WorkerQueue."""
        answer = await self._work("parents", {"claim": wire.ref_fields(claim)})
        return {task_id: read(ParentOutcome, parent) for task_id, parent in answer["parents"].items()}

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See WorkerQueue."""
        found = await self._calls.results(self.name, task_ids, timeout_seconds=timeout_seconds)
        ended = {record.id: record for record in found}
        return [ended.get(task_id) or await self._calls.task(self.name, task_id) for task_id in task_ids]

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See WorkerQueue. Who is healthy, the CentralAgent decides."""
        del timeout_seconds
        return await self._calls.agents(queue=self.name)

    async def beat(self, beat: Beat) -> Orders:
        """See WorkerQueue."""
        answer = await self._work("beat", {"beat": wire.beat_told(beat).to_wire()})
        return wire.orders_of(read(WorkerOrders, answer))

    async def leave(self, worker: Worker) -> None:
        """See WorkerQueue."""
        await self._work("leave", {"worker": wire.worker_info(worker).to_wire()})

    async def stats(self) -> QueueStats:
        """See WorkerQueue."""
        try:
            return await self._calls.stats(self.name)
        except KubeagentsError as error:
            raise _passing(error) from error

    async def _work(self, name: str, params: Params, *, wait_seconds: float = 0.0, only: Way | None = None) -> Any:
        try:
            return await self._calls.call(
                f"work.{name}", {"queue": self.name, **params}, wait_seconds=wait_seconds, only=only
            )
        except KubeagentsError as error:
            raise _passing(error) from error


def _size(item: Outcome | Progress | Partial) -> int:
    match item:
        case Succeeded():
            return len(item.result)
        case Partial():
            return len(item.data)
    return len(item.message)


def _parts(
    items: Sequence[Item], *, size: Callable[[Item], int] = lambda _: 0, most_bytes: int = _MOST_BYTES
) -> Iterator[list[Item]]:
    """As much as goes into one call each."""
    part: list[Item] = []
    length = 0
    for item in items:
        if part and (len(part) >= _MOST_ITEMS or length + size(item) > most_bytes):
            yield part
            part, length = [], 0
        part.append(item)
        length += size(item)
    if part:
        yield part


def _passing(error: KubeagentsError) -> KubeagentsError:
    """An error as a worker's process shall see it, which must not end because something is wrong on the other side."""
    if isinstance(error, QueueUnavailableError | CordonedError | InvalidTaskError | TaskNotFoundError):
        return error
    if isinstance(error, UnauthenticatedError | ForbiddenError):
        return QueueAuthError(str(error))
    return QueueUnavailableError(str(error), delay=error.delay if isinstance(error, TemporaryError) else None)
