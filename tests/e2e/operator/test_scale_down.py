# SPDX-License-Identifier: Apache-2.0
"""Real pods that go: which ones the ReplicaSet takes, and what becomes of their tasks."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import workload
from tests.e2e.workload import Workload
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually

PODS = "kubeagents.dev/kind=Agent,kubeagents.dev/name=worker"
ROUNDS = 5


@pytest.fixture
def system(cluster: Cluster, namespace: str) -> Iterator[Workload]:
    """A queue whose tasks get a single attempt, and someone to submit to."""
    workload.deploy(
        cluster, namespace, workload.queue(retry={"maxAttempts": 1}), workload.code(), workload.central_agent()
    )
    with cluster.central_agent(namespace, "front") as http:
        yield Workload(cluster=cluster, namespace=namespace, http=http)


def deploy(system: Workload, **spec: Any) -> None:
    workload.deploy(system.cluster, system.namespace, workload.agent(**{"concurrency": 1, "drainSeconds": 60, **spec}))


def pods(system: Workload) -> set[str]:
    return set(system.cluster.ready_pods(system.namespace, PODS))


def scale(system: Workload, replicas: int) -> None:
    system.cluster.kubectl("-n", system.namespace, "scale", "agent/worker", f"--replicas={replicas}")


def worker(system: Workload, task_id: str) -> str:
    answer = system.http.get(f"/v1/queues/work/tasks/{task_id}")
    assert answer.json()["state"] == "running", answer.text
    found: str = answer.json()["worker"]
    return found


def succeeded_at_once(records: list[Object]) -> bool:
    """All tasks have succeeded, with the only attempt that they had."""
    return {(record["state"], record["attempts"]) for record in records} == {("succeeded", 1)}


def test_the_replica_set_takes_the_idle_pods_and_leaves_the_busy_one(system: Workload) -> None:
    deploy(system, replicas=4)
    for _ in range(ROUNDS):
        (task,) = system.submit(1, seconds=6)
        busy = eventually(lambda task=task: worker(system, task), what="the task runs")  # type: ignore[misc]
        scale(system, 1)
        eventually(lambda busy=busy: pods(system) == {busy}, what=f"only {busy} is left")  # type: ignore[misc]
        assert worker(system, task) == busy, "it was still at work when the others had gone"
        assert succeeded_at_once(system.results([task]))
        scale(system, 4)
        eventually(lambda: len(pods(system)) == 4, what="four pods", timeout=90)


def test_busy_pods_finish_before_they_go_and_zero_is_reached(system: Workload) -> None:
    deploy(system, replicas=2)
    tasks = system.submit(2, seconds=6)
    eventually(lambda: system.running() == 2, what="both work")
    scale(system, 0)
    system.cluster.wait(system.namespace, "agent/worker", "condition=Reconciling")
    assert len(pods(system)) == 2
    assert succeeded_at_once(system.results(tasks))
    system.cluster.wait(system.namespace, "agent/worker", "condition=ScaledToZero")
    eventually(lambda: not pods(system), what="no pods")


def test_an_agent_that_sleeps_is_woken_by_a_task_and_goes_to_sleep_again(system: Workload) -> None:
    settings = {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 2, "scaleDown": {"stabilizationWindowSeconds": 0}}
    deploy(system, autoscaling=settings)
    agent = (system.namespace, "agent/worker")
    system.cluster.wait(*agent, "condition=ScaledToZero")
    eventually(lambda: not pods(system), what="no pods")
    assert succeeded_at_once(system.results(system.submit(6, seconds=1)))
    system.cluster.wait(*agent, "condition=ScaledToZero")
    status = system.cluster.get(system.namespace, "agent", "worker")["status"]
    assert status["coldStartSeconds"] > 0


def test_an_eviction_lets_a_busy_pod_finish(system: Workload) -> None:
    deploy(system, replicas=2)
    tasks = system.submit(2, seconds=6)
    eventually(lambda: system.running() == 2, what="both work")
    victim, other = sorted(pods(system))
    evict(system, victim)
    with pytest.raises(AssertionError, match="disruption budget"):
        evict(system, other)
    records = system.results(tasks)
    assert succeeded_at_once(records)
    assert victim in {record["worker"] for record in records}


@pytest.mark.parametrize("drain_seconds", [1, 60], ids=["gives back", "finishes"])
def test_a_drain_of_the_node_loses_no_task(system: Workload, drain_seconds: int) -> None:
    cluster, namespace = system.cluster, system.namespace
    agent = workload.agent("drained", replicas=2, concurrency=1, drainSeconds=drain_seconds)
    workload.deploy(cluster, namespace, agent)
    selector = "kubeagents.dev/kind=Agent,kubeagents.dev/name=drained"
    before = set(cluster.ready_pods(namespace, selector))
    (node,) = {pod["spec"]["nodeName"] for pod in cluster.objects(namespace, "pods", selector)}
    batch = [{"payload": {"n": n, "seconds": 4}, "agent": "drained"} for n in range(8)]
    tasks = system.http.post("/v1/tasks/batch", json={"tasks": batch}).json()["ids"]
    eventually(lambda: system.running() == 2, what="both work")
    begun = tasks[:2]
    with ThreadPoolExecutor() as threads:
        arguments = ("drain", node, f"--pod-selector={selector}", "--delete-emptydir-data", "--timeout=90s")
        drain = threads.submit(cluster.kubectl, *arguments)
        eventually(lambda: _is_cordoned(cluster, node) or drain.done(), what="the drain has begun")
        cluster.kubectl("uncordon", node)  # it is the only one: where else could their successors go?
        drain.result()
    assert not before & set(cluster.ready_pods(namespace, selector))
    assert succeeded_at_once(system.results(tasks))
    if drain_seconds == 60:
        assert {record["worker"] for record in system.results(begun)} == before, "they finished what they ran"


def test_a_rolling_update_under_load_keeps_its_replicas_and_loses_no_task(system: Workload) -> None:
    deploy(system, replicas=3, concurrency=4)
    long = system.submit(3, seconds=15)
    eventually(lambda: system.running() == 3, what="the long ones run")
    tasks = system.submit(120, seconds=0.5)
    before = pods(system)
    patch = {"spec": {"env": [{"name": "VERSION", "value": "2"}]}}
    system.cluster.kubectl(
        "-n", system.namespace, "patch", "agent/worker", "--type=merge", f"--patch={json.dumps(patch)}"
    )
    fewest = len(before)

    def replaced() -> bool:
        nonlocal fewest
        now = pods(system)
        fewest = min(fewest, len(now))
        return len(now) == 3 and not now & before

    eventually(replaced, what="all pods are of the new version", timeout=180)
    assert fewest == 3
    assert succeeded_at_once(system.results([*long, *tasks]))
    assert {record["worker"] for record in system.results(long)} <= before, "busy pods finished before they went"
    system.cluster.wait(system.namespace, "agent/worker", "condition=Ready")


def evict(system: Workload, pod: str) -> None:
    """POST to the pod's subresource `eviction`, as `kubectl drain` does. Fails with what the API server answers."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": system.namespace},
    }
    with system.cluster.api() as api:
        answer = api.post(f"/api/v1/namespaces/{system.namespace}/pods/{pod}/eviction", json=eviction)
    assert answer.status_code == 201, answer.text


def _is_cordoned(cluster: Cluster, node: str) -> bool:
    found: bool = cluster.get("default", "node", node)["spec"].get("unschedulable", False)
    return found
