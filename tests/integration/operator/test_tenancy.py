# SPDX-License-Identifier: Apache-2.0
"""Namespaces as tenants: what one may have, and that one with much to do does not slow another."""

import json
from functools import partial

import pytest

from kubeagents_api.labels import CONFIG
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartWorkers
from tests.integration.operator.gates import Gate
from tests.integration.operator.scaled import submit, until_running
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

CROWD = 300


def quotas(**quota: object) -> dict[str, str]:
    return {"KUBEAGENTS_QUOTAS": json.dumps({"*": quota})}


def setup(cluster: Cluster, namespace: str, redis: RedisServer) -> None:
    cluster.apply(namespace, manifests.secret(redis.url), manifests.queue(), manifests.code())


def stalled(cluster: Cluster, namespace: str, name: str) -> str | None:
    """The message if the quota is the reason why it is stalled."""
    conditions = cluster.get(namespace, "agent", name).get("status", {}).get("conditions", ())
    found = [c for c in conditions if c["type"] == "Stalled" and c["reason"] == "QuotaExceeded"]
    return found[0]["message"] if found and found[0]["status"] == "True" else None


def replicas(cluster: Cluster, namespace: str) -> dict[str, int]:
    """Agent -> replicas of its Deployment."""
    return {
        one["metadata"]["name"].removesuffix("-agent"): one["spec"]["replicas"]
        for one in cluster.objects(namespace, "deployments")
    }


def has_pods(cluster: Cluster, namespace: str, name: str) -> bool:
    return name in replicas(cluster, namespace)


def test_more_agents_than_allowed_wait_until_there_is_room(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    operator = start_operator(**quotas(agents=2)).leading()
    setup(cluster, namespace, redis_server)
    for name in ("a", "b", "c"):
        cluster.apply(namespace, manifests.agent(name))
        if name != "c":
            eventually(partial(has_pods, cluster, namespace, name), what=f"{name} has pods")

    message = eventually(lambda: stalled(cluster, namespace, "c"), what="c is over the quota") or ""
    assert "may have 2 Agents, and others come first: delete or shrink others" in message
    assert sorted(replicas(cluster, namespace)) == ["a", "b"]
    assert "c-agent" not in cluster.kubectl("-n", namespace, "get", "services,serviceaccounts", "-o", "name")
    assert "QuotaExceeded" in cluster.kubectl("-n", namespace, "get", "events", "--field-selector=type=Warning")

    # The same after a restart, whatever comes first then.
    assert operator.stop() == 0
    operator.start().ready().leading()
    eventually(lambda: operator.metric("kubeagents_operator_reconciles_total") >= 4, what="all are reconciled")
    assert sorted(replicas(cluster, namespace)) == ["a", "b"]
    assert operator.metric("kubeagents_operator_api_writes_total", kind="Deployment") == 0

    cluster.kubectl("-n", namespace, "delete", "agent/a")
    eventually(lambda: "c" in replicas(cluster, namespace), what="c has pods")
    eventually(lambda: stalled(cluster, namespace, "c") is None, what="c is within the quota")


def test_replicas_over_the_quota_are_cut_and_come_when_there_is_room(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    start_operator(**quotas(replicas=5)).leading()
    setup(cluster, namespace, redis_server)
    cluster.apply(namespace, manifests.agent("a", replicas=3))
    eventually(lambda: replicas(cluster, namespace) == {"a": 3}, what="a has what it asks for")
    cluster.apply(namespace, manifests.agent("b", replicas=4))
    eventually(lambda: replicas(cluster, namespace) == {"a": 3, "b": 2}, what="b has what is left")
    message = eventually(lambda: stalled(cluster, namespace, "b"), what="b says so") or ""
    assert "may have 5 replicas together, which leaves 2 for this one" in message

    cluster.kubectl("-n", namespace, "scale", "agent/a", "--replicas=1")
    eventually(lambda: replicas(cluster, namespace).get("b") == 4, what="b has all")
    eventually(lambda: stalled(cluster, namespace, "b") is None, what="b is within the quota")
    assert cluster.get(namespace, "agent", "b")["spec"]["replicas"] == 4, "the operator does not write specs"


def test_replicas_that_still_work_are_not_given_to_others(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    start_operator(**quotas(replicas=2)).leading()
    setup(cluster, namespace, redis_server)
    gate = Gate()
    cluster.apply(namespace, manifests.agent(replicas=2, concurrency=1, drainSeconds=600))
    workers = start_workers("worker", handler=gate.handle, concurrency=1)
    eventually(lambda: len(workers.consumers) == 2, what="two workers")
    submit(workers, 2)
    until_running(workers, 2)
    cluster.apply(namespace, manifests.agent("late"))
    eventually(lambda: stalled(cluster, namespace, "late"), what="there is no room for another one")

    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=1")
    cluster.wait(namespace, "agent/worker", "jsonpath={.status.desiredReplicas}=1")
    cluster.kubectl("-n", namespace, "annotate", "agent/late", "their.example/look=again")
    assert replicas(cluster, namespace) == {"worker": 2, "late": 0}, "both pods of the first one still work"

    gate.open()
    eventually(lambda: replicas(cluster, namespace) == {"worker": 1, "late": 1}, what="room for the other one")
    eventually(lambda: stalled(cluster, namespace, "late") is None, what="it is within the quota")


@pytest.mark.usefixtures("redis_server")
def test_queues_share_the_rate_of_their_namespace(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    start_operator(**quotas(tasksPerSecond=100)).leading()
    setup(cluster, namespace, redis_server)
    cluster.apply(namespace, manifests.agent())

    def rate() -> float:
        (deployment,) = cluster.objects(namespace, "deployments")
        config = json.loads(deployment["spec"]["template"]["metadata"]["annotations"][CONFIG])
        found = config["queue"]["limits"]["rate"]
        return float(found["tasks"] / found["perSeconds"])

    eventually(lambda: len(cluster.objects(namespace, "deployments")) == 1, what="the Deployment")
    assert rate() == pytest.approx(100)

    cluster.apply(namespace, manifests.queue("second"))
    eventually(lambda: rate() == pytest.approx(50), what="half of it, with two queues")
    cluster.kubectl("-n", namespace, "delete", "taskqueue/second")
    eventually(lambda: rate() == pytest.approx(100), what="all of it again")


def test_a_tenant_with_many_agents_does_not_delay_the_change_of_another(
    cluster: Cluster, namespace: str, other_namespace: str, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    environment = {"KUBEAGENTS_WATCH_NAMESPACES": f"{namespace},{other_namespace}", "KUBEAGENTS_CONCURRENCY": "1"}
    operator: OperatorProcess = start_operator(**environment).leading()
    setup(cluster, namespace, redis_server)
    setup(cluster, other_namespace, redis_server)
    cluster.apply(other_namespace, manifests.agent())
    eventually(lambda: replicas(cluster, other_namespace) == {"worker": 1}, what="the other_namespace's Agent has pods")

    crowd: list[Object] = [manifests.agent(f"crowd-{number}", replicas=0) for number in range(CROWD)]
    cluster.kubectl("-n", namespace, "create", "-f", "-", input="\n---\n".join(json.dumps(one) for one in crowd))
    assert operator.metric("kubeagents_operator_workqueue_length") > 10, "the crowd waits"
    cluster.kubectl("-n", other_namespace, "scale", "agent/worker", "--replicas=2")
    eventually(lambda: replicas(cluster, other_namespace) == {"worker": 2}, what="a change of the other", timeout=60)

    assert operator.metric("kubeagents_operator_workqueue_length") > 0, "the crowd still waits"
