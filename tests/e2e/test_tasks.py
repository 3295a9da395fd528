# SPDX-License-Identifier: Apache-2.0
"""1,000 tasks through the Service of a CentralAgent: undisturbed, and with the worst happening in the middle."""

from collections.abc import Iterator

import pytest

from tests.e2e import workload
from tests.e2e.workload import Workload
from tests.support.cluster import Cluster
from tests.support.eventually import eventually

AGENT_PODS = "kubeagents.dev/kind=Agent,kubeagents.dev/name=worker"


@pytest.fixture
def running(cluster: Cluster, namespace: str) -> Iterator[Workload]:
    workload.deploy(
        cluster,
        namespace,
        workload.queue(),
        workload.code(),
        workload.agent(replicas=2, concurrency=8),
        workload.central_agent(),
    )
    with cluster.central_agent(namespace, "front") as http:
        yield Workload(cluster=cluster, namespace=namespace, http=http)


def test_a_thousand_tasks_all_come_back_right(running: Workload) -> None:
    records = running.check(running.submit(1000))
    assert len({r["result"]["by"] for r in records}) == 2, "both pods work"
    assert {r["attempts"] for r in records} == {1}


def test_no_task_is_lost_when_an_agent_pod_is_killed(running: Workload) -> None:
    ids = running.submit(1000, seconds=0.05)
    victim = running.cluster.ready_pods(running.namespace, AGENT_PODS)[0]
    eventually(lambda: running.stats()["succeededTotal"] > 50, what="work has begun")
    running.cluster.sigkill(running.namespace, victim)
    records = running.check(ids)
    again = [r for r in records if r["attempts"] > 1]
    assert again, "the killed pod held tasks, which ran again elsewhere"
    assert {f["code"] for r in again for f in r["failures"]} == {"LEASE_EXPIRED"}


def test_no_task_is_lost_when_the_redis_pod_is_deleted(running: Workload) -> None:
    ids = running.submit(1000, seconds=0.05)
    eventually(lambda: running.stats()["succeededTotal"] > 50, what="work has begun")
    running.cluster.kubectl("-n", running.namespace, "delete", "pod", "work-redis-0", "--wait=false")
    running.check(ids)
    running.cluster.wait(running.namespace, "taskqueue/work", "condition=Ready")


@pytest.mark.alone
def test_agents_work_on_while_the_operator_is_down_and_it_catches_up(running: Workload) -> None:
    cluster, namespace = running.cluster, running.namespace
    pods = set(running.cluster.ready_pods(namespace, AGENT_PODS))
    ids = running.submit(1000, seconds=0.02)
    cluster.stop_operator()
    try:
        # An apply that nobody acts on: it must not look done.
        cluster.apply(namespace, workload.agent(replicas=3, concurrency=8))
        assert cluster.get(namespace, "agent", "worker")["status"]["observedGeneration"] == 1
        running.check(ids)
    finally:
        cluster.start_operator()
    cluster.wait(namespace, "agent/worker", "jsonpath={.status.readyReplicas}=3")
    assert pods < set(cluster.ready_pods(namespace, AGENT_PODS)), "running pods were left alone"


def test_tasks_reach_the_central_agent_by_the_dns_name_of_its_service(running: Workload) -> None:
    program = (
        "import json, os, urllib.request as u\n"
        "key = {'authorization': 'Bearer ' + os.environ['KEY']}\n"
        "r = u.Request('http://front-central/v1/tasks', json.dumps({'payload': {'n': 12}}).encode(), "
        "{'content-type': 'application/json', **key})\n"
        "t = json.load(u.urlopen(r))\n"
        "url = f\"http://front-central/v1/queues/{t['queue']}/tasks/{t['id']}/result?timeoutSeconds=30\"\n"
        "print(json.load(u.urlopen(u.Request(url, headers=key)))['result']['square'])\n"
    )
    key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "front-central-admin", "key": "key"}}}
    running.cluster.run_python(running.namespace, "client", program, env=[key])
    eventually(
        lambda: running.cluster.kubectl("-n", running.namespace, "logs", "client").strip() == "144",
        what="the client pod printed 12 squared",
        timeout=60,
    )
