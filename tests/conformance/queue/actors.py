# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the tests, and what they do in one line."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

import orjson

from agent_runtime.queue import Claim, TaskQueue, Worker
from kubeagents_api.task import TaskEvent, TaskEventKind, TaskRecord, TaskRequest, TaskState
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    NOW,
    SOON,
    claim_one,
    failed,
    payloads,
    submit,
    succeeded,
    tasks,
)

__all__ = [
    "ALICE",
    "BOB",
    "CAROL",
    "FOREVER",
    "NOW",
    "SOON",
    "claim_all",
    "claim_one",
    "die",
    "failed",
    "happened",
    "ids_of",
    "payloads",
    "revoked_from",
    "states",
    "story",
    "submit",
    "succeed",
    "succeeded",
    "tasks",
    "told",
]
T = TypeVar("T")


async def told(waiting: Awaitable[T]) -> T:
    """What a waiter hears; it must hear it long before it would look for itself."""
    async with asyncio.timeout(SOON):
        return await waiting


def ids_of(things: Iterable[Claim | TaskRecord]) -> list[str]:
    """Their ids, in order."""
    return [thing.id for thing in things]


async def claim_all(queue: TaskQueue, worker: Worker = ALICE) -> list[Claim]:
    """All that a worker may take now, one after the other."""
    claims: list[Claim] = []
    while found := await queue.claim(worker, limit=1, wait_seconds=NOW):
        claims += found
    return claims


async def succeed(queue: TaskQueue, worker: Worker = ALICE, result: Any = None) -> str:
    """Take the next task and do it. Returns its id."""
    claim = await claim_one(queue, worker)
    assert await queue.settle(succeeded([claim], result)) == [True]
    return claim.id


async def die(queue: TaskQueue, *task_ids: str, worker: Worker = ALICE, **fields: Any) -> list[str]:
    """Submit tasks, and let them die one after the other."""
    named = [TaskRequest(**{"id": task_id, "max_attempts": 1, **fields}) for task_id in task_ids]
    for task in named:
        await queue.submit([task])
        claim = await claim_one(queue, worker)
        assert claim.id == task.id
        assert await queue.settle(failed(claim)) == [True]
    return list(task_ids)


async def states(queue: TaskQueue, task_ids: Sequence[str]) -> list[TaskState]:
    """Where the tasks are."""
    return [(await queue.get(task_id)).state for task_id in task_ids]


async def happened(queue: TaskQueue) -> list[TaskEvent]:
    """All events so far."""
    found: list[TaskEvent] = []
    while page := await queue.events(after=found[-1].offset if found else "", limit=1000):
        found += page
    return found


async def story(queue: TaskQueue, task_id: str) -> list[TaskEventKind]:
    """What happened to a task."""
    return [event.kind for event in await happened(queue) if event.task == task_id]


async def revoked_from(queue: TaskQueue, worker: Worker, claim: Claim) -> None:
    """Return once the worker knows that it has lost the task."""
    async for task_ids in queue.revoked(worker):
        if claim.id in task_ids or (not task_ids and await queue.extend([claim])):
            return
    raise AssertionError("revoked ended")


def decoded(claim: Claim) -> Any:
    """The payload's value."""
    return orjson.loads(claim.payload)
