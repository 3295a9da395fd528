# SPDX-License-Identifier: Apache-2.0
"""API keys: the operator's, those of Secrets and of `POST /v1/keys`, through the Service of two pods."""

from typing import Any

import httpx

from tests.e2e import workload
from tests.support.cluster import Cluster
from tests.support.eventually import eventually

PODS = "kubeagents.dev/kind=CentralAgent,kubeagents.dev/name=front"
KUBELET_SECONDS = 240.0
"""Until a kubelet brings the change of a Secret into a pod, at the latest."""


def keys(**entries: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "root-keys"}, "stringData": entries}


def submit(http: httpx.Client, key: str | None) -> httpx.Response:
    return http.post("/v1/tasks", json={"payload": {"n": 2}}, headers={"x-api-key": key} if key else {})


def test_keys_open_the_door_on_every_pod_and_change_without_a_restart(cluster: Cluster, namespace: str) -> None:
    root = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
    cluster.apply(namespace, keys(first="the-first-key-of-root"))
    workload.deploy(
        cluster,
        namespace,
        workload.queue(),
        workload.code(),
        workload.agent(),
        workload.central_agent(replicas=2, access={"principals": [root]}),
    )
    pods = set(cluster.ready_pods(namespace, PODS))
    with cluster.central_agent(namespace, "front") as http:
        assert submit(http, None).status_code == 401
        assert submit(http, "the-first-key-of-root").status_code == 201
        admin = {"x-api-key": "the-first-key-of-root"}
        made = http.post("/v1/keys", json={"principal": "ci", "role": "developer"}, headers=admin).json()
        assert {submit(http, made["key"]).status_code for _ in range(20)} == {201}
        assert http.delete(f"/v1/keys/{made['id']}", headers=admin).status_code == 204
        eventually(lambda: {submit(http, made["key"]).status_code for _ in range(20)} == {401}, what="it ends on both")

        cluster.apply(namespace, keys(second="the-second-key-of-root"))
        cluster.kubectl("-n", namespace, "patch", "secret", "root-keys", "--type=json",
                        "-p", '[{"op": "remove", "path": "/data/first"}]')  # fmt: skip

        def changed() -> bool:
            new = {submit(http, "the-second-key-of-root").status_code for _ in range(10)}
            old = {submit(http, "the-first-key-of-root").status_code for _ in range(10)}
            return (new, old) == ({201}, {401})

        eventually(changed, what="the kubelet has brought the change to both pods", timeout=KUBELET_SECONDS, every=2)
    assert set(cluster.ready_pods(namespace, PODS)) == pods, "no pod was replaced"


def test_whoever_may_read_the_secret_that_the_operator_made_gets_in_and_nobody_else(
    cluster: Cluster, namespace: str
) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.central_agent(replicas=2))
    pods = set(cluster.ready_pods(namespace, PODS))
    first = cluster.admin_key(namespace, "front")
    assert first is not None
    with cluster.central_agent(namespace, "front") as http:
        del http.headers["x-api-key"]
        assert {submit(http, None).status_code for _ in range(20)} == {401}
        assert {submit(http, first).status_code for _ in range(20)} == {201}

        cluster.kubectl("-n", namespace, "delete", "secret", "front-central-admin")
        second = eventually(lambda: cluster.admin_key(namespace, "front"), what="another key")
        assert second != first

        def changed() -> bool:
            new, old = ({submit(http, key).status_code for _ in range(10)} for key in (second, first))
            return (new, old) == ({201}, {401})

        eventually(changed, what="the kubelet has brought it to both pods", timeout=KUBELET_SECONDS, every=2)
    assert set(cluster.ready_pods(namespace, PODS)) == pods, "no pod was replaced"
