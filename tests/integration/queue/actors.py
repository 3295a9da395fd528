# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the tests."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from agent_runtime.queue import Claim, Failed, Succeeded, TaskQueue, Worker
from kubeagents_api.task import TaskRecord, TaskRequest
from tests.support.redis_server import RedisServer

ALICE = Worker(agent="echo", instance="echo-alice")
BOB = Worker(agent="echo", instance="echo-bob")
CAROL = Worker(agent="count", instance="count-carol")

NOW = 0.0
"""Do not wait."""
SOON = 20.0
"""Seconds to wait for what is sure to come."""
FOREVER = 3600.0
"""Seconds for waits that somebody must end."""


def tasks(*payloads: Any, **fields: Any) -> list[TaskRequest]:
    """A task for each payload."""
    return [TaskRequest(payload=payload, **fields) for payload in payloads]


async def submit(queue: TaskQueue, *payloads: Any, **fields: Any) -> list[str]:
    """Queue a task for each payload."""
    return await queue.submit(tasks(*payloads, **fields))


def payloads(claims: Iterable[Claim]) -> list[Any]:
    """What the tasks are about, in the order of the claims."""
    return [orjson.loads(claim.payload) for claim in claims]


async def claim_one(queue: TaskQueue, worker: Worker = ALICE, *, wait_seconds: float = SOON) -> Claim:
    """The next task of a worker."""
    (claim,) = await queue.claim(worker, limit=1, wait_seconds=wait_seconds)
    return claim


def succeeded(claims: Sequence[Claim], result: Any = None) -> list[Succeeded]:
    """The same good end for all."""
    return [Succeeded(claim, orjson.dumps(result)) for claim in claims]


def failed(claim: Claim, **fields: Any) -> list[Failed]:
    """A bad end for one."""
    return [Failed(claim, **{"code": "FAILED", "message": "ValueError: no", **fields})]


def calls(server: RedisServer, command: str) -> int:
    """How often the server has carried out a command."""
    with server.client() as client:
        counts = client.info("commandstats")
    assert isinstance(counts, dict)
    entry = counts.get(f"cmdstat_{command}")
    return 0 if entry is None else int(entry["calls"])


async def told(waiting: "asyncio.Task[list[TaskRecord]]") -> list[TaskRecord]:
    """What a waiter hears; it must hear it long before it would look for itself."""
    async with asyncio.timeout(SOON):
        return await waiting
