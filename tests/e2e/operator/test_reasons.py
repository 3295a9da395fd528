# SPDX-License-Identifier: Apache-2.0
"""The status names what is wrong, says Stalled when it does not heal, and takes it back when it is mended."""

import base64

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
        # Of two replicas one can be spared, says a PodDisruptionBudget; it is the second thing that is created.
        assert event_reasons(cluster, namespace, "agent/worker") == ["Created", "Created", "Scaled", "Ready"]
        return True

    eventually(told, what="Created, Ready, Created, Scaled, Ready")


def borrow(cluster: Cluster, namespace: str, *, password: str | None = None) -> None:
    """Have the queue `borrowed` use the Redis of the queue `work`, as an external one, with that password."""
    secret = cluster.get(namespace, "secret", "work-redis")["data"]
    url, right = (base64.b64decode(secret[key]).decode() for key in ("url", "password"))
    copy = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "copy"}}
    cluster.apply(
        namespace,
        {**copy, "stringData": {"url": url.replace(right, password or right)}},
        workload.queue("borrowed", redis={"external": {"secretRef": {"name": "copy"}}}),
        workload.agent("guest", queueRef={"name": "borrowed"}, progressDeadlineSeconds=10),
    )


def test_redis_that_goes_away_is_the_reason_of_the_queue_and_of_its_agents(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    borrow(cluster, namespace)
    cluster.wait(namespace, "agent/guest", "condition=Ready")

    cluster.kubectl("-n", namespace, "delete", "taskqueue/work")
    wait_for_reason(cluster, namespace, "taskqueue/borrowed", "RedisUnreachable")
    wait_for_reason(cluster, namespace, "agent/guest", "RedisUnreachable")
    assert condition(cluster, namespace, "agent", "guest", "QueueConnected")["status"] == "False"
    # Its pods are not ready by now, which is no more than a symptom.
    cluster.wait(namespace, "agent/guest", "condition=Available=false", seconds=60)
    cluster.wait(namespace, "agent/guest", "condition=Stalled", seconds=60)
    assert condition(cluster, namespace, "agent", "guest", "Ready")["reason"] == "RedisUnreachable"

    workload.deploy(cluster, namespace, workload.queue())
    borrow(cluster, namespace)
    for target in ("taskqueue/borrowed", "agent/guest"):
        cluster.wait(namespace, target, "condition=Ready")
    assert read(cluster, namespace, "guest") == "Current"


def test_a_wrong_password_is_the_reason_until_it_is_corrected(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    borrow(cluster, namespace, password="wrong")  # noqa: S106 - the point of it
    cluster.wait(namespace, "taskqueue/borrowed", "condition=Stalled")
    cluster.wait(namespace, "agent/guest", "condition=Stalled", seconds=60)
    for kind, name in (("taskqueue", "borrowed"), ("agent", "guest")):
        assert condition(cluster, namespace, kind, name, "Stalled")["reason"] == "RedisAuthFailed"

    borrow(cluster, namespace)
    for target in ("taskqueue/borrowed", "agent/guest"):
        cluster.wait(namespace, target, "condition=Ready")
