# SPDX-License-Identifier: Apache-2.0
"""`spec.autoscaling`: replicas follow the work, down to none and up again."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubeagents_api.task import TaskState
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartWorkers
from tests.integration.operator.gates import Gate
from tests.integration.operator.scaled import Scaled, ended, stats, submit, until_running
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

AT_ONCE = {"scaleDown": {"stabilizationWindowSeconds": 0}, "idleSeconds": 0, "maxReplicas": 5}
RARELY = "3600"
"""Seconds between samples: what happens earlier, happens because of events."""


def autoscaled(name: str = "worker", *, spec: dict[str, Any] | None = None, **settings: Any) -> Object:
    """An Agent whose pods take one task each."""
    common = {"concurrency": 1, "drainSeconds": 600, **(spec or {})}
    return manifests.agent(name, autoscaling={**AT_ONCE, "targetUtilization": 1, **settings}, **common)


def deploy(cluster: Cluster, namespace: str, redis: RedisServer, *agents: Object, **queue: Any) -> None:
    cluster.apply(namespace, manifests.secret(redis.url), manifests.queue(**queue), manifests.code(), *agents)


def test_the_first_task_wakes_an_agent_that_sleeps_without_waiting_for_a_sample(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    start_operator(KUBEAGENTS_SAMPLE_SECONDS=RARELY).leading()
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0))
    scaled = Scaled(cluster, namespace)
    workers = start_workers("worker", concurrency=1)
    scaled.until("Ready", "True", "ScaledToZero")
    assert scaled.replicas() == 0

    (record,) = ended(workers, submit(workers))
    assert (record.state, record.attempts) == (TaskState.SUCCEEDED, 1)
    cold = eventually(lambda: scaled.status().get("coldStartSeconds"), what="the cold start shows")
    assert cold is not None
    assert 0 < cold < 60
    eventually(lambda: "Woken" in scaled.told(), what="an Event")


def test_what_runs_counts_and_the_last_replica_goes_when_nothing_does(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0))
    scaled, gate = Scaled(cluster, namespace), Gate()
    workers = start_workers("worker", handler=gate.handle, concurrency=1)
    scaled.until("Ready", "True", "ScaledToZero")

    tasks = submit(workers, 3)
    until_running(workers, 3)
    assert stats(workers).queued == 0
    scaled.until("Autoscaled", "True", "Autoscaled")
    scaled.until("Ready", "True", "Available")
    later = submit(workers, 9)
    scaled.until_pods(5)
    assert stats(workers).running == 5, "no more than maxReplicas"

    gate.open()
    assert {(r.state, r.attempts) for r in ended(workers, [*tasks, *later])} == {(TaskState.SUCCEEDED, 1)}
    scaled.until_pods(0)
    scaled.until("Ready", "True", "ScaledToZero")
    eventually(lambda: {"Woken", "ScalingUp"} <= scaled.told(), what="Events")


def test_fewer_are_enough_but_the_busy_ones_stay_until_they_have_finished(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=3))
    scaled, gate = Scaled(cluster, namespace), Gate()
    workers = start_workers("worker", handler=gate.handle, concurrency=1)
    scaled.until_pods(3)
    tasks = submit(workers, 2)
    until_running(workers, 2)
    cluster.apply(namespace, autoscaled(minReplicas=1, maxReplicas=1))
    scaled.until("Autoscaled", "True", "ScalingDeferredBusy")
    eventually(lambda: len(scaled.pods()) == 2, what="the idle one is gone")
    assert scaled.says("Ready") == ("True", "Available"), "an Agent that the operator scales stays ready"
    assert scaled.status()["desiredReplicas"] == 1
    gate.open()
    assert {(r.state, r.attempts) for r in ended(workers, tasks)} == {(TaskState.SUCCEEDED, 1)}
    scaled.until_pods(1)
    scaled.until("Autoscaled", "True", "Autoscaled")


def test_people_cannot_fight_the_autoscaler_and_it_never_writes_the_spec(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=2))
    scaled = Scaled(cluster, namespace)
    start_workers("worker", concurrency=1)
    scaled.until_pods(2)
    scaled.scale(5)
    generation = cluster.get(namespace, "agent", "worker")["metadata"]["generation"]
    eventually(lambda: scaled.status()["observedGeneration"] == generation, what="the operator has seen it")
    scaled.until("Ready", "True", "Available")
    body = cluster.get(namespace, "agent", "worker")
    assert scaled.replicas() == 2
    assert body["spec"]["replicas"] == 5
    condition = next(c for c in body["status"]["conditions"] if c["type"] == "Autoscaled")
    assert "spec.replicas is not used" in condition["message"]
    managers = cluster.kubectl(
        "-n", namespace, "get", "agent/worker", "--show-managed-fields", "-o=jsonpath={.metadata.managedFields}"
    )
    assert _touches_spec(managers) == {"kubectl", "kubectl-client-side-apply"}


def test_an_operator_that_starts_takes_nothing_away_that_is_needed(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    window: dict[str, Any] = {"scaleDown": {"stabilizationWindowSeconds": 3600}, "minReplicas": 1}
    first = start_operator().leading()
    deploy(cluster, namespace, redis_server, autoscaled(**window))
    scaled, gate = Scaled(cluster, namespace), Gate()
    workers = start_workers("worker", handler=gate.handle, concurrency=1)
    tasks = submit(workers, 4)
    scaled.until_pods(4)
    first.kill()
    gate.open()
    ended(workers, tasks)
    second = start_operator("operator-2").leading()
    eventually(
        lambda: second.metric("kubeagents_operator_queue_samples_total") >= 3, what="it has seen the empty queue"
    )
    assert scaled.replicas() == 4
    assert second.metric("kubeagents_operator_api_writes_total", kind="Deployment") == 0


def test_a_redis_that_is_away_changes_nothing_and_its_return_wakes_who_sleeps(
    cluster: Cluster,
    namespace: str,
    redis_binary: Path,
    tmp_path: Path,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    start_operator(KUBEAGENTS_SAMPLE_SECONDS="2").leading()
    with RedisServer(redis_binary, tmp_path) as redis:
        deploy(cluster, namespace, redis, autoscaled(minReplicas=0), autoscaled("other", minReplicas=2))
        scaled, other = Scaled(cluster, namespace), Scaled(cluster, namespace, "other")
        scaled.until("Ready", "True", "ScaledToZero")
        other.until_pods(2)
        redis.stop()
        for one, count in ((scaled, 0), (other, 2)):
            one.until("Autoscaled", "False", "RedisUnreachable")
            assert one.replicas() == count
        redis.start()
        scaled.until("Autoscaled", "True", "Autoscaled")
        workers = start_workers("worker", redis=redis)
        assert [r.state for r in ended(workers, submit(workers, agent="worker"))] == [TaskState.SUCCEEDED]


def test_a_paused_queue_starts_nothing(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0), paused=True)
    scaled = Scaled(cluster, namespace)
    workers = start_workers("worker")
    scaled.until("Ready", "True", "ScaledToZero")
    eventually(lambda: stats(workers).paused_by, what="the queue is paused")
    before = operator.metric("kubeagents_operator_queue_samples_total")
    tasks = submit(workers, 5)
    eventually(
        lambda: operator.metric("kubeagents_operator_queue_samples_total") >= before + 3, what="the tasks were seen"
    )
    assert scaled.replicas() == 0
    cluster.apply(namespace, manifests.queue())
    assert {r.state for r in ended(workers, tasks)} == {TaskState.SUCCEEDED}


def test_a_start_from_zero_is_not_counted_from_before_it_was_allowed(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0, spec={"suspend": True}))
    scaled = Scaled(cluster, namespace)
    workers = start_workers("worker")
    scaled.until("Ready", "True", "SpecSuspended")
    tasks = submit(workers)
    submitted = workers.do(lambda queue: queue.get(tasks[0])).created_at
    before = operator.metric("kubeagents_operator_queue_samples_total")
    eventually(
        lambda: operator.metric("kubeagents_operator_queue_samples_total") >= before + 3, what="the task was seen"
    )
    assert scaled.replicas() == 0
    resumed = datetime.now(UTC)
    scaled.patch(suspend=False)
    assert [r.state for r in ended(workers, tasks)] == [TaskState.SUCCEEDED]
    cold = eventually(lambda: scaled.status().get("coldStartSeconds"), what="the cold start shows")
    assert cold is not None
    assert cold < (datetime.now(UTC) - resumed).total_seconds() + 1
    assert resumed > submitted
    eventually(lambda: "Woken" in scaled.told(), what="an Event")


def test_replicas_that_no_task_asked_for_are_no_start_from_zero(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0))
    scaled = Scaled(cluster, namespace)
    scaled.until("Ready", "True", "ScaledToZero")
    start_workers("worker")
    scaled.patch(autoscaling={"minReplicas": 2})
    scaled.until_pods(2)
    scaled.until("Ready", "True", "Available")
    eventually(lambda: "ScalingUp" in scaled.told(), what="an Event")
    assert "Woken" not in scaled.told()
    assert "coldStartSeconds" not in scaled.status()


def test_a_single_task_that_all_could_take_wakes_one_agent(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    deploy(cluster, namespace, redis_server, autoscaled("alpha", minReplicas=0), autoscaled("beta", minReplicas=0))
    alpha, beta = Scaled(cluster, namespace, "alpha"), Scaled(cluster, namespace, "beta")
    gate = Gate()
    workers = start_workers("alpha", handler=gate.handle)
    for one in (alpha, beta):
        one.until("Ready", "True", "ScaledToZero")
    submit(workers)
    until_running(workers, 1)
    assert (alpha.replicas(), beta.replicas()) == (1, 0)
    submit(workers, agent="beta")
    eventually(lambda: beta.replicas() == 1, what="a task of its own wakes the other")
    assert alpha.replicas() == 1
    gate.open()


def test_much_going_on_elsewhere_in_the_queue_is_no_busy_loop(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    operator = start_operator(KUBEAGENTS_SAMPLE_SECONDS=RARELY).leading()
    busy = manifests.agent("busy")
    deploy(cluster, namespace, redis_server, autoscaled(minReplicas=0), busy)
    Scaled(cluster, namespace).until("Ready", "True", "ScaledToZero")
    workers = start_workers("busy")
    Scaled(cluster, namespace, "busy").until("Available", "True", "Available")
    before = operator.metric("kubeagents_operator_queue_samples_total")
    events = 0
    for _ in range(40):
        ended(workers, submit(workers, 50, agent="busy"))
        events += 150
    taken = operator.metric("kubeagents_operator_queue_samples_total") - before
    assert taken < events / 50
    tasks = submit(workers, agent="worker")
    start_workers("worker")
    assert [r.state for r in ended(workers, tasks)] == [TaskState.SUCCEEDED]


def _touches_spec(managed_fields: str) -> set[str]:
    """Who owns a part of the spec."""
    return {entry["manager"] for entry in json.loads(managed_fields) if "f:spec" in entry["fieldsV1"]}
