# SPDX-License-Identifier: Apache-2.0
"""The life of an Agent, from its manifest to its deletion."""

from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartWorkers
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

CHILDREN = "deployments,services,serviceaccounts"
OURS = "kubeagents.dev/name=worker"


def test_an_agent_is_ready_when_its_workers_beat_and_scales_and_goes(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), manifests.agent())
    eventually(lambda: cluster.ready_pods(namespace, OURS), what="a pod that is ready")
    assert _condition(cluster, namespace, "HeartbeatHealthy") != "True", "nobody has heard of its worker"

    start_workers("worker")
    cluster.wait(namespace, "agent/worker", "condition=HeartbeatHealthy")
    cluster.wait(namespace, "agent/worker", "condition=Ready")

    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=3")
    eventually(lambda: len(cluster.ready_pods(namespace, OURS)) == 3, what="three pods")
    eventually(lambda: _condition(cluster, namespace, "Ready") == "True", what="Ready with three pods")
    assert operator.metric("kubeagents_operator_api_errors_total") == 0

    cluster.kubectl("-n", namespace, "delete", "agent/worker")
    eventually(lambda: not cluster.objects(namespace, CHILDREN, OURS), what="no children")


def _condition(cluster: Cluster, namespace: str, type_: str) -> str:
    status = cluster.get(namespace, "agent", "worker").get("status", {})
    return next((c["status"] for c in status.get("conditions", ()) if c["type"] == type_), "")
