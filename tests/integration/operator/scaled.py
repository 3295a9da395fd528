# SPDX-License-Identifier: Apache-2.0
"""What the tests of scaling ask and say."""

import json
from dataclasses import dataclass
from typing import Any

from kubeagents_api.task import QueueStats, TaskRecord, TaskRequest
from tests.integration.operator import manifests
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.fake_workers import FakeWorkers

POD_LABELS = "kubeagents.dev/kind=Agent,kubeagents.dev/name="


@dataclass(frozen=True)
class Scaled:
    """One Agent, its Deployment and its pods."""

    cluster: Cluster
    namespace: str
    name: str = "worker"

    def scale(self, replicas: int) -> None:
        self.cluster.kubectl("-n", self.namespace, "scale", f"agent/{self.name}", f"--replicas={replicas}")

    def patch(self, **spec: Any) -> None:
        """Merge into the spec."""
        self.cluster.kubectl(
            "-n", self.namespace, "patch", f"agent/{self.name}", "--type=merge", f"--patch={json.dumps({'spec': spec})}"
        )

    def replicas(self) -> int:
        found: int = self.cluster.get(self.namespace, "deployment", f"{self.name}-agent")["spec"]["replicas"]
        return found

    def pods(self) -> set[str]:
        return set(self.cluster.ready_pods(self.namespace, POD_LABELS + self.name))

    def status(self) -> Object:
        found: Object = self.cluster.get(self.namespace, "agent", self.name).get("status", {})
        return found

    def says(self, type_: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        return next(((c["status"], c["reason"]) for c in self.status().get("conditions", ()) if c["type"] == type_),
                    ("", ""))  # fmt: skip

    def told(self) -> set[str]:
        """The reasons of its Events."""
        events = self.cluster.objects(self.namespace, "events.events.k8s.io")
        return {event["reason"] for event in events if event["regarding"]["name"] == self.name}

    def until(self, type_: str, status: str, reason: str) -> None:
        eventually(lambda: self.says(type_) == (status, reason), what=f"{type_} {status} {reason}")

    def until_pods(self, count: int) -> set[str]:
        eventually(lambda: len(self.pods()) == count == self.replicas(), what=f"{count} ready pods")
        return self.pods()


def submit(workers: FakeWorkers, count: int = 1, **fields: Any) -> list[str]:
    """Submit tasks; their ids."""
    tasks = [TaskRequest(queue=manifests.QUEUE, **fields) for _ in range(count)]
    return workers.do(lambda queue: queue.submit(tasks))


def ended(workers: FakeWorkers, ids: list[str]) -> list[TaskRecord]:
    """The tasks once they are final."""
    return workers.do(lambda queue: queue.wait(ids, timeout_seconds=25))


def stats(workers: FakeWorkers) -> QueueStats:
    return workers.do(lambda queue: queue.stats())


def until_running(workers: FakeWorkers, count: int) -> None:
    eventually(lambda: stats(workers).running == count, what=f"{count} tasks run")
