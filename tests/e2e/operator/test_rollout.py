# SPDX-License-Identifier: Apache-2.0
"""A canary of real code: a good version is promoted, a bad one is taken back, and no task is lost on the way."""

from tests.e2e import workload
from tests.e2e.operator.states import event_reasons
from tests.e2e.workload import Workload
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.kstatus import kstatus

PODS = "kubeagents.dev/kind=Agent,kubeagents.dev/name=worker"
ROLLOUT = {"steps": [{"percent": 50, "pauseSeconds": 0}], "minTasks": 5}
GOOD = workload.SQUARE.replace('"by"', '"version": 2, "by"')
BAD = """\
async def handle(task, ctx):
    raise RuntimeError("this version does not work")
"""
TASK_SECONDS = 0.2


def test_a_good_version_is_promoted_and_a_bad_one_is_taken_back(cluster: Cluster, namespace: str) -> None:
    agent = workload.agent(replicas=2, concurrency=2, heartbeatSeconds=1, rollout=ROLLOUT)
    retry = {"maxAttempts": 50, "initialSeconds": 0.2, "maxSeconds": 1}
    workload.deploy(cluster, namespace, workload.queue(retry=retry), workload.code(), agent, workload.central_agent())
    with cluster.central_agent(namespace, "front") as http:
        system = Workload(cluster, namespace, http)
        ids = _submit(system, 100)

        cluster.apply(namespace, workload.code(text=GOOD))
        _until_canary_has(cluster, namespace, "CanaryPromoted", system, ids)
        eventually(lambda: _kstatus(cluster, namespace) == "Current", what="the new version everywhere", timeout=120)
        assert _deployments(cluster, namespace) == {"worker-agent": 2}
        eventually(
            lambda: len(cluster.objects(namespace, "pods", PODS)) == 2, what="the old pods have drained", timeout=60
        )
        [last] = system.results(newest := _submit(system, 1))
        assert last["result"]["version"] == 2
        ids += newest

        cluster.apply(namespace, workload.code(text=BAD))
        _until_canary_has(cluster, namespace, "CanaryFailed", system, ids)
        assert _kstatus(cluster, namespace) == "Failed"
        eventually(lambda: _deployments(cluster, namespace) == {"worker-agent": 2}, what="no canary", timeout=60)

        eventually(
            lambda: len(cluster.objects(namespace, "pods", PODS)) == 2, what="two of the old version", timeout=120
        )
        for pod in cluster.objects(namespace, "pods", PODS):
            cluster.kubectl("-n", namespace, "delete", "pod", pod["metadata"]["name"])
        records = system.results([*ids, *_submit(system, 20)])
        assert [record["state"] for record in records] == ["succeeded"] * len(records)
        assert all(record["result"]["version"] == 2 for record in records[-20:]), "new pods have the good code too"


def _submit(system: Workload, count: int) -> list[str]:
    tasks = [{"payload": {"n": n, "seconds": TASK_SECONDS}, "agent": "worker"} for n in range(count)]
    answer = system.http.post("/v1/tasks/batch", json={"tasks": tasks})
    assert answer.status_code == 201, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


def _until_canary_has(cluster: Cluster, namespace: str, reason: str, system: Workload, ids: list[str]) -> None:
    """Give it work until that has happened."""

    def happened() -> bool:
        if reason in event_reasons(cluster, namespace, "agent/worker"):
            return True
        if system.stats()["queued"] < 20:
            ids.extend(_submit(system, 20))
        return False

    eventually(happened, what=reason, timeout=180, every=1.0)


def _kstatus(cluster: Cluster, namespace: str) -> str:
    return kstatus(cluster.get(namespace, "agent", "worker"))


def _deployments(cluster: Cluster, namespace: str) -> dict[str, int]:
    found = cluster.objects(namespace, "deployments", PODS)
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}
