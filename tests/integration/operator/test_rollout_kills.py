# SPDX-License-Identifier: Apache-2.0
"""A canary goes on through the deaths of the operator: killed with each write that it makes, it does nothing twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.agent import Context, Task
from kubeagents_api.task import TaskRequest
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy, StartWorkers
from tests.integration.operator.test_kills import Lives
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

OURS = "kubeagents.dev/name=worker"
STABLE, CANARY = "worker-agent", "worker-agent-canary"
REPLICAS = 2

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def lives(start_operator: StartOperator, start_proxy: StartProxy) -> Lives:
    def start(**options: Any) -> OperatorProcess:
        return start_operator(ready=False, **options)

    return Lives(start, start_proxy())


def agent(version: str, **rollout: Any) -> Object:
    steps = [{"percent": 50, "pauseSeconds": 0}]
    env = [{"name": "VERSION", "value": version}]
    return manifests.agent(replicas=REPLICAS, env=env, rollout={"steps": steps, **rollout})


def status(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get(namespace, "agent", "worker")["status"]
    return found


def deployments(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Name -> the version of its template, and its replicas."""
    return {
        one["metadata"]["name"]: (
            next(
                entry["value"]
                for entry in one["spec"]["template"]["spec"]["containers"][0]["env"]
                if entry["name"] == "VERSION"
            ),
            one["spec"]["replicas"],
        )
        for one in cluster.objects(namespace, "deployments", OURS)
    }


def versions_run(cluster: Cluster, namespace: str) -> dict[str, int]:
    """Deployment -> how many templates of it have had pods."""
    counts: dict[str, int] = {}
    for one in cluster.objects(namespace, "replicasets", OURS):
        owner = one["metadata"]["ownerReferences"][0]["name"]
        counts[owner] = counts.get(owner, 0) + 1
    return counts


def begin(cluster: Cluster, namespace: str, redis: RedisServer, start: Callable[..., OperatorProcess]) -> None:
    """Version `1` is known to work."""
    queue = manifests.queue(retry={"maxAttempts": 100, "initialSeconds": 0.1, "maxSeconds": 0.5})
    cluster.apply(namespace, manifests.secret(redis.url), queue, manifests.code(), agent("1"))
    first = start().leading()
    eventually(lambda: status(cluster, namespace).get("rollout", {}).get("stableRevision"), what="a version that works")
    first.stop()


def test_a_version_is_promoted_by_an_operator_that_dies_with_every_write(
    cluster: Cluster, namespace: str, redis_server: RedisServer, lives: Lives, start_operator: StartOperator
) -> None:
    begin(cluster, namespace, redis_server, start_operator)
    cluster.apply(namespace, agent("2", minTasks=0))
    fewest = [REPLICAS]

    def promoted() -> bool:
        fewest.append(len(cluster.ready_pods(namespace, OURS)))
        done = deployments(cluster, namespace) == {STABLE: ("2", REPLICAS)}
        return done and status(cluster, namespace).get("rollout", {}).keys() == {"stableRevision"}

    lives.until(promoted, what="the new version everywhere")

    assert min(fewest) == REPLICAS, "there were always enough ready pods"
    assert versions_run(cluster, namespace) == {STABLE: 2}, "the old version, the new one, and none between"
    created = lives.proxy.created()
    assert [count for path, count in created.items() if path.endswith(CANARY)] == [1]


def test_a_version_is_taken_back_once_by_an_operator_that_dies_with_every_write(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    lives: Lives,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> None:
    async def handle(task: Task, ctx: Context) -> None:
        await asyncio.sleep(0.02)
        if "-canary-" in ctx.instance:
            raise ValueError("this version does not work")

    begin(cluster, namespace, redis_server, start_operator)
    workers = start_workers("worker", handler=handle, concurrency=1)
    cluster.apply(namespace, agent("2", minTasks=5))
    requests = [TaskRequest(agent="worker", max_attempts=100) for _ in range(20)]

    def taken_back() -> bool:
        workers.do(lambda queue: queue.submit(requests))
        now = status(cluster, namespace)
        said = any(one["type"] == "Stalled" and one["status"] == "True" for one in now["conditions"])
        return said and deployments(cluster, namespace) == {STABLE: ("1", REPLICAS)}

    lives.until(taken_back, what="the old version everywhere")

    rollout = status(cluster, namespace)["rollout"]
    assert rollout["failedRevision"] != rollout["stableRevision"]
    assert rollout["failed"] >= 5
    # The ReplicaSet of the canary follows its Deployment when the garbage collector comes to it.
    eventually(lambda: versions_run(cluster, namespace) == {STABLE: 1}, what="the old version was not replaced")
    created = lives.proxy.created()
    assert [count for path, count in created.items() if path.endswith(CANARY)] == [1], "it is tried once"
