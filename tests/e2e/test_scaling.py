# SPDX-License-Identifier: Apache-2.0
"""`kubectl scale` up and down, seen everywhere it shows."""

from tests.e2e import workload
from tests.support.cluster import Cluster
from tests.support.eventually import eventually

AGENT_PODS = "kubeagents.dev/kind=Agent,kubeagents.dev/name=worker"


def test_kubectl_scale_is_seen_in_pods_in_status_and_in_the_scale_subresource(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    path = f"/apis/kubeagents.dev/v1alpha1/namespaces/{namespace}/agents/worker/scale"
    for replicas in (4, 1, 0, 2):
        cluster.kubectl("-n", namespace, "scale", "agent", "worker", f"--replicas={replicas}")
        cluster.wait(namespace, "agent/worker", f"jsonpath={{.status.ready}}={replicas}/{replicas}")
        cluster.wait(namespace, "agent/worker", "condition=Ready")
        scale = cluster.get_raw(path)
        assert scale["spec"].get("replicas", 0) == replicas  # the API leaves zeros out
        eventually(
            lambda replicas=replicas: len(cluster.ready_pods(namespace, AGENT_PODS)) == replicas,  # type: ignore[misc]
            what=f"{replicas} ready pods",
        )
        selected = cluster.objects(namespace, "pods", scale["status"]["selector"])
        assert {pod["metadata"]["labels"]["kubeagents.dev/name"] for pod in selected} <= {"worker"}
        eventually(
            lambda replicas=replicas: cluster.get_raw(path)["status"]["replicas"] == replicas,  # type: ignore[misc]
            what=f"the scale subresource says {replicas}",
        )
    conditions = {c["type"]: c for c in cluster.get(namespace, "agent", "worker")["status"]["conditions"]}
    assert conditions["ScaledToZero"]["status"] == "False"
    columns = cluster.kubectl("-n", namespace, "get", "agents").splitlines()
    assert columns[0].split() == ["NAME", "READY", "STATUS", "QUEUE", "INFLIGHT", "AGE"]
    assert columns[1].split()[:4] == ["worker", "2/2", "Available", "work"]


def test_scaling_down_gives_unfinished_work_back_without_costing_an_attempt(cluster: Cluster, namespace: str) -> None:
    workload.deploy(
        cluster,
        namespace,
        workload.queue(retry={"maxAttempts": 1}),
        workload.code(),
        workload.agent(replicas=2, concurrency=4, drainSeconds=0),
        workload.central_agent(),
    )
    with cluster.central_agent(namespace, "front") as http:
        system = workload.Workload(cluster=cluster, namespace=namespace, http=http)
        ids = system.submit(40, seconds=2)
        eventually(lambda: system.running() == 8, what="both pods work on tasks")
        cluster.kubectl("-n", namespace, "scale", "agent", "worker", "--replicas=1")
        records = system.check(ids)
        assert {r["attempts"] for r in records} == {1}
