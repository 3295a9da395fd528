# SPDX-License-Identifier: Apache-2.0
"""What the operator writes of its children, and what it leaves alone."""

import json
from typing import Any

import pytest

from kubeagents_api.labels import APPLIED
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

WRITES = "kubeagents_operator_api_writes_total"

EVERYTHING: dict[str, Any] = {
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    "resources": {"requests": {"cpu": "1000m", "memory": "0.5Gi"}, "limits": {"cpu": "1.5", "memory": "1024Mi"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "x", "operator": "Exists"}, {"operator": "Exists", "effect": "NoExecute"}],
}
"""Fields that end up in a pod spec, some not as the API server stores them."""


def deploy(cluster: Cluster, namespace: str, redis_server: RedisServer, **spec: Any) -> None:
    """A queue and an Agent, whose pod is ready."""
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    cluster.apply(namespace, manifests.agent(**spec))
    eventually(lambda: cluster.ready_pods(namespace, "kubeagents.dev/name=worker"), what="a pod that is ready")


def pod_spec(cluster: Cluster, namespace: str) -> Object:
    found: Object = cluster.get(namespace, "deployment", "worker-agent")["spec"]["template"]["spec"]
    return found


def patch(cluster: Cluster, namespace: str, target: str, content: Object, how: str = "strategic") -> None:
    cluster.kubectl("-n", namespace, "patch", target, f"--type={how}", "-p", json.dumps(content))


def test_a_child_costs_one_write_and_a_restart_costs_none(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    operator: OperatorProcess,
    start_operator: StartOperator,
) -> None:
    deploy(cluster, namespace, redis_server, **EVERYTHING)
    for kind in ("Deployment", "Service", "ServiceAccount"):
        assert operator.metric(WRITES, kind=kind) == 1
        assert operator.metric("kubeagents_operator_api_reads_total", kind=kind) == 0
    operator.stop()

    again = start_operator("operator-2").leading()

    eventually(lambda: again.metric("kubeagents_operator_reconciles_total") >= 2, what="a look at everything")
    for kind in ("Deployment", "Service", "ServiceAccount"):
        assert again.metric(WRITES, kind=kind) == 0


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("deployment", {"spec": {"replicas": 7}}),
        ("deployment", {"spec": {"template": {"spec": {"containers": [{"name": "runtime", "image": "other"}]}}}}),
        ("deployment", {"spec": {"template": {"metadata": {"annotations": {"kubeagents.dev/config": "{}"}}}}}),
        ("deployment", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
        ("deployment", {"metadata": {"annotations": {APPLIED: "another"}}}),
        ("service", {"metadata": {"labels": {"kubeagents.dev/name": None}}}),
        ("service", {"metadata": {"ownerReferences": None}}),
        ("service", {"spec": {"selector": {"kubeagents.dev/name": "somebody-else"}}}),
        ("serviceaccount", {"automountServiceAccountToken": True}),
    ],
    ids=["scaled", "image", "config", "label", "digest", "not ours", "no owner", "selector", "token"],
)
def test_what_somebody_changed_is_put_right(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    operator: OperatorProcess,
    target: str,
    content: Object,
) -> None:
    deploy(cluster, namespace, redis_server)

    def essence() -> Object:
        body = cluster.get(namespace, target, "worker-agent")
        metadata = {key: body["metadata"].get(key) for key in ("labels", "ownerReferences")}
        metadata[APPLIED] = body["metadata"]["annotations"][APPLIED]
        rest = {key: value for key, value in body.items() if key not in ("metadata", "status")}
        return {"metadata": metadata, **rest}

    before = essence()
    patch(cluster, namespace, f"{target}/worker-agent", content)
    eventually(lambda: essence() == before, what=f"{target} is as it was")


def test_what_the_spec_does_not_say_any_more_goes(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    deploy(cluster, namespace, redis_server)
    plain = pod_spec(cluster, namespace)
    patch(cluster, namespace, "agent/worker", {"spec": EVERYTHING}, "merge")
    eventually(lambda: "nodeSelector" in pod_spec(cluster, namespace), what="all that the spec says")
    full = pod_spec(cluster, namespace)
    assert {"name": "A", "value": "1"} in full["containers"][0]["env"]

    patch(cluster, namespace, "agent/worker", {"spec": {"env": EVERYTHING["env"][1:]}}, "merge")
    eventually(
        lambda: {"name": "A", "value": "1"} not in pod_spec(cluster, namespace)["containers"][0]["env"], what="less"
    )
    assert {"name": "B", "value": "2"} in pod_spec(cluster, namespace)["containers"][0]["env"]

    patch(cluster, namespace, "agent/worker", {"spec": dict.fromkeys(EVERYTHING)}, "merge")
    eventually(lambda: pod_spec(cluster, namespace) == plain, what="the pods of before")


def test_what_others_add_stays(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    deploy(cluster, namespace, redis_server)
    cluster.kubectl("-n", namespace, "annotate", "deployment/worker-agent", "their.example/note=1")
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "theirs", "image": "sidecar"}]}}}}
    patch(cluster, namespace, "deployment/worker-agent", sidecar)
    patch(cluster, namespace, "agent/worker", {"spec": {"image": "mine"}}, "merge")

    def images() -> set[str]:
        return {container["image"] for container in pod_spec(cluster, namespace)["containers"]}

    eventually(lambda: images() == {"mine", "sidecar"}, what="both changes")
    assert cluster.get(namespace, "deployment", "worker-agent")["metadata"]["annotations"]["their.example/note"] == "1"


def test_an_object_of_somebody_else_is_never_taken_over(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "worker-agent")
    before = cluster.get(namespace, "serviceaccount", "worker-agent")

    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), manifests.agent())
    cluster.wait(namespace, "agent/worker", "condition=Stalled")

    assert cluster.get(namespace, "serviceaccount", "worker-agent") == before
    conditions = cluster.get(namespace, "agent", "worker")["status"]["conditions"]
    (stalled,) = (one for one in conditions if one["type"] == "Stalled")
    assert stalled["reason"] == "CreateForbidden"
    assert "ServiceAccount worker-agent exists already" in stalled["message"]


@pytest.mark.parametrize("target", ["service", "deployment", "serviceaccount"])
def test_what_somebody_deleted_comes_back(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, target: str
) -> None:
    deploy(cluster, namespace, redis_server)
    uid = cluster.get(namespace, target, "worker-agent")["metadata"]["uid"]

    cluster.kubectl("-n", namespace, "delete", f"{target}/worker-agent", "--wait=false")

    def uids() -> list[str]:
        return [one["metadata"]["uid"] for one in cluster.objects(namespace, target, "kubeagents.dev/name=worker")]

    eventually(lambda: uids() not in ([], [uid]), what=f"another {target}")
