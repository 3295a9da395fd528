# SPDX-License-Identifier: Apache-2.0
"""Kubeagents alone: how cost grows with the depth of the queue, with workers, and with the size of payloads."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from agent_runtime.queue import Succeeded, TaskQueue, Worker, open_queue
from benchmarks.queue.comparison import say
from benchmarks.queue.contenders import CONTENDERS
from benchmarks.queue.environments import prepare
from benchmarks.queue.peers.contract import plain
from benchmarks.queue.peers.kubeagents.driver import config
from benchmarks.queue.processes import Program, server
from benchmarks.queue.rounds import drain
from kubeagents_api.task import TaskRequest

BATCH = 10_000
CLAIMS = 50
CLAIMED = 100
PAYLOAD_BUDGET = 100_000_000
"""Bytes that the largest payloads may take in all."""


def grow(*, depths: Sequence[int], sizes: Sequence[int], tasks: int) -> dict[str, Any]:
    """All of it. `tasks`: of each drain."""
    return {
        "depth": [_depth(tasks=depth) for depth in depths],
        "workers": [
            _workers(1, tasks=tasks),
            _workers(2, tasks=tasks),
            _workers(1, tasks=tasks, append_only=True),
        ],
        "payload": [_payload(size, tasks=min(tasks, PAYLOAD_BUDGET // size)) for size in sizes],
    }


def _depth(*, tasks: int) -> dict[str, Any]:
    """How long a claim takes while so many tasks wait, and what they take of memory."""
    say(f"growth: {tasks:,} queued tasks")
    with server() as running, running.client() as client:
        empty = client.info("memory")["used_memory"]
        seconds, claims, settles = asyncio.run(_claims(running.url, tasks=tasks))
        # What was claimed and settled still takes memory, as results are kept.
        taken = client.info("memory")["used_memory"] - empty
    return {
        "tasks": tasks,
        "submit_per_s": tasks / seconds,
        "claim_100_p50_ms": statistics.median(claims) * 1000,
        "claim_100_p95_ms": statistics.quantiles(claims, n=20, method="inclusive")[18] * 1000,
        "settle_100_p50_ms": statistics.median(settles) * 1000,
        "bytes_per_task": taken / tasks,
    }


async def _claims(url: str, *, tasks: int) -> tuple[float, list[float], list[float]]:
    queue = open_queue(config(), url=url)
    try:
        begun_at = time.perf_counter()
        for start in range(0, tasks, BATCH):
            await queue.submit([TaskRequest(payload=plain()) for _ in range(min(BATCH, tasks - start))])
        seconds = time.perf_counter() - begun_at
        return seconds, *await _take(queue)
    finally:
        await queue.aclose()


async def _take(queue: TaskQueue) -> tuple[list[float], list[float]]:
    worker = Worker(agent="bench", instance="bench-0")
    claims, settles = [], []
    for _ in range(CLAIMS):
        begun_at = time.perf_counter()
        held = await queue.claim(worker, limit=CLAIMED, wait_seconds=0)
        claimed_at = time.perf_counter()
        assert len(held) == CLAIMED, f"{len(held)} tasks were claimed"
        assert all(await queue.settle([Succeeded(claim, b"1") for claim in held])), "an outcome was refused"
        claims.append(claimed_at - begun_at)
        settles.append(time.perf_counter() - claimed_at)
    return claims, settles


def _workers(workers: int, *, tasks: int, append_only: bool = False) -> dict[str, Any]:
    say(f"growth: {workers} workers, {'with' if append_only else 'without'} append-only file")
    filled, drained = _drain(tasks=tasks, workers=workers, append_only=append_only)
    return {
        "workers": workers,
        "append_only": append_only,
        "submit_per_s": filled["bulk_per_s"],
        "drain_per_s": drained.get("drain_per_s"),
    }


def _payload(size: int, *, tasks: int) -> dict[str, Any]:
    say(f"growth: {tasks:,} payloads of {size:,} bytes")
    filled, drained = _drain(tasks=tasks, workers=1, payload=size)
    rate = drained.get("drain_per_s")
    return {
        "payload_bytes": size,
        "tasks": tasks,
        "submit_per_s": filled["bulk_per_s"],
        "drain_per_s": rate,
        "drain_mb_per_s": None if rate is None else rate * size / 1e6,
        "queued_bytes_per_task": filled["queued_bytes_per_task"],
    }


def _drain(*, tasks: int, workers: int, append_only: bool = False, **options: int) -> tuple[dict[str, Any], ...]:
    ours = next(contender for contender in CONTENDERS if contender.name == "kubeagents")
    with server(append_only=append_only) as running, running.client() as client:
        return drain(Program(ours, prepare(ours), running), client, tasks=tasks, workers=workers, **options)
