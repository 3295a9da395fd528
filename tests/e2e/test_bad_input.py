# SPDX-License-Identifier: Apache-2.0
"""What only shows when it runs: the status says what is wrong, and nothing loops."""

import base64

from tests.e2e import workload
from tests.support.cluster import OPERATOR_NAMESPACE, Cluster, Object


def condition(cluster: Cluster, namespace: str, kind: str, name: str, wanted: str) -> Object:
    conditions: list[Object] = cluster.get(namespace, kind, name)["status"]["conditions"]
    return next(c for c in conditions if c["type"] == wanted)


def operator_restarts(cluster: Cluster) -> int:
    pods = cluster.objects(OPERATOR_NAMESPACE, "pods", "app.kubernetes.io/component=operator")
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])


def secret(name: str, url: str) -> Object:
    data = {"url": base64.b64encode(url.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def test_an_unknown_handler_stalls_the_agent_with_the_import_error(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(), workload.code())
    cluster.apply(namespace, workload.agent(handler="nowhere:handle"))
    cluster.wait(namespace, "agent/worker", "condition=Stalled", seconds=60)
    stalled = condition(cluster, namespace, "agent", "worker", "Stalled")
    assert stalled["reason"] == "HandlerNotFound"
    assert "No module named 'nowhere'" in stalled["message"]
    assert condition(cluster, namespace, "agent", "worker", "Ready")["status"] == "False"
    events = cluster.kubectl("-n", namespace, "events", "--for=agent/worker")
    assert "HandlerNotFound" in events

    cluster.apply(namespace, workload.agent())  # the mistake is mended
    cluster.wait(namespace, "agent/worker", "condition=Ready")
    assert condition(cluster, namespace, "agent", "worker", "Stalled")["status"] == "False"


def test_an_unreachable_redis_is_a_reason_and_no_crash_loop(cluster: Cluster, namespace: str) -> None:
    restarts = operator_restarts(cluster)
    external = {"external": {"secretRef": {"name": "elsewhere"}}}
    cluster.apply(namespace, workload.queue(redis=external))
    cluster.wait(namespace, "taskqueue/work", 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=SecretNotFound')
    for url, reason in (
        ("http://not-redis", "RedisUrlInvalid"),
        ("redis://nowhere.invalid:6379/0", "RedisUnreachable"),
    ):
        cluster.apply(namespace, secret("elsewhere", url))
        cluster.wait(
            namespace, "taskqueue/work", f'jsonpath={{.status.conditions[?(@.type=="Ready")].reason}}={reason}'
        )
        message = condition(cluster, namespace, "taskqueue", "work", "Ready")["message"]
        assert "elsewhere" in message or "nowhere.invalid" in message
    assert operator_restarts(cluster) == restarts


def test_a_wrong_password_is_told_apart_from_an_unreachable_redis(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue("real"))
    url = f"redis://:wrong@real-redis.{namespace}.svc:6379/0"
    cluster.apply(namespace, secret("elsewhere", url))
    cluster.apply(namespace, workload.queue(redis={"external": {"secretRef": {"name": "elsewhere"}}}))
    cluster.wait(
        namespace, "taskqueue/work", 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=RedisAuthFailed'
    )
    described = cluster.kubectl("-n", namespace, "get", "taskqueue", "work", "-o", "yaml")
    assert "wrong@" not in described, "the password does not leak into the status"


def test_an_agent_waits_for_its_queue_and_starts_when_it_appears(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, workload.code(), workload.agent())
    cluster.wait(
        namespace, "agent/worker", 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=DependencyNotFound'
    )
    assert '"work"' in condition(cluster, namespace, "agent", "worker", "Ready")["message"]
    cluster.apply(namespace, workload.queue())
    cluster.wait(namespace, "agent/worker", "condition=Ready")


def test_malformed_requests_get_a_body_that_says_what_is_wrong(cluster: Cluster, namespace: str) -> None:
    workload.deploy(cluster, namespace, workload.queue(maxPayloadBytes=1024), workload.central_agent())
    with cluster.central_agent(namespace, "front") as http:
        for body, status, code in (
            (b"{not json", 400, "INVALID_JSON"),
            (b'{"priority": 99}', 400, "INVALID_REQUEST"),
            (b'{"payload": "' + b"x" * 2000 + b'"}', 413, "PAYLOAD_TOO_LARGE"),
            (b'{"queue": "nowhere"}', 404, "QUEUE_NOT_FOUND"),
        ):
            answer = http.post("/v1/tasks", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
            assert set(answer.json()) == {"error", "code", "timestamp", "details"}
