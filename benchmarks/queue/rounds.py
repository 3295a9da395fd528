# SPDX-License-Identifier: Apache-2.0
"""One round of one contender: each figure once."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.queue.contenders import Kind
from benchmarks.queue.peers.contract import PAYLOAD_BYTES, WARM_UP
from benchmarks.queue.processes import Program, Spent, Workers, snapshot

RATE = 500
"""Tasks per second when latency is measured."""
PER = 10_000
"""Commands and processor time are given for so many tasks."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of each a round has."""

    each_tasks: int = 1500
    drained_share: float = 1.0
    """Of each contender's own number."""
    latency_seconds: float = 2.5
    idle_seconds: float = 10.0


def measure(program: Program, extent: Extent, *, idle: bool) -> dict[str, Any]:
    """All figures of a contender, on an empty server each. Raises ContenderError.

    `idle`: also what waiting workers cost, which takes a while and varies little.
    """
    tasks = int(program.contender.drained_tasks * extent.drained_share)
    with program.server.client() as client:
        figures: dict[str, Any] = {}
        client.flushall()
        each = program.feed("each", tasks=extent.each_tasks)
        figures["versions"] = each["versions"]
        figures["each_per_s"] = extent.each_tasks / each["seconds"]
        if program.contender.kind is Kind.OURS:
            client.flushall()
            wide = 10 * extent.each_tasks
            figures["concurrent_per_s"] = wide / program.feed("concurrent", tasks=wide, in_flight=256)["seconds"]
        bulk = []
        for workers in (1, 2):
            client.flushall()
            filled, drained = drain(program, client, tasks=tasks, workers=workers)
            bulk.append(filled.pop("bulk_per_s"))
            figures |= {f"{name}_{workers}_workers" if workers > 1 else name: v for name, v in drained.items()}
            figures |= filled
        figures["bulk_per_s"] = statistics.mean(bulk)
        for what in ("commands_per_10k", "cpu_s_per_10k"):
            if f"drain_{what}" in figures:
                figures[what] = figures[f"submit_{what}"] + figures[f"drain_{what}"]
        client.flushall()
        with program.workers(1) as running:
            program.ready(running, client)
            if idle:
                figures |= _idle(client, seconds=extent.idle_seconds)
            figures |= _latency(program, running, client, tasks=int(RATE * extent.latency_seconds))
            figures |= _end_to_end(program, running, client, tasks=tasks)
        client.flushall()
    return figures


def drain(
    program: Program, client: Any, *, tasks: int, workers: int, payload: int = PAYLOAD_BYTES
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fill the queue, then empty it: the figures of both. Needs an empty server."""
    total = tasks + WARM_UP
    before, empty = snapshot(client), client.info("memory")["used_memory"]
    fed = program.feed("bulk", tasks=tasks, payload=payload)
    spent = Spent.between(before, snapshot(client))
    filled = {
        "queued_bytes_per_task": (client.info("memory")["used_memory"] - empty) / total,
        "bulk_per_s": tasks / fed["seconds"],
        "submit_commands_per_10k": spent.commands * PER / total,
        "submit_cpu_s_per_10k": spent.cpu_seconds * PER / total,
    }
    with program.workers(workers) as running:
        begun = running.wait(
            lambda counts: (len(counts) >= workers and sum(counts) >= total / 10) or sum(counts) >= total,
            what=f"{workers} workers to take part",
        )
        begin = snapshot(client)
        running.wait(lambda counts: sum(counts) >= total, what=f"{total} tasks to be done")
        running.settled(client)
        spent = Spent.between(begin, snapshot(client))
    counted = total - sum(begun)
    if counted < total / 4:  # too few to say anything: the last of the workers came too late
        return filled, {}
    drained = {"drain_per_s": counted / spent.seconds}
    if workers == 1:
        drained["drain_commands_per_10k"] = spent.commands * PER / counted
        drained["drain_cpu_s_per_10k"] = spent.cpu_seconds * PER / counted
    return filled, drained


def _idle(client: Any, *, seconds: float) -> dict[str, Any]:
    """What a worker that waits asks the server for."""
    begin = snapshot(client)
    time.sleep(seconds)
    spent = Spent.between(begin, snapshot(client))
    return {"idle_commands_per_s": (spent.commands - 2) / spent.seconds}  # a snapshot's own


def _latency(program: Program, running: Workers, client: Any, *, tasks: int) -> dict[str, Any]:
    """From the call that submits to the begin of the handler, at a rate that is no burden."""
    done = sum(running.counts())
    begin = snapshot(client)
    fed = program.feed("steady", tasks=tasks, rate=RATE)
    running.wait(lambda counts: sum(counts) >= done + tasks + WARM_UP, what="the tasks of the open loop")
    running.settled(client)
    spent = Spent.between(begin, snapshot(client))
    delays = running.delays()
    assert len(delays) == tasks, f"{len(delays)} delays of {tasks} tasks"
    cuts = statistics.quantiles(delays, n=100, method="inclusive")
    return {
        "latency_p50_ms": cuts[49] * 1000,
        "latency_p95_ms": cuts[94] * 1000,
        "latency_p99_ms": cuts[98] * 1000,
        "latency_max_ms": max(delays) * 1000,
        "latency_rate_per_s": tasks / fed["seconds"],
        "steady_commands_per_task": spent.commands / (tasks + WARM_UP),
    }


def _end_to_end(program: Program, running: Workers, client: Any, *, tasks: int) -> dict[str, Any]:
    """Submitting in bulk while one worker is at it."""
    goal = sum(running.counts()) + tasks + WARM_UP
    begin = snapshot(client)
    with program.feeding("bulk", tasks=tasks) as process:
        running.wait(lambda counts: sum(counts) >= goal, what="the tasks of end to end")
        running.settled(client)
        end = snapshot(client)
        fed = program.fed(process)
    spent = Spent.between(begin, end)
    return {
        "end_to_end_per_s": tasks / (end.at - fed["begun_at"]),
        "end_to_end_commands_per_10k": spent.commands * PER / (tasks + WARM_UP),
        "end_to_end_cpu_s_per_10k": spent.cpu_seconds * PER / (tasks + WARM_UP),
    }
