# SPDX-License-Identifier: Apache-2.0
"""Pausing, closing, routing and schedules of a TaskQueue, as `kubectl` does them and shows them."""

from typing import Any

from tests.e2e import workload
from tests.e2e.operator.states import columns, condition, event_reasons, wait_for_reason
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.kstatus import kstatus


def patch(cluster: Cluster, namespace: str, spec: str) -> None:
    cluster.kubectl("-n", namespace, "patch", "taskqueue/work", "--type=merge", "-p", f'{{"spec": {spec}}}')


def pods(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The runtime pods, by name: an uid that changes is a pod that was replaced."""
    found = cluster.objects(namespace, "pods", "kubeagents.dev/kind in (Agent,CentralAgent)")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def submit(cluster: Cluster, namespace: str, **task: Any) -> tuple[int, Object]:
    """Submit one task: the HTTP status and the answer."""
    with cluster.central_agent(namespace, "front") as http:
        answer = http.post("/v1/tasks", json={"payload": {"n": 3}, **task})
        return answer.status_code, answer.json()


def state(cluster: Cluster, namespace: str, task: str, *, wait: int = 0) -> str:
    """The state of a task, once it is final or the time is over."""
    with cluster.central_agent(namespace, "front") as http:
        answer = http.get(f"/v1/queues/work/tasks/{task}/result", params={"timeoutSeconds": wait})
        return str(answer.json()["state"])


def told(cluster: Cluster, namespace: str, *reasons: str) -> None:
    """Wait for Events of the queue."""
    eventually(
        lambda: set(reasons) <= set(event_reasons(cluster, namespace, "taskqueue/work")), what=f"Events {reasons}"
    )


def test_a_paused_queue_holds_its_tasks_and_the_pods_stay(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent(), workload.central_agent())
    running = pods(cluster, namespace)

    patch(cluster, namespace, '{"paused": true}')
    cluster.wait(namespace, "taskqueue/work", "condition=Suspended")
    status, task = submit(cluster, namespace)
    assert status == 201
    assert state(cluster, namespace, task["id"], wait=3) == "queued"

    shown = columns(cluster, namespace, "taskqueue/work")
    assert (shown["PAUSED"], shown["READY"], shown["STATUS"]) == ("True", "True", "Paused")
    assert "spec.paused" in condition(cluster, namespace, "taskqueue", "work", "Suspended")["message"]
    assert condition(cluster, namespace, "taskqueue", "work", "Accepting")["status"] == "True"
    assert kstatus(cluster.get(namespace, "taskqueue", "work")) == "Current"
    told(cluster, namespace, "Paused")

    patch(cluster, namespace, '{"paused": false}')
    cluster.wait(namespace, "taskqueue/work", "condition=Suspended=false")
    assert state(cluster, namespace, task["id"], wait=30) == "succeeded"
    assert columns(cluster, namespace, "taskqueue/work")["PAUSED"] == "False"
    told(cluster, namespace, "Resumed")
    assert pods(cluster, namespace) == running


def test_a_closed_queue_is_drained(cluster: Cluster, namespace: str) -> None:
    workload.deploy(
        cluster, namespace, workload.queue(paused=True), workload.code(), workload.agent(), workload.central_agent()
    )
    _, task = submit(cluster, namespace)

    patch(cluster, namespace, '{"closed": true}')
    cluster.wait(namespace, "taskqueue/work", "condition=Accepting=false")
    assert condition(cluster, namespace, "taskqueue", "work", "Accepting")["reason"] == "Closed"
    status, refusal = submit(cluster, namespace)
    assert (status, refusal["code"]) == (409, "QUEUE_CLOSED")

    patch(cluster, namespace, '{"paused": false}')
    assert state(cluster, namespace, task["id"], wait=30) == "succeeded"
    cluster.wait(namespace, "taskqueue/work", "condition=Drained")
    told(cluster, namespace, "Closed")


def test_tasks_that_nobody_takes_are_told_until_there_is_somebody(cluster: Cluster, namespace: str) -> None:
    workload.deploy(
        cluster,
        namespace,
        workload.queue(),
        workload.code(),
        workload.agent(replicas=0),
        workload.central_agent(),
    )
    submit(cluster, namespace, agent="worker")  # scaled to zero: it will take it
    _, lost = submit(cluster, namespace, capability="ocr")

    cluster.wait(namespace, "taskqueue/work", "condition=Routable=false")
    unroutable = condition(cluster, namespace, "taskqueue", "work", "Routable")
    assert unroutable["reason"] == "TasksUnroutable"
    assert 'capability "ocr"' in unroutable["message"]
    assert "worker" not in unroutable["message"]
    assert cluster.get(namespace, "taskqueue", "work")["status"]["unroutable"] == 1
    told(cluster, namespace, "TasksUnroutable")

    cluster.apply(namespace, workload.agent(capabilities=["ocr"]))
    cluster.wait(namespace, "taskqueue/work", "condition=Routable")
    assert state(cluster, namespace, lost["id"], wait=60) == "succeeded"
    told(cluster, namespace, "Routable")


def test_a_schedule_fires(cluster: Cluster, namespace: str) -> None:
    task = {"agent": "worker", "payload": {"n": 12}}
    queue = workload.queue(schedules=[{"name": "tick", "everySeconds": 2, "task": task}])
    workload.deploy(cluster, namespace, queue, workload.code(), workload.agent())
    cluster.wait(namespace, "taskqueue/work", "condition=SchedulesServed=false")
    told(cluster, namespace, "NoCentralAgent")

    workload.deploy(cluster, namespace, workload.central_agent())
    cluster.wait(namespace, "taskqueue/work", "condition=SchedulesServed")
    with cluster.central_agent(namespace, "front") as http:
        eventually(lambda: http.get("/v1/queues/work").json()["succeededTotal"] >= 2, what="two due times", timeout=60)
    told(cluster, namespace, "SchedulesServed")


def test_a_schedule_that_can_never_fire_stalls_its_queue_and_nobody_else(cluster: Cluster, namespace: str) -> None:
    good = {"name": "tick", "everySeconds": 2, "task": {"payload": {"n": 1}}}
    bad = [
        {"name": "late", "cron": "61 * * * *"},
        {"name": "where", "cron": "0 6 * * *", "timeZone": "Europe/Atlantis"},
    ]
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent(), workload.central_agent())
    cluster.apply(namespace, workload.queue(schedules=[good, *bad]))

    wait_for_reason(cluster, namespace, "taskqueue/work", "InvalidSpec")
    message = condition(cluster, namespace, "taskqueue", "work", "Stalled")["message"]
    assert "'61 * * * *'" in message
    assert "'Europe/Atlantis'" in message
    told(cluster, namespace, "InvalidSpec")
    with cluster.central_agent(namespace, "front") as http:
        eventually(
            lambda: http.get("/v1/queues/work").json()["succeededTotal"] >= 1, what="the good one fires", timeout=90
        )

    cluster.apply(namespace, workload.queue(schedules=[good]))
    wait_for_reason(cluster, namespace, "taskqueue/work", "Available")
    assert event_reasons(cluster, namespace, "taskqueue/work").count("InvalidSpec") == 1


def test_a_redis_that_may_forget_is_told(cluster: Cluster, namespace: str) -> None:
    redis = ["redis-server", "--protected-mode", "no", "--maxmemory-policy", "allkeys-lru", "--dir", "/tmp"]
    container = {"name": "redis", "image": cluster.images["redis"], "command": redis}
    cluster.apply(
        namespace,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "cache", "labels": {"app": "cache"}},
            "spec": {"containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "cache"},
            "spec": {"selector": {"app": "cache"}, "ports": [{"port": 6379}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "cache"},
            "stringData": {"url": f"redis://cache.{namespace}:6379/0"},
        },
        workload.queue(redis={"external": {"secretRef": {"name": "cache"}}}),
    )

    cluster.wait(namespace, "taskqueue/work", "condition=StorageHealthy=false")
    cluster.wait(namespace, "taskqueue/work", "condition=Ready")
    assert condition(cluster, namespace, "taskqueue", "work", "StorageHealthy")["reason"] == "EvictionPolicyUnsafe"
    told(cluster, namespace, "EvictionPolicyUnsafe")
