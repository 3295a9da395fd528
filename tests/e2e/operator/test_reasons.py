# SPDX-License-Identifier: Apache-2.0
"""The status names what is wrong, says Stalled when it does not heal, and takes it back when it is mended."""

import pytest

from tests.e2e import workload
from tests.e2e.operator.states import condition, event_reasons, wait_for_reason
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.kstatus import kstatus


def read(cluster: Cluster, namespace: str, name: str = "worker") -> str:
    return kstatus(cluster.get(namespace, "agent", name))


def test_an_image_that_cannot_be_pulled_stalls_after_the_deadline(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    cluster.apply(namespace, workload.agent(image="nowhere.invalid/none:1", progressDeadlineSeconds=10))

    wait_for_reason(cluster, namespace, "agent/worker", "ImagePullFailed")
    cluster.wait(namespace, "agent/worker", "condition=Stalled", seconds=60)

    stalled = condition(cluster, namespace, "agent", "worker", "Stalled")
    assert stalled["reason"] == "ImagePullFailed"
    assert "nowhere.invalid/none:1" in stalled["message"]
    assert read(cluster, namespace) == "Failed"


def test_a_missing_secret_of_the_environment_is_named_and_its_arrival_is_enough(
    cluster: Cluster, namespace: str
) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "model", "key": "token"}}}]
    cluster.apply(namespace, workload.agent(env=env))

    wait_for_reason(cluster, namespace, "agent/worker", "SecretNotFound")
    message = condition(cluster, namespace, "agent", "worker", "Ready")["message"]
    assert '"model"' in message
    assert "spec.env[0]" in message
    assert read(cluster, namespace) == "InProgress"

    cluster.kubectl("-n", namespace, "create", "secret", "generic", "model", "--from-literal=token=x")
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_a_container_that_keeps_exiting_is_a_crash_loop(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue())
    crashing = "import os\nos._exit(3)\n"
    cluster.apply(namespace, workload.code(text=crashing), workload.agent())

    wait_for_reason(cluster, namespace, "agent/worker", "CrashLoop")
    assert "exit code 3" in condition(cluster, namespace, "agent", "worker", "Ready")["message"]
    cluster.wait(namespace, "agent/worker", "condition=Stalled", seconds=120)

    cluster.apply(namespace, workload.code())
    cluster.wait(namespace, "agent/worker", "condition=Ready")
    assert event_reasons(cluster, namespace, "agent/worker")[-1] in ("Ready", "Recovered")


def test_a_quota_is_a_reason_with_the_api_servers_words(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    cluster.kubectl("-n", namespace, "create", "quota", "tight", "--hard=count/services=1")
    cluster.apply(namespace, workload.agent())

    cluster.wait(namespace, "agent/worker", "condition=Stalled")
    stalled = condition(cluster, namespace, "agent", "worker", "Stalled")
    assert stalled["reason"] == "QuotaExceeded"
    assert "exceeded quota: tight" in stalled["message"]

    cluster.kubectl("-n", namespace, "delete", "quota", "tight")
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_a_bad_new_version_is_stalled_while_the_old_one_serves(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent(replicas=2))
    serving = set(cluster.ready_pods(namespace, "kubeagents.dev/name=worker"))

    cluster.apply(namespace, workload.agent(replicas=2, handler="work:nothing"))
    cluster.wait(namespace, "agent/worker", "condition=Stalled")

    assert condition(cluster, namespace, "agent", "worker", "Stalled")["reason"] == "HandlerNotFound"
    assert condition(cluster, namespace, "agent", "worker", "Available")["status"] == "True"
    assert set(cluster.ready_pods(namespace, "kubeagents.dev/name=worker")) == serving


@pytest.mark.alone
def test_an_object_that_no_operator_has_seen_is_in_progress(cluster: Cluster, namespace: str) -> None:
    cluster.stop_operator()
    try:
        cluster.apply(namespace, workload.queue(), workload.code(), workload.agent())
        unseen = cluster.get(namespace, "agent", "worker")
        assert unseen["status"]["observedGeneration"] == -1
        assert kstatus(unseen) == "InProgress"
    finally:
        cluster.start_operator()
    cluster.wait(namespace, "agent/worker", "condition=Ready")
    assert read(cluster, namespace) == "Current"


def test_the_events_tell_the_story_once(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")
    cluster.wait(namespace, "agent/worker", "jsonpath={.status.ready}=2/2")
    cluster.wait(namespace, "agent/worker", "condition=Ready")

    def told() -> bool:
        assert event_reasons(cluster, namespace, "agent/worker") == ["Created", "Scaled", "Ready"]
        return True

    eventually(told, what="Created, Ready, Scaled, Ready")


def test_redis_that_goes_away_is_seen_in_the_queue_and_in_its_agents(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent())
    url = cluster.get(namespace, "secret", "work-redis")["data"]["url"]
    cluster.apply(
        namespace,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "copy"}, "data": {"url": url}},
        workload.queue("borrowed", redis={"external": {"secretRef": {"name": "copy"}}}),
        workload.agent("guest", queueRef={"name": "borrowed"}),
    )
    cluster.wait(namespace, "agent/guest", "condition=Ready")

    cluster.kubectl("-n", namespace, "delete", "taskqueue/work", "agent/worker")
    wait_for_reason(cluster, namespace, "taskqueue/borrowed", "RedisUnreachable")
    cluster.wait(namespace, "agent/guest", "condition=QueueConnected=false")
    assert read(cluster, namespace, "guest") == "InProgress"
