# SPDX-License-Identifier: Apache-2.0
"""Secrets and ConfigMaps that pods take values from: what is missing is named, what arrives is noticed, what changes
replaces the pods, and nothing else does."""

from functools import partial
from typing import Any

import pytest

from kubeagents_api.labels import RESTARTED_AT
from tests.integration.operator import manifests
from tests.integration.operator.states import condition, wait_for
from tests.support.cluster import Cluster, KubectlError, Object
from tests.support.eventually import eventually
from tests.support.kstatus import kstatus
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

AT_ONCE = 10.0
"""Seconds in which no retry and no deadline could have been the reason, on a slow machine."""
CONFIG_HASH = "kubeagents.dev/config-hash"
TOKEN = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "model", "key": "key"}}}
TONE = {"name": "TONE", "valueFrom": {"configMapKeyRef": {"name": "tones", "key": "tone", "optional": True}}}


def model(**values: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model"}, "stringData": values}


def tones(**values: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tones"}, "data": values}


def central(**spec: Any) -> Object:
    return {
        "apiVersion": manifests.API_VERSION,
        "kind": "CentralAgent",
        "metadata": {"name": "front"},
        "spec": {"queueRefs": [{"name": manifests.QUEUE}], **spec},
    }


@pytest.fixture
def base(cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code())


def hash_of(cluster: Cluster, namespace: str, deployment: str) -> str:
    template = cluster.get(namespace, "deployment", deployment)["spec"]["template"]
    found: str = template["metadata"]["annotations"][CONFIG_HASH]
    return found


def deployed(cluster: Cluster, namespace: str, deployment: str) -> str:
    """Its hash, once there is one."""
    names = {one["metadata"]["name"] for one in cluster.objects(namespace, "deployments")}
    assert deployment in names, names
    return hash_of(cluster, namespace, deployment)


@pytest.mark.parametrize(
    ("manifest", "target", "deployment"),
    [
        (manifests.agent(env=[TOKEN, TONE]), "agent/worker", "worker-agent"),
        (central(env=[TOKEN, TONE]), "centralagent/front", "front-central"),
    ],
    ids=["agent", "central"],
)
def test_only_a_value_that_is_used_replaces_the_pods(
    base: None, cluster: Cluster, namespace: str, manifest: Object, target: str, deployment: str
) -> None:
    cluster.apply(namespace, manifest)
    missing = wait_for(cluster, namespace, target, "Ready", status="False", reason="SecretNotFound")
    assert 'Secret "model" does not exist' in missing["message"]
    assert "spec.env[0].valueFrom.secretKeyRef.name" in missing["message"]
    assert kstatus(cluster.get(namespace, *target.split("/"))) == "InProgress"
    assert not cluster.objects(namespace, "deployments"), "pods that could not start"

    cluster.apply(namespace, model(other="x"))
    keyless = eventually(lambda: "has no key" in _message(cluster, namespace, target), what="the key is named")
    assert keyless

    cluster.apply(namespace, model(key="one", other="x"))
    first = eventually(lambda: deployed(cluster, namespace, deployment), what="a Deployment")

    cluster.apply(namespace, model(key="one", other="y"), tones(loudness="high"))
    cluster.apply(namespace, model(key="two", other="y"))
    second = eventually(lambda: _other(cluster, namespace, deployment, first), what="new pods for a new token")

    cluster.apply(namespace, tones(tone="friendly"))
    eventually(lambda: _other(cluster, namespace, deployment, second), what="new pods for the optional value")
    generation = cluster.get(namespace, "deployment", deployment)["metadata"]["generation"]
    assert generation == 3, "one for each change of a value that is used, and none for the others"


def test_pods_go_on_while_a_secret_that_was_there_is_missing(base: None, cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, model(key="one"), manifests.agent(env=[TOKEN]))
    first = eventually(lambda: deployed(cluster, namespace, "worker-agent"), what="a Deployment")

    cluster.kubectl("-n", namespace, "delete", "secret", "model")
    wait_for(cluster, namespace, "agent/worker", "Ready", status="False", reason="SecretNotFound")
    assert hash_of(cluster, namespace, "worker-agent") == first

    cluster.apply(namespace, model(key="one"))
    eventually(lambda: _reason(cluster, namespace, "agent/worker") != "SecretNotFound", what="the Secret is noticed")
    assert hash_of(cluster, namespace, "worker-agent") == first


def test_a_missing_pull_secret_or_config_map_is_named_before_a_kubelet_could(
    base: None, cluster: Cluster, namespace: str
) -> None:
    cluster.apply(namespace, manifests.agent("pulls", imagePullSecrets=[{"name": "registry"}]))
    cluster.apply(namespace, manifests.agent("codes", code={"configMapRef": {"name": "nowhere"}}))

    pulls = wait_for(cluster, namespace, "agent/pulls", "Ready", status="False", reason="SecretNotFound")
    codes = wait_for(cluster, namespace, "agent/codes", "Ready", status="False", reason="DependencyNotFound")
    assert "spec.imagePullSecrets[0].name" in pulls["message"]
    assert 'ConfigMap "nowhere"' in codes["message"]
    assert "spec.code.configMapRef.name" in codes["message"]


def test_what_is_missing_stalls_after_the_deadline_and_its_arrival_ends_that(
    base: None, cluster: Cluster, namespace: str
) -> None:
    cluster.apply(namespace, manifests.agent(env=[TOKEN], progressDeadlineSeconds=10))
    wait_for(cluster, namespace, "agent/worker", "Stalled", status="True", reason="SecretNotFound")
    assert kstatus(cluster.get(namespace, "agent", "worker")) == "Failed"

    cluster.apply(namespace, model(key="one"))
    wait_for(cluster, namespace, "agent/worker", "Stalled", status="False")


def test_a_missing_queue_is_a_reason_and_its_arrival_is_noticed_at_once(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    cluster.apply(namespace, manifests.code(), manifests.agent(), central())
    for target in ("agent/worker", "centralagent/front"):
        missing = wait_for(cluster, namespace, target, "Ready", status="False", reason="DependencyNotFound")
        assert 'TaskQueue "work": does not exist' in missing["message"]
    assert not cluster.objects(namespace, "deployments")

    cluster.apply(namespace, manifests.queue())
    for target in ("agent/worker", "centralagent/front"):
        wait_for(cluster, namespace, target, "Ready", status="False", reason="DependencyNotReady", seconds=AT_ONCE)
    cluster.apply(namespace, manifests.secret(redis_server.url))
    eventually(lambda: deployed(cluster, namespace, "worker-agent"), what="a Deployment", timeout=AT_ONCE)
    eventually(lambda: deployed(cluster, namespace, "front-central"), what="another one", timeout=AT_ONCE)


def test_a_central_agent_that_comes_and_goes_is_noticed_by_the_schedules_of_its_queue(
    base: None, cluster: Cluster, namespace: str
) -> None:
    poll = {"name": "poll", "everySeconds": 3600, "task": {"type": "poll"}}
    cluster.apply(namespace, manifests.queue(schedules=[poll]))
    found = wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="False", reason="NoCentralAgent")
    assert "spec.queueRefs" in found["message"]

    cluster.apply(namespace, central())
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="True", seconds=AT_ONCE)
    cluster.apply(namespace, central(suspend=True))
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="False", seconds=AT_ONCE)
    cluster.apply(namespace, central(suspend=False))
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="True", seconds=AT_ONCE)
    cluster.kubectl("-n", namespace, "delete", "centralagent/front")
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="False", seconds=AT_ONCE)


def _message(cluster: Cluster, namespace: str, target: str) -> str:
    return str(condition(cluster, namespace, target, "Ready").get("message", ""))


def _reason(cluster: Cluster, namespace: str, target: str) -> str:
    return str(condition(cluster, namespace, target, "Ready").get("reason", ""))


def _other(cluster: Cluster, namespace: str, deployment: str, than: str) -> str:
    found = hash_of(cluster, namespace, deployment)
    assert found != than, "still the same"
    return found


def test_the_secrets_with_api_keys_are_named_when_missing_and_never_replace_pods(
    base: None, cluster: Cluster, namespace: str
) -> None:
    root = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
    cluster.apply(namespace, central(access={"principals": [root]}))
    missing = wait_for(cluster, namespace, "centralagent/front", "Ready", status="False", reason="SecretNotFound")
    assert 'Secret "root-keys" does not exist' in missing["message"]
    assert 'spec.access.principals[name="root"].keysFrom' in missing["message"]

    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "root-keys"}}
    cluster.apply(namespace, {**secret, "stringData": {"first": "the-first-key-of-root"}})
    eventually(lambda: deployed(cluster, namespace, "front-central"), what="a Deployment")
    cluster.apply(namespace, {**secret, "stringData": {"second": "the-second-key-of-root"}})
    cluster.kubectl("-n", namespace, "annotate", "centralagent/front", f"{RESTARTED_AT}=now")
    eventually(lambda: _handled(cluster, namespace) == "now", what="a later change is acted on")
    generation = cluster.get(namespace, "deployment", "front-central")["metadata"]["generation"]
    assert generation == 2, "the one for the restart"


def test_the_secrets_with_certificates_are_named_when_missing_and_never_replace_pods(
    base: None, cluster: Cluster, namespace: str
) -> None:
    grant = {"claim": "groups", "values": ["platform"], "role": "admin"}
    issuer = {"name": "corp", "url": "https://login.example.com", "audiences": ["kubeagents"], "grants": [grant]}
    cluster.apply(
        namespace,
        central(
            tls={"secretRef": {"name": "front-tls"}, "clientCa": {"secretRef": {"name": "clients-ca"}}},
            access={"issuers": [{**issuer, "ca": {"secretRef": {"name": "corp-ca"}}}]},
        ),
    )
    steps = (
        ("corp-ca", 'spec.access.issuers[name="corp"].ca.secretRef.name', {"ca.crt": "one"}),
        ("front-tls", "spec.tls.secretRef.name", {"tls.crt": "one"}),
        ("front-tls", 'has no key "tls.key": add it, or correct spec.tls.secretRef', {"tls.crt": "1", "tls.key": "1"}),
        ("clients-ca", "spec.tls.clientCa.secretRef.name", {"ca.crt": "one"}),
    )
    for name, sentence, content in steps:
        eventually(partial(_named, cluster, namespace, name, sentence), what=f"{name} is missed")
        cluster.apply(namespace, secret(name, content))
    eventually(lambda: deployed(cluster, namespace, "front-central"), what="a Deployment")
    status = cluster.get(namespace, "centralagent", "front")["status"]
    assert status["endpoint"] == f"https://front-central.{namespace}.svc:80"

    cluster.apply(namespace, secret("front-tls", {"tls.crt": "two", "tls.key": "two"}))
    cluster.apply(namespace, secret("corp-ca", {"ca.crt": "two"}))
    cluster.kubectl("-n", namespace, "annotate", "centralagent/front", f"{RESTARTED_AT}=now")
    eventually(lambda: _handled(cluster, namespace) == "now", what="a later change is acted on")
    generation = cluster.get(namespace, "deployment", "front-central")["metadata"]["generation"]
    assert generation == 2, "the one for the restart"


def secret(name: str, content: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}


def _named(cluster: Cluster, namespace: str, name: str, sentence: str) -> bool:
    message = _message(cluster, namespace, "centralagent/front")
    assert f'Secret "{name}"' in message, message
    assert sentence in message, message
    return True


def test_access_without_an_admin_is_refused_with_what_to_write(base: None, cluster: Cluster, namespace: str) -> None:
    viewer = {"name": "vera", "role": "viewer", "keysFrom": {"name": "vera-keys"}}
    with pytest.raises(KubectlError, match="no admin of all queues and Agents"):
        cluster.apply(namespace, central(access={"principals": [viewer]}))


def _handled(cluster: Cluster, namespace: str) -> str | None:
    status = cluster.get(namespace, "centralagent", "front").get("status", {})
    handled: str | None = status.get("handled", {}).get("restartedAt")
    return handled
