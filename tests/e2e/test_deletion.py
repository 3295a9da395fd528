# SPDX-License-Identifier: Apache-2.0
"""Deleting the custom resources leaves nothing behind, whoever is there to see it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from tests.e2e import workload
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually

KINDS = (
    "deployments,statefulsets,replicasets,pods,services,endpointslices,configmaps,secrets,serviceaccounts,"
    "roles,rolebindings,leases,persistentvolumeclaims"
)


def left_behind(cluster: Cluster, namespace: str) -> list[str]:
    """Everything in the namespace that it did not have to begin with."""

    def native(item: Object) -> bool:
        return item["metadata"]["name"] in ("default", "kube-root-ca.crt", "code")

    return [
        f"{item['kind']}/{item['metadata']['name']}" for item in cluster.objects(namespace, KINDS) if not native(item)
    ]


@contextmanager
def operator_stopped(cluster: Cluster) -> Iterator[None]:
    cluster.stop_operator()
    try:
        yield
    finally:
        cluster.start_operator()


@pytest.mark.alone
@pytest.mark.parametrize("operator", ["running", "stopped"])
def test_deleting_the_custom_resources_leaves_no_child_behind(cluster: Cluster, namespace: str, operator: str) -> None:
    manifests = [workload.queue(), workload.code(), workload.agent(), workload.central_agent()]
    workload.deploy(cluster, namespace, *manifests)
    kinds_seen = {entry.split("/")[0] for entry in left_behind(cluster, namespace)}
    assert {"Deployment", "StatefulSet", "Secret", "Lease", "Role", "PersistentVolumeClaim"} <= kinds_seen
    with operator_stopped(cluster) if operator == "stopped" else nullcontext():
        cluster.kubectl("-n", namespace, "delete", "agents,centralagents,taskqueues", "--all", "--timeout=60s")
        eventually(
            lambda: gone(left_behind(cluster, namespace)),
            what="no child is left",
            timeout=120,
        )


def gone(names: list[str]) -> bool:
    assert not names, f"still there: {', '.join(names)}"
    return True
