# SPDX-License-Identifier: Apache-2.0
"""Without `spec.autoscaling`: the HorizontalPodAutoscaler of Kubernetes scales an Agent by its queue."""

from pathlib import Path

from agent_runtime.agent import Context, Task
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartWorkers
from tests.integration.operator.gates import Gate
from tests.integration.operator.scaled import Scaled, ended, stats, submit, until_running
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.fake_workers import FakeWorkers
from tests.support.metrics_adapter import MetricsAdapter
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer
from tests.support.tls import self_signed

METRIC = "queue_load"


def autoscaler() -> Object:
    """One replica for each task that waits or runs, three at most."""
    metric = {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "1"}}
    at_once = {"stabilizationWindowSeconds": 0}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": {"apiVersion": manifests.API_VERSION, "kind": "Agent", "name": "worker"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "External", "external": metric}],
            "behavior": {"scaleDown": at_once, "scaleUp": at_once},
        },
    }


def test_an_hpa_scales_by_the_queue_and_busy_pods_finish_all_the_same(
    cluster: Cluster,
    namespace: str,
    tmp_path: Path,
    redis_server: RedisServer,
    operator: OperatorProcess,
    start_workers: StartWorkers,
) -> None:
    scaled, gates = Scaled(cluster, namespace), {"first": Gate(), "second": Gate()}
    agent = manifests.agent(concurrency=1, drainSeconds=600)
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), agent)

    async def handle(task: Task, ctx: Context) -> str:
        return await gates[task.type].handle(task, ctx)

    workers = start_workers("worker", handler=handle, concurrency=1)
    key, certificate = self_signed(tmp_path)
    with MetricsAdapter(cluster, namespace, certificate, key, METRIC, lambda: load(workers)) as adapter:
        cluster.apply(namespace, autoscaler())
        eventually(lambda: [path for path in adapter.asked if METRIC in path], what="the HPA asks for the metric")
        short, (long,) = submit(workers, 4, type="first"), submit(workers, 1, type="second")
        eventually(lambda: cluster.get(namespace, "agent", "worker")["spec"]["replicas"] == 3, what="the HPA scales up")
        scaled.until_pods(3)

        gates["first"].open()
        assert {record.attempts for record in ended(workers, short)} == {1}
        until_running(workers, 1)
        busy = workers.do(lambda queue: queue.get(long)).worker
        eventually(lambda: scaled.pods() == {busy}, what="the HPA scales down, and the busy one stays")
        gates["second"].open()
        assert [(r.state, r.attempts) for r in ended(workers, [long])] == [("succeeded", 1)]
    eventually(lambda: scaled.status()["desiredReplicas"] == 1, what="the status follows")


def load(workers: FakeWorkers) -> int:
    """What waits and what runs: with the first alone, an HPA takes pods away while all are busy."""
    seen = stats(workers)
    return seen.queued + seen.running
