# SPDX-License-Identifier: Apache-2.0
"""Each failure has a reason of its own, is Stalled when it does not heal, and is over when it is mended.

What needs containers that really run (crash loops, images that cannot be pulled) is in tests/e2e/operator.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agent_runtime.queue import Beat, TaskQueue, Worker, open_queue
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import TaskQueueSpec
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartWorkers
from tests.integration.operator.states import condition, wait_for
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.kstatus import kstatus
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

AGENT = "agent/worker"
OURS = "kubeagents.dev/name=worker"


@pytest.fixture
def base(cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())


def read(cluster: Cluster, namespace: str, target: str = AGENT) -> str:
    return kstatus(cluster.get(namespace, *target.split("/")))


def test_a_pod_that_no_node_takes_is_unschedulable_and_then_stalled(
    base: None, cluster: Cluster, namespace: str
) -> None:
    cluster.apply(namespace, manifests.agent(nodeSelector={"no": "such"}, progressDeadlineSeconds=10))

    found = wait_for(cluster, namespace, AGENT, "Ready", status="False", reason="Unschedulable")
    assert "nodes are available" in found["message"]
    wait_for(cluster, namespace, AGENT, "Stalled", status="True", reason="Unschedulable")
    assert read(cluster, namespace) == "Failed"

    cluster.apply(namespace, manifests.agent(progressDeadlineSeconds=10))
    wait_for(cluster, namespace, AGENT, "Stalled", status="False")


def test_a_quota_on_pods_stalls_a_scale_up_though_no_rollout_is_late(
    base: None, cluster: Cluster, namespace: str, start_workers: StartWorkers
) -> None:
    start_workers("worker")
    cluster.apply(namespace, manifests.agent(progressDeadlineSeconds=10))
    cluster.wait(namespace, AGENT, "condition=Ready")
    cluster.kubectl("-n", namespace, "create", "quota", "tight", "--hard=pods=1")
    eventually(lambda: cluster.get(namespace, "quota", "tight").get("status"), what="the quota is counted")

    cluster.apply(namespace, manifests.agent(replicas=2, progressDeadlineSeconds=10))
    found = wait_for(cluster, namespace, AGENT, "Stalled", status="True", reason="QuotaExceeded")
    assert "exceeded quota: tight" in found["message"]
    assert condition(cluster, namespace, AGENT, "Available")["status"] == "True"
    assert read(cluster, namespace) == "Failed"

    cluster.apply(namespace, manifests.agent(replicas=1, progressDeadlineSeconds=10))
    wait_for(cluster, namespace, AGENT, "Ready", status="True")
    assert read(cluster, namespace) == "Current"


def test_a_quota_on_children_is_no_matter_of_rights(base: None, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "quota", "tight", "--hard=count/services=0")
    eventually(lambda: cluster.get(namespace, "quota", "tight").get("status"), what="the quota is counted")
    cluster.apply(namespace, manifests.agent())

    found = wait_for(cluster, namespace, AGENT, "Stalled", status="True", reason="QuotaExceeded")
    assert "exceeded quota: tight" in found["message"]


def test_a_redis_that_does_not_answer_stalls_queue_and_agent(
    cluster: Cluster, namespace: str, operator: OperatorProcess
) -> None:
    cluster.apply(namespace, manifests.secret("redis://127.0.0.1:1/0"), manifests.queue(), manifests.code())
    cluster.apply(namespace, manifests.agent(progressDeadlineSeconds=10))

    wait_for(cluster, namespace, "taskqueue/work", "Ready", status="False", reason="RedisUnreachable")
    wait_for(cluster, namespace, AGENT, "QueueConnected", status="False", reason="RedisUnreachable")
    wait_for(cluster, namespace, AGENT, "Stalled", status="True", reason="RedisUnreachable")

    # Pods without their queue are not ready. That is a symptom, and no reason.
    eventually(lambda: cluster.ready_pods(namespace, OURS), what="a pod")
    [pod] = cluster.ready_pods(namespace, OURS)
    unready = '{"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]}}'
    cluster.kubectl("-n", namespace, "patch", "pod", pod, "--subresource=status", "--type=strategic", "-p", unready)
    wait_for(cluster, namespace, AGENT, "Available", status="False", reason="RedisUnreachable")
    assert condition(cluster, namespace, AGENT, "Stalled")["reason"] == "RedisUnreachable"


def test_a_pod_that_runs_and_does_not_become_ready_is_named_after_the_deadline(
    base: None, cluster: Cluster, namespace: str, start_workers: StartWorkers
) -> None:
    start_workers("worker")
    cluster.apply(namespace, manifests.agent(progressDeadlineSeconds=10))
    cluster.wait(namespace, AGENT, "condition=Ready")

    [pod] = cluster.ready_pods(namespace, OURS)
    unready = '{"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "%s"}]}}'
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.kubectl(
        "-n", namespace, "patch", "pod", pod, "--subresource=status", "--type=strategic", "-p", unready % now
    )
    wait_for(cluster, namespace, AGENT, "Ready", status="False", reason="RollingOut")
    found = wait_for(cluster, namespace, AGENT, "Stalled", status="True", reason="ProgressDeadlineExceeded")
    assert f"pod {pod} is not ready" in found["message"]

    cluster.kubectl("-n", namespace, "delete", "pod", pod)
    wait_for(cluster, namespace, AGENT, "Ready", status="True")


def test_a_wrong_password_is_no_matter_of_time(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    wrong = redis_server.url.replace("redis://", "redis://nobody:wrong@")
    cluster.apply(namespace, manifests.secret(wrong), manifests.queue(), manifests.code(), manifests.agent())

    wait_for(cluster, namespace, "taskqueue/work", "Stalled", status="True", reason="RedisAuthFailed")
    wait_for(cluster, namespace, AGENT, "Ready", status="False", reason="RedisAuthFailed")

    cluster.apply(namespace, manifests.secret(redis_server.url))
    wait_for(cluster, namespace, "taskqueue/work", "Ready", status="True")
    wait_for(cluster, namespace, AGENT, "QueueConnected", status="True")


class Pretender:
    """Beats for the pods of an Agent, and claims or not as it is told."""

    def __init__(self, cluster: Cluster, namespace: str, redis: RedisServer) -> None:
        self._pods = cluster.ready_pods(namespace, OURS)
        self._config = queue_config(name=manifests.QUEUE, namespace=namespace, spec=TaskQueueSpec())
        self._url = redis.url
        self._started = int(time.time() * 1000)
        self.claimed_at = self._started

    def beat(self, *, claims: bool) -> None:
        if claims:
            self.claimed_at = int(time.time() * 1000)
        self.use(self._beat)

    async def _beat(self, queue: TaskQueue) -> None:
        for pod in self._pods:
            beat = Beat(
                worker=Worker(agent="worker", instance=pod),
                version="1",
                concurrency=1,
                running=0,
                draining=False,
                started_at_ms=self._started,
                claimed_at_ms=self.claimed_at,
            )
            await queue.beat(beat)

    def use(self, call: Callable[[TaskQueue], object]) -> None:
        async def once() -> None:
            queue = open_queue(self._config, url=self._url)
            try:
                await call(queue)  # type: ignore[misc]
            finally:
                await queue.aclose()

        asyncio.run(once())


def test_a_process_that_beats_but_does_not_claim_is_a_stalled_consumer(
    base: None, cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    cluster.apply(namespace, manifests.agent())
    eventually(lambda: cluster.ready_pods(namespace, OURS), what="a pod")
    pod = Pretender(cluster, namespace, redis_server)

    def reason_is(reason: str, *, claims: bool) -> Callable[[], bool]:
        def probe() -> bool:
            pod.beat(claims=claims)
            found = condition(cluster, namespace, AGENT, "Ready")
            assert found.get("reason") == reason, found
            return True

        return probe

    eventually(reason_is("Available", claims=True), what="Ready with claims")
    eventually(reason_is("ConsumerStalled", claims=False), what="it takes nothing", timeout=80)
    assert condition(cluster, namespace, AGENT, "HeartbeatHealthy")["status"] == "True"
    assert condition(cluster, namespace, AGENT, "Consuming")["status"] == "False"
    assert read(cluster, namespace) == "InProgress"

    pod.use(lambda queue: queue.submit([TaskRequest(payload=1)]))
    eventually(reason_is("Available", claims=True), what="claims are answered again")
    eventually(reason_is("ConsumerStalled", claims=True), what="a task waits before open doors", timeout=110)
    message = condition(cluster, namespace, AGENT, "Consuming")["message"]
    assert "tasks wait" in message
