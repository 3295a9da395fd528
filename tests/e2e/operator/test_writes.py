# SPDX-License-Identifier: Apache-2.0
"""What is right is left alone, what somebody changed is put right."""

import json
from typing import Any

import pytest

from tests.e2e import workload
from tests.e2e.operator.states import CHILDREN, versions
from tests.support.cluster import OPERATOR_NAMESPACE, Cluster, Object
from tests.support.eventually import eventually

EVERYTHING: dict[str, Any] = {
    "image": "nowhere.invalid/mine:1",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "registry"}],
    "env": [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
    ],
    "resources": {"requests": {"cpu": "1000m", "memory": "0.5Gi"}, "limits": {"cpu": "1.5", "memory": "1024Mi"}},
    "nodeSelector": {"there": "is-none"},
    "tolerations": [{"key": "x", "operator": "Exists"}, {"operator": "Exists", "effect": "NoExecute"}],
}
"""Every field that ends up in a pod spec, and where it is possible, not as the API server stores it."""

REFERENCED: list[Object] = [
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}, "stringData": {"token": "x"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "1"}},
]
"""What it names and needs. The optional Secret is not there."""


def restart_operator(cluster: Cluster) -> None:
    """And wait until the new one has reconciled everything once."""
    cluster.stop_operator()
    cluster.start_operator()
    (pod,) = cluster.ready_pods(OPERATOR_NAMESPACE, "app.kubernetes.io/component=operator")

    def idle() -> bool:
        path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:8080/proxy/metrics"
        samples = dict(
            line.rsplit(" ", 1) for line in cluster.kubectl("get", "--raw", path).splitlines() if line[:1] != "#"
        )
        reconciled = sum(float(v) for k, v in samples.items() if k.startswith("kubeagents_operator_reconciles_total"))
        known = float(samples["kubeagents_operator_custom_resources"])
        waiting = float(samples["kubeagents_operator_workqueue_length"])
        return float(samples["kubeagents_operator_is_leader"]) == 1 and waiting == 0 and reconciled >= known > 0

    eventually(idle, what="the operator has reconciled everything", timeout=60)


@pytest.mark.alone
def test_a_restarted_operator_writes_nothing(cluster: Cluster, namespace: str) -> None:
    workload.deploy(
        cluster,
        namespace,
        workload.queue(redis={"managed": {"storage": {"size": "1024Mi"}, "resources": {"requests": {"cpu": "0.01"}}}}),
        workload.code(),
        workload.agent(),
    )
    cluster.apply(namespace, *REFERENCED, workload.agent("full", **EVERYTHING))
    eventually(lambda: cluster.get(namespace, "deployment", "full-agent"), what="the Deployment")

    def state() -> dict[str, str]:
        return versions(cluster.objects(namespace, f"{CHILDREN},agents,taskqueues"))

    def settled() -> bool:
        """Every controller has said all that it has to say about these objects."""
        before = state()
        restart_operator(cluster)
        return before == state()

    eventually(settled, what="a restart without a write", timeout=180, every=2)


def patch(cluster: Cluster, namespace: str, target: str, content: Object) -> None:
    cluster.kubectl("-n", namespace, "patch", target, "--type=strategic", "-p", json.dumps(content))


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("deployment/worker-agent", {"spec": {"replicas": 7}}),
        (
            "deployment/worker-agent",
            {"spec": {"template": {"spec": {"containers": [{"name": "runtime", "image": "nowhere.invalid/other"}]}}}},
        ),
        ("deployment/worker-agent", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
        (
            "deployment/worker-agent",
            {"spec": {"template": {"metadata": {"annotations": {"kubeagents.dev/config": "{}"}}}}},
        ),
        ("service/worker-agent", {"metadata": {"labels": {"kubeagents.dev/name": None}}}),
        ("service/worker-agent", {"metadata": {"ownerReferences": None}}),
        ("service/worker-agent", {"spec": {"selector": {"kubeagents.dev/name": "somebody-else"}}}),
        ("serviceaccount/worker-agent", {"automountServiceAccountToken": True}),
        ("secret/work-redis", {"data": {"redis.conf": "cG9ydCAx"}}),
    ],
    ids=["scaled", "other image", "label gone", "other config", "not ours", "no owner", "selector", "token", "secret"],
)
def test_what_somebody_changed_is_put_right(cluster: Cluster, namespace: str, target: str, content: Object) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    kind, _, name = target.partition("/")

    def essence() -> Object:
        body = cluster.get(namespace, kind, name)
        metadata = {key: body["metadata"].get(key) for key in ("labels", "ownerReferences")}
        rest = {key: value for key, value in body.items() if key not in ("metadata", "status")}
        return {"metadata": metadata, **rest}

    before = essence()
    patch(cluster, namespace, target, content)
    eventually(lambda: essence() == before, what=f"{target} is as it was")


@pytest.mark.parametrize("target", ["service/worker-agent", "deployment/worker-agent", "secret/work-redis"])
def test_what_somebody_deleted_comes_back(cluster: Cluster, namespace: str, target: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    kind, _, name = target.partition("/")
    uid = cluster.get(namespace, kind, name)["metadata"]["uid"]

    cluster.kubectl("-n", namespace, "delete", target, "--wait=false")

    def another() -> bool:
        return any(
            one["metadata"]["name"] == name and one["metadata"]["uid"] != uid
            for one in cluster.objects(namespace, kind)
        )

    eventually(another, what=f"another {target}")
    cluster.wait(namespace, "taskqueue/work", "condition=Ready")
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_what_others_add_stays(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    cluster.kubectl("-n", namespace, "annotate", "deployment/worker-agent", "their.example/note=1")
    cluster.kubectl("-n", namespace, "rollout", "restart", "deployment/worker-agent")
    cluster.kubectl("-n", namespace, "patch", "agent/worker", "--type=merge", "-p", '{"spec":{"concurrency":3}}')
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/worker-agent", "--timeout=60s")

    def ours_is_applied() -> bool:
        template = cluster.get(namespace, "deployment", "worker-agent")["spec"]["template"]
        return '"concurrency": 3' in template["metadata"]["annotations"]["kubeagents.dev/config"]

    eventually(ours_is_applied, what="the change of the spec")
    deployment = cluster.get(namespace, "deployment", "worker-agent")
    assert deployment["metadata"]["annotations"]["their.example/note"] == "1"
    assert "kubectl.kubernetes.io/restartedAt" in deployment["spec"]["template"]["metadata"]["annotations"]


def test_an_object_of_somebody_else_is_never_taken_over(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    cluster.kubectl("-n", namespace, "create", "service", "clusterip", "worker-agent", "--tcp=1234")

    cluster.apply(namespace, workload.agent())
    cluster.wait(namespace, "agent/worker", "condition=Stalled")

    stalled = next(
        one for one in cluster.get(namespace, "agent", "worker")["status"]["conditions"] if one["type"] == "Stalled"
    )
    assert stalled["reason"] == "CreateForbidden"
    assert "Service worker-agent exists already" in stalled["message"]
    theirs = cluster.get(namespace, "service", "worker-agent")
    assert [port["port"] for port in theirs["spec"]["ports"]] == [1234]
    assert "ownerReferences" not in theirs["metadata"]

    cluster.kubectl("-n", namespace, "delete", "service", "worker-agent")
    cluster.wait(namespace, "agent/worker", "condition=Ready")
