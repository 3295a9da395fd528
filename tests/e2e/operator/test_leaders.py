# SPDX-License-Identifier: Apache-2.0
"""Leaders: of a CentralAgent, as its status shows them, and of the operator's replicas."""

import pytest

from tests.e2e import workload
from tests.e2e.operator.states import condition, event_reasons
from tests.support.cluster import OPERATOR_NAMESPACE, Cluster
from tests.support.eventually import eventually

OPERATORS = "app.kubernetes.io/component=operator"


def test_a_central_agent_shows_its_leader_and_follows_a_failover(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.central_agent(replicas=2))
    status = cluster.get(namespace, "centralagent", "front")["status"]
    first = status["leader"]
    assert first in cluster.ready_pods(namespace, "kubeagents.dev/name=front")
    assert condition(cluster, namespace, "centralagent", "front", "LeaderElected")["status"] == "True"

    cluster.kubectl("-n", namespace, "delete", "pod", first, "--force", "--grace-period=0")

    def another() -> bool:
        now = cluster.get(namespace, "centralagent", "front")["status"]
        leader = now.get("leader")
        return bool(leader) and leader != first and now["leaseTransitions"] > status["leaseTransitions"]

    eventually(another, what="another leader", timeout=60)
    cluster.wait(namespace, "centralagent/front", "condition=Ready")
    assert "LeaderElected" in event_reasons(cluster, namespace, "centralagent/front")


def test_nobody_but_the_leader_writes_the_spec_of_the_lease(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.central_agent())
    fields = cluster.kubectl("-n", namespace, "get", "lease", "front-leader", "-o", "json", "--show-managed-fields")

    assert '"kubeagents-operator"' in fields  # it made the object and keeps its owner reference
    lease = cluster.get(namespace, "lease", "front-leader")
    assert lease["spec"]["holderIdentity"] == cluster.get(namespace, "centralagent", "front")["status"]["leader"]
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "CentralAgent"


def holder(cluster: Cluster) -> str:
    lease = cluster.get(OPERATOR_NAMESPACE, "lease", "kubeagents-operator")
    return str(lease["spec"].get("holderIdentity") or "")


@pytest.mark.alone
def test_another_replica_of_the_operator_takes_over(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/kubeagents-operator", "--replicas=2")
    try:
        eventually(
            lambda: len(cluster.ready_pods(OPERATOR_NAMESPACE, OPERATORS)) == 2, what="two operators", timeout=90
        )
        first = eventually(lambda: holder(cluster), what="a leading operator")
        cluster.kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", first, "--force", "--grace-period=0")
        workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
        assert holder(cluster) not in ("", first)
    finally:
        cluster.kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/kubeagents-operator", "--replicas=1")
        eventually(lambda: len(cluster.objects(OPERATOR_NAMESPACE, "pods", OPERATORS)) == 1, what="one operator")
