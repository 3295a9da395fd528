# SPDX-License-Identifier: Apache-2.0
"""A change of what pods read at the start replaces them; a change of a spec reaches the children."""

import base64

import pytest

from tests.e2e import workload
from tests.e2e.operator.states import wait_for_reason
from tests.support.cluster import Cluster
from tests.support.eventually import eventually

PODS = "kubeagents.dev/kind=Agent,kubeagents.dev/name=worker"


def pods(cluster: Cluster, namespace: str) -> set[str]:
    return set(cluster.ready_pods(namespace, PODS))


@pytest.mark.parametrize("change", ["spec", "code", "queue"])
def test_the_pods_roll(cluster: Cluster, namespace: str, change: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    before = pods(cluster, namespace)

    match change:
        case "spec":
            cluster.apply(namespace, workload.agent(concurrency=2))
        case "code":
            cluster.apply(namespace, workload.code(text=workload.SQUARE + "\n# changed\n"))
        case "queue":
            cluster.apply(namespace, workload.queue(taskTimeoutSeconds=7))

    eventually(lambda: pods(cluster, namespace).isdisjoint(before), what="other pods", timeout=90)
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_an_external_redis_is_used_and_a_change_of_its_url_rolls_the_pods(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue("one"), workload.queue("two"), workload.code())
    external = {"external": {"secretRef": {"name": "elsewhere", "key": "address"}}}
    cluster.apply(namespace, workload.queue(redis=external), workload.agent())
    wait_for_reason(cluster, namespace, "taskqueue/work", "SecretNotFound")
    wait_for_reason(cluster, namespace, "agent/worker", "DependencyNotReady")

    def use(queue: str) -> None:
        url = cluster.get(namespace, "secret", f"{queue}-redis")["data"]["url"]
        # With a newline at its end, as Secrets made from files have it.
        url = base64.b64encode(base64.b64decode(url) + b"\n").decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}, "data": {"address": url}}
        cluster.apply(namespace, secret)

    use("one")
    for target in ("taskqueue/work", "agent/worker"):
        cluster.wait(namespace, target, "condition=Ready")
    assert cluster.get(namespace, "taskqueue", "work")["status"]["backend"].startswith("external redis")
    before = pods(cluster, namespace)

    use("two")
    eventually(lambda: pods(cluster, namespace).isdisjoint(before), what="other pods", timeout=90)
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_a_queue_that_moves_to_an_external_redis_loses_its_own(cluster: Cluster, namespace: str) -> None:
    # Said rather than left to the default: `kubectl apply` can only take back what was said.
    workload.deploy(cluster, namespace, workload.queue("other"), workload.queue(redis={"managed": {}}))
    url = cluster.get(namespace, "secret", "other-redis")["data"]["url"]
    cluster.apply(
        namespace,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}, "data": {"url": url}},
        workload.queue(redis={"external": {"secretRef": {"name": "elsewhere"}}}),
    )
    owned = "kubeagents.dev/kind=TaskQueue,kubeagents.dev/name=work"
    eventually(
        lambda: not cluster.objects(namespace, "statefulsets,services,secrets,serviceaccounts,pods", owned),
        what="nothing of the managed Redis is left",
        timeout=90,
    )
    cluster.wait(namespace, "taskqueue/work", "condition=Ready")
