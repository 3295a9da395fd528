# SPDX-License-Identifier: Apache-2.0
"""A small system to test on: a queue, agents that run the given code, a central agent; and 1,000 checked tasks."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.cluster import Cluster, Object

API_VERSION = "kubeagents.dev/v1alpha1"

SQUARE = """\
import asyncio

async def handle(task, ctx):
    await asyncio.sleep(task.payload.get("seconds", 0))
    return {"square": task.payload["n"] ** 2, "by": ctx.instance}
"""


def queue(name: str = "work", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": {"leaseSeconds": 3, "retry": {"maxAttempts": 5, "initialSeconds": 0.2}, **spec},
    }


def code(name: str = "code", text: str = SQUARE) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"work.py": text}}


def agent(name: str = "worker", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {
            "queueRef": {"name": "work"},
            "handler": "work:handle",
            "code": {"configMapRef": {"name": "code"}},
            "drainSeconds": 5,
            **spec,
        },
    }


def central_agent(name: str = "front", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "CentralAgent",
        "metadata": {"name": name},
        "spec": {"queueRefs": [{"name": "work"}], "leaseDurationSeconds": 5, **spec},
    }


@dataclass(frozen=True)
class Workload:
    """A running system."""

    cluster: Cluster
    namespace: str
    http: httpx.Client

    def submit(self, count: int, *, seconds: float = 0) -> list[str]:
        """Submit `count` tasks through the Service of the CentralAgent, 250 at a time."""
        ids: list[str] = []
        for start in range(0, count, 250):
            tasks = [
                {"payload": {"n": n, "seconds": seconds}, "agent": "worker"}
                for n in range(start, min(start + 250, count))
            ]
            answer = self.http.post("/v1/tasks/batch", json={"tasks": tasks})
            assert answer.status_code == 201, answer.text
            ids += answer.json()["ids"]
        return ids

    def results(self, ids: Sequence[str], *, timeout: float = 180) -> list[Object]:
        """The records of all tasks, once every one is final; pushed, not polled. Survives pods that come and go."""
        deadline = time.monotonic() + timeout
        waiting, done = list(ids), dict[str, Object]()
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} of {len(ids)} tasks not final in {timeout:g} s"
            try:
                answer = self.http.post("/v1/queues/work/results", json={"ids": waiting[:250], "timeoutSeconds": 10})
            except httpx.TransportError:
                continue
            if answer.status_code in (502, 503, 504):  # the proxy or the central agent says: not now
                continue
            assert answer.status_code == 200, answer.text
            done.update({task["id"]: task for task in answer.json()["tasks"]})
            waiting = [task_id for task_id in waiting if task_id not in done]
        return [done[task_id] for task_id in ids]

    def check(self, ids: Sequence[str], *, timeout: float = 180) -> list[Object]:
        """Wait for all tasks; each must have succeeded with the right result, and become final exactly once."""
        records = self.results(ids, timeout=timeout)
        assert [r["state"] for r in records] == ["succeeded"] * len(ids)
        assert [r["result"]["square"] for r in records] == [n**2 for n in range(len(ids))]
        stats = self.stats()
        assert (stats["succeededTotal"], stats["failedTotal"]) == (len(ids), 0), stats
        assert (stats["queued"], stats["running"], stats["scheduled"], stats["dead"]) == (0, 0, 0, 0), stats
        return records

    def stats(self) -> Object:
        answer = self.http.get("/v1/queues/work")
        assert answer.status_code == 200, answer.text
        found: Object = answer.json()
        return found

    def running(self) -> int:
        return int(self.stats()["running"])


def deploy(cluster: Cluster, namespace: str, *manifests: Object) -> None:
    """Apply the manifests and wait until every one is Ready."""
    cluster.apply(namespace, "\n---\n".join(json.dumps(manifest) for manifest in manifests))
    for manifest in manifests:
        if manifest["apiVersion"] == API_VERSION:
            name = manifest["metadata"]["name"]
            cluster.wait(namespace, f"{manifest['kind'].lower()}/{name}", "condition=Ready")
