# SPDX-License-Identifier: Apache-2.0
"""Pods that go: the idle ones first, and none while it works, whoever wants fewer of them."""

from pathlib import Path
from typing import Any

from kubeagents_api.task import TaskState
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartWorkers
from tests.integration.operator.gates import Gate
from tests.integration.operator.scaled import Scaled, ended, stats, submit, until_running
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.fake_workers import FakeWorkers
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

PATIENT = 600


def deployed(
    cluster: Cluster, namespace: str, redis: RedisServer, start_workers: StartWorkers, gate: Gate, **spec: Any
) -> tuple[Scaled, FakeWorkers]:
    """An Agent whose pods take one task each, with a worker in each of its pods."""
    agent = manifests.agent(**{"concurrency": 1, "drainSeconds": PATIENT, **spec})
    cluster.apply(namespace, manifests.secret(redis.url), manifests.queue(), manifests.code(), agent)
    workers = start_workers("worker", handler=gate.handle, concurrency=1)
    scaled = Scaled(cluster, namespace)
    eventually(lambda: len(workers.consumers) == agent["spec"].get("replicas", 1), what="a worker in each pod")
    scaled.until("Ready", "True", "Available")
    return scaled, workers


def worker_of(workers: FakeWorkers, task_id: str) -> str:
    found = workers.do(lambda queue: queue.get(task_id)).worker
    assert found is not None
    return found


def test_idle_pods_go_and_the_busy_one_stays(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=4)
    (task,) = submit(workers)
    until_running(workers, 1)
    busy = worker_of(workers, task)

    scaled.scale(1)
    eventually(lambda: scaled.pods() == {busy}, what="only the busy pod is left")
    scaled.until("Ready", "True", "Available")
    gate.open()
    (record,) = ended(workers, [task])
    assert (record.state, record.attempts, record.worker) == (TaskState.SUCCEEDED, 1, busy)


def test_a_busy_pod_takes_nothing_new_and_goes_when_it_has_finished(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=2)
    begun = submit(workers, 2)
    until_running(workers, 2)

    scaled.scale(0)
    scaled.until("Reconciling", "True", "ScalingDeferredBusy")
    assert scaled.says("Ready") == ("False", "ScalingDeferredBusy")
    assert (scaled.replicas(), len(scaled.pods())) == (2, 2)
    later = submit(workers)

    gate.open()
    assert {(r.state, r.attempts) for r in ended(workers, begun)} == {(TaskState.SUCCEEDED, 1)}
    scaled.until_pods(0)
    scaled.until("Ready", "True", "ScaledToZero")
    assert stats(workers).queued == len(later), "what came later waits"
    eventually(lambda: {"ScaleDeferred", "ScaledToZero"} <= scaled.told(), what="Events")


def test_suspend_lets_all_pods_finish_and_resume_brings_them_back(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=2)
    tasks = submit(workers)
    until_running(workers, 1)
    scaled.patch(suspend=True)
    eventually(lambda: len(scaled.pods()) == 1, what="the idle one is gone")
    gate.open()
    assert [(r.state, r.attempts) for r in ended(workers, tasks)] == [(TaskState.SUCCEEDED, 1)]
    scaled.until("Ready", "True", "SpecSuspended")
    assert scaled.pods() == set()
    scaled.patch(suspend=False)
    scaled.until_pods(2)


def test_those_that_are_needed_again_take_tasks_again(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=2)
    begun = submit(workers, 2)
    until_running(workers, 2)
    before = scaled.pods()
    scaled.scale(0)
    scaled.until("Reconciling", "True", "ScalingDeferredBusy")

    scaled.scale(3)
    scaled.until_pods(3)
    assert before < scaled.pods(), "nobody was replaced"
    gate.open()
    assert {r.attempts for r in ended(workers, begun)} == {1}
    eventually(lambda: _cordoned(workers) == set(), what="nobody is cordoned")
    assert {r.state for r in ended(workers, submit(workers, 3))} == {TaskState.SUCCEEDED}
    assert not _marked(cluster, namespace)


def test_a_pod_that_is_busy_for_too_long_goes_and_its_task_costs_no_attempt(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=1, drainSeconds=2)
    tasks = submit(workers)
    until_running(workers, 1)
    scaled.scale(0)
    scaled.until_pods(0)
    eventually(lambda: stats(workers).queued == 1, what="the task is back")
    scaled.scale(1)
    gate.open()
    assert [(r.state, r.attempts) for r in ended(workers, tasks)] == [(TaskState.SUCCEEDED, 1)]


def test_while_a_canary_waits_busy_pods_of_both_versions_finish_before_they_go(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate, canary = Gate(), {"steps": [{"percent": 50}], "minTasks": 0}
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=4, rollout=canary)
    scaled.patch(env=[{"name": "VERSION", "value": "2"}])
    scaled.until("CanaryHealthy", "True", "CanaryWaiting")
    eventually(lambda: _by_version(cluster, namespace) == [2, 2], what="two pods of each version")
    eventually(lambda: workers.consumers.keys() == scaled.pods(), what="a worker in each pod")
    tasks = submit(workers, 4)
    until_running(workers, 4)
    before = scaled.pods()

    scaled.scale(2)
    scaled.until("Reconciling", "True", "ScalingDeferredBusy")
    assert _by_version(cluster, namespace) == [2, 2]
    assert len(_marked(cluster, namespace)) == 2
    assert scaled.pods() == before
    gate.open()
    assert {(r.state, r.attempts) for r in ended(workers, tasks)} == {(TaskState.SUCCEEDED, 1)}
    eventually(lambda: _by_version(cluster, namespace) == [1, 1], what="one pod of each version")
    eventually(lambda: scaled.pods() < before, what="none was replaced")
    scaled.until("CanaryHealthy", "True", "CanaryWaiting")


def test_another_operator_goes_on_where_the_first_was_killed(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    first = start_operator().leading()
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=3)
    tasks = submit(workers, 2)
    until_running(workers, 2)
    busy = {worker_of(workers, task) for task in tasks}
    scaled.scale(0)
    eventually(lambda: scaled.pods() == busy, what="the idle one is gone")
    first.kill()
    gate.open()
    assert {r.attempts for r in ended(workers, tasks)} == {1}

    start_operator("operator-2").leading()
    scaled.until_pods(0)
    scaled.until("Ready", "True", "ScaledToZero")


def test_without_redis_nobody_waits_for_ever(
    cluster: Cluster,
    namespace: str,
    redis_binary: Path,
    tmp_path: Path,
    operator: OperatorProcess,
) -> None:
    with RedisServer(redis_binary, tmp_path) as redis:
        agent = manifests.agent(replicas=2, drainSeconds=3)
        cluster.apply(namespace, manifests.secret(redis.url), manifests.queue(), manifests.code(), agent)
        scaled = Scaled(cluster, namespace)
        scaled.until_pods(2)
        scaled.until("QueueConnected", "True", "Connected")
        redis.stop()
        scaled.until("QueueConnected", "False", "RedisUnreachable")
        scaled.scale(1)
        scaled.until_pods(1)


def test_a_pod_that_dies_while_it_is_waited_for_is_not_waited_for(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    gate = Gate()
    scaled, workers = deployed(cluster, namespace, redis_server, start_workers, gate, replicas=2)
    tasks = submit(workers, 2)
    until_running(workers, 2)
    scaled.scale(1)
    scaled.until("Reconciling", "True", "ScalingDeferredBusy")
    (leaving,) = _marked(cluster, namespace)
    cluster.kubectl("-n", namespace, "delete", "pod", leaving, "--force", "--grace-period=0")
    gate.open()  # what takes its place may take its task too, and is then waited for in its turn
    scaled.until_pods(1)
    scaled.until("Ready", "True", "Available")
    assert {r.state for r in ended(workers, tasks)} == {TaskState.SUCCEEDED}


def _cordoned(workers: FakeWorkers) -> set[str]:
    return {
        one.instance
        for one in workers.do(lambda queue: queue.instances(timeout_seconds=30))
        if one.cordoned or one.cordoned_by
    }


def _by_version(cluster: Cluster, namespace: str) -> list[int]:
    """The replicas of the two Deployments."""
    return [one["spec"]["replicas"] for one in cluster.objects(namespace, "deployments", "kubeagents.dev/name=worker")]


def _marked(cluster: Cluster, namespace: str) -> list[str]:
    """The pods with an annotation that says that they go."""
    return [
        pod["metadata"]["name"]
        for pod in cluster.objects(namespace, "pods")
        if "kubeagents.dev/leaving-since" in pod["metadata"].get("annotations", {})
        and "deletionTimestamp" not in pod["metadata"]
    ]
