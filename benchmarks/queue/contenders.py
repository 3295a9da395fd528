# SPDX-License-Identifier: Apache-2.0
"""Who takes part."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis

from agent_runtime.queue import open_queue
from benchmarks.queue.peers.kubeagents.driver import config


class Kind(StrEnum):
    """What a contender is compared as."""

    OURS = "ours"
    PYTHON = "python"
    """A peer in Python that acknowledges after the handler: the field of `…_vs_best_python`."""
    NODE = "node"
    PROTOTYPE = "prototype"
    """Not a queue that one could use, but what Python and Redis can carry."""


Outstanding = Callable[[Any], int]
"""Tasks that are not acknowledged, seen by a client of the server."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of them."""

    name: str
    """Its folder under peers/."""
    title: str
    kind: Kind
    drained_tasks: int
    """How many it is given at once: what it can do in a second or two."""
    bulk: str
    """What submitting in bulk means for it."""
    outstanding: Outstanding


def _ours(client: Any) -> int:
    async def ask() -> int:
        port = client.connection_pool.connection_kwargs["port"]
        queue = open_queue(config(), url=f"redis://127.0.0.1:{port}/0")
        try:
            stats = await queue.stats()
        finally:
            await queue.aclose()
        return stats.queued + stats.running

    return asyncio.run(ask())


def _streaq(client: Any) -> int:
    try:
        # What is acknowledged is deleted from the stream, too.
        return int(client.xlen("streaq:default:queues:normal"))
    except redis.ResponseError:
        return 0


def _taskiq(client: Any) -> int:
    group = client.xinfo_groups("taskiq")[0]
    return int(group["pending"]) + int(group["lag"] or 0)


BULK_API = "1,000 in a call"
CONCURRENT = "100 calls at a time"
IN_TURN = "call after call"

CONTENDERS = (
    Contender("kubeagents", "Kubeagents", Kind.OURS, 60_000, BULK_API, _ours),
    Contender("taskiq", "taskiq (Redis streams)", Kind.PYTHON, 4_000, CONCURRENT, _taskiq),
    Contender("streaq", "streaq", Kind.PYTHON, 3_000, BULK_API, _streaq),
    Contender("saq", "saq", Kind.PYTHON, 5_000, CONCURRENT, lambda c: int(c.zcard("saq:default:incomplete"))),
    Contender("arq", "arq", Kind.PYTHON, 3_000, CONCURRENT, lambda c: int(c.zcard("arq:queue"))),
    Contender("celery", "celery", Kind.PYTHON, 2_000, IN_TURN, lambda c: int(c.llen("celery") + c.hlen("unacked"))),
    Contender("dramatiq", "dramatiq", Kind.PYTHON, 8_000, IN_TURN, lambda c: int(c.hlen("dramatiq:default.msgs"))),
    Contender(
        "bullmq",
        "BullMQ (Node)",
        Kind.NODE,
        20_000,
        BULK_API,
        lambda c: int(c.llen("bull:bench:wait") + c.llen("bull:bench:active")),
    ),
    Contender(
        "prototype",
        "bare prototype",
        Kind.PROTOTYPE,
        60_000,
        BULK_API,
        lambda c: int(c.llen("queue") + c.zcard("leases")),
    ),
)
