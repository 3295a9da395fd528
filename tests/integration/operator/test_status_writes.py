# SPDX-License-Identifier: Apache-2.0
"""A status is written at once when something has happened, and rarely when only figures change."""

import json
import time
from functools import partial

from kubeagents_api.task import TaskRequest
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy, StartWorkers
from tests.integration.operator.states import wait_for
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

QUEUE = "taskqueue/work"
COUNTER_SECONDS = 15.0
CROWD = 60


def test_figures_that_change_every_second_are_written_every_15_s(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    cluster.apply(namespace, manifests.agent())
    workers = start_workers("worker", concurrency=1)
    cluster.wait(namespace, "agent/worker", "condition=Ready")
    # One task that runs and one that waits: from now on nothing but counts changes.
    workers.do(lambda queue: queue.submit([TaskRequest(payload={"seconds": 600})]))
    workers.do(lambda queue: queue.submit([TaskRequest(payload={"seconds": 0})]))
    wait_for(cluster, namespace, QUEUE, "Drained", status="False")
    eventually(lambda: _status(cluster, namespace).get("running") == 1, what="it runs", timeout=40)

    def writes() -> float:
        return operator.metric("kubeagents_operator_api_writes_total", kind="TaskQueue", verb="status")

    began, before = time.monotonic(), writes()
    depths = set()
    for _ in range(20):
        workers.do(lambda queue: queue.submit([TaskRequest(payload={"seconds": 0})]))
        eventually(partial(_more_than, operator, _samples(operator)), what="a sample")
        depths.add(workers.do(lambda queue: queue.stats()).queued)
    passed = time.monotonic() - began

    assert len(depths) >= 15, "the figures did change"
    assert writes() - before <= passed / COUNTER_SECONDS + 1
    eventually(lambda: _status(cluster, namespace)["depth"] == max(depths), what="the last figure", timeout=30)

    cluster.apply(namespace, manifests.queue(paused=True))
    wait_for(cluster, namespace, QUEUE, "Suspended", status="True", seconds=10)


def test_after_a_restart_other_figures_alone_are_no_reason_to_write(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_proxy: StartProxy,
    start_workers: StartWorkers,
) -> None:
    proxy = start_proxy()
    operator = start_operator(kubeconfig=proxy.kubeconfig).leading()
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    cluster.apply(namespace, manifests.agent())
    workers = start_workers("worker", concurrency=1)
    cluster.wait(namespace, "agent/worker", "condition=Ready")
    workers.do(lambda queue: queue.submit([TaskRequest(payload={"seconds": 600}), TaskRequest(payload={"seconds": 0})]))
    wait_for(cluster, namespace, QUEUE, "Drained", status="False")
    eventually(lambda: _status(cluster, namespace).get("running") == 1, what="it runs", timeout=40)
    operator.stop()
    workers.do(lambda queue: queue.submit([TaskRequest(payload={"seconds": 0})]))

    before = len(proxy.written())
    operator.start().leading()
    eventually(partial(_more_than, operator, 3), what="a few samples")
    assert [str(one) for one in proxy.written()[before:]] == []
    eventually(lambda: _status(cluster, namespace).get("depth") == 2, what="the figure of now", timeout=30)


def test_the_count_of_replicas_is_right_when_ready_flips(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    start_workers("worker")
    for replicas in (1, 3, 2):
        cluster.apply(namespace, manifests.agent(replicas=replicas))
        cluster.wait(namespace, "agent/worker", f"jsonpath={{.status.desiredReplicas}}={replicas}")
        cluster.wait(namespace, "agent/worker", "condition=Ready")
        status = cluster.get(namespace, "agent", "worker")["status"]
        assert (status["ready"], status["replicas"]) == (f"{replicas}/{replicas}", replicas)


def test_of_many_agents_at_once_the_children_come_before_the_statuses(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy()
    start_operator(kubeconfig=proxy.kubeconfig, KUBEAGENTS_CONCURRENCY="1").leading()
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    cluster.wait(namespace, QUEUE, "condition=Ready")

    crowd: list[Object] = [manifests.agent(f"crowd-{number}") for number in range(CROWD)]
    cluster.kubectl("-n", namespace, "create", "-f", "-", input="\n---\n".join(json.dumps(one) for one in crowd))
    eventually(lambda: _crowd_says_something(cluster, namespace), what="a status of each of them", timeout=60)

    written = [request.plural if "/status" not in request.path else "status" for request in proxy.written()]
    last_child = len(written) - 1 - written[::-1].index("deployments")
    before = written[written.index("deployments") : last_child].count("status")
    assert before <= CROWD / 3, f"{before} statuses before the last child of {CROWD} Agents: {written}"


def _crowd_says_something(cluster: Cluster, namespace: str) -> bool:
    agents = cluster.objects(namespace, "agents")
    return len(agents) == CROWD and all(one.get("status", {}).get("observedGeneration") for one in agents)


def _samples(operator: OperatorProcess) -> float:
    return operator.metric("kubeagents_operator_queue_samples_total")


def _more_than(operator: OperatorProcess, taken: float) -> bool:
    return _samples(operator) > taken


def _status(cluster: Cluster, namespace: str) -> dict[str, object]:
    found: dict[str, object] = cluster.get(namespace, "taskqueue", "work").get("status", {})
    return found
