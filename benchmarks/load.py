# SPDX-License-Identifier: Apache-2.0
"""A client that submits many echo tasks at once, waits for all results, checks them, and prints its figures as JSON.

Runs against the server in KUBEAGENTS_SERVER; `kubeagents dev … -- python -m benchmarks.load` sets it.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

BATCH = 1000
CONNECTIONS = 4
"""Batches that are under way at the same time."""


def measure(client: httpx.Client, *, tasks: int) -> dict[str, Any]:
    """One run: from the first submit to the last result. Raises AssertionError if a result is wrong."""
    payloads = [{"number": number} for number in range(tasks)]
    starts = range(0, tasks, BATCH)
    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        submitted = list(pool.map(lambda start: _submit(client, payloads[start : start + BATCH]), starts))
        accepted = time.perf_counter() - begun
        finished = list(pool.map(lambda batch: _results(client, *batch), submitted))
    seconds = time.perf_counter() - begun
    for start, (_, ids), results in zip(starts, submitted, finished, strict=True):
        for number, task_id in enumerate(ids, start=start):
            assert results[task_id]["state"] == "succeeded", results[task_id]
            assert results[task_id]["result"]["echo"] == {"number": number}, results[task_id]
    return {
        "tasks": tasks,
        "seconds": round(seconds, 3),
        "tasksPerSecond": round(tasks / seconds),
        "submittedPerSecond": round(tasks / accepted),
    }


def latency(client: httpx.Client, *, tasks: int) -> dict[str, Any]:
    """Tasks one after the other, each with a wait for its result: milliseconds from submit to result."""
    milliseconds = []
    for number in range(tasks):
        begun = time.perf_counter()
        answer = client.post("/v1/tasks", json={"agent": "echo", "payload": number}).raise_for_status().json()
        path = f"/v1/queues/{answer['queue']}/tasks/{answer['id']}/result"
        task = client.get(path, params={"timeoutSeconds": 30}).raise_for_status().json()
        milliseconds.append((time.perf_counter() - begun) * 1000)
        assert task["state"] == "succeeded", task
        assert task["result"]["echo"] == number, task
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"tasks": tasks, "p50Ms": round(cuts[49], 2), "p99Ms": round(cuts[98], 2)}


def _submit(client: httpx.Client, payloads: list[Any]) -> tuple[str, list[str]]:
    tasks = [{"agent": "echo", "payload": payload} for payload in payloads]
    answer = client.post("/v1/tasks/batch", json={"tasks": tasks}).raise_for_status().json()
    return answer["queue"], answer["ids"]


def _results(client: httpx.Client, queue: str, ids: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    while pending := [task_id for task_id in ids if task_id not in found]:
        body = {"ids": pending, "timeoutSeconds": 30}
        answer = client.post(f"/v1/queues/{queue}/results", json=body).raise_for_status().json()
        found |= {task["id"]: task for task in answer["tasks"]}
    return found


def main() -> None:
    """Warm up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with httpx.Client(base_url=os.environ["KUBEAGENTS_SERVER"], timeout=120) as client:
        measure(client, tasks=BATCH)
        runs = [measure(client, tasks=arguments.tasks) for _ in range(arguments.runs)]
        print(json.dumps({"runs": runs, "oneByOne": latency(client, tasks=500)}))


if __name__ == "__main__":
    main()
