# SPDX-License-Identifier: Apache-2.0
"""The Secret with the key of a CentralAgent whose manifest says nothing of access."""

import base64
import json
from typing import Any

import pytest

from tests.e2e import workload
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator
from tests.integration.operator.states import wait_for
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

SECRET = "front-central-admin"  # noqa: S105 - a name
WRITES = "kubeagents_operator_api_writes_total"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def base(cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue())


def deploy(cluster: Cluster, namespace: str, **spec: Any) -> str:
    """A CentralAgent; the key that is made for it."""
    cluster.apply(namespace, workload.central_agent(**spec))
    eventually(lambda: deployment(cluster, namespace), what="a Deployment")
    return key(cluster, namespace)


def key(cluster: Cluster, namespace: str) -> str:
    found = cluster.admin_key(namespace, "front")
    assert found is not None, "there is no Secret"
    return found


def deployment(cluster: Cluster, namespace: str) -> Object:
    found: Object = cluster.get(namespace, "deployment", "front-central")["spec"]["template"]
    return found


def patch(cluster: Cluster, namespace: str, target: str, content: Object) -> None:
    cluster.kubectl("-n", namespace, "patch", target, "--type=merge", "-p", json.dumps(content))


def secrets_mounted(template: Object) -> list[str]:
    return [one["secret"]["secretName"] for one in template["spec"]["volumes"] if "secret" in one]


def test_the_key_is_made_once_and_a_restart_of_the_operator_changes_and_writes_nothing(
    base: None, cluster: Cluster, namespace: str, operator: OperatorProcess, start_operator: StartOperator
) -> None:
    first = deploy(cluster, namespace)
    assert len(first) >= 43
    assert secrets_mounted(deployment(cluster, namespace)) == [SECRET]
    secret = cluster.get(namespace, "secret", SECRET)
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("CentralAgent", "front", True)
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubeagents"
    assert operator.metric(WRITES, kind="Secret") == 1
    operator.stop()

    again = start_operator("operator-2").leading()

    patch(cluster, namespace, "centralagent/front", {"spec": {"replicas": 2}})
    eventually(lambda: cluster.get(namespace, "deployment", "front-central")["spec"]["replicas"] == 2, what="a pass")
    assert again.metric(WRITES, kind="Secret") == 0
    assert cluster.get(namespace, "secret", SECRET) == secret


def test_one_that_is_deleted_is_made_anew_and_replaces_no_pod(base: None, cluster: Cluster, namespace: str) -> None:
    first = deploy(cluster, namespace)
    before = deployment(cluster, namespace)
    cluster.kubectl("-n", namespace, "delete", "secret", SECRET)
    second = eventually(lambda: cluster.admin_key(namespace, "front"), what="another key")
    assert second != first
    assert deployment(cluster, namespace) == before


def test_a_key_that_somebody_puts_there_stays_and_one_that_opens_nothing_does_not(
    base: None, cluster: Cluster, namespace: str
) -> None:
    first = deploy(cluster, namespace)
    theirs = {"key": encoded("a-key-of-their-own\n"), "another": encoded("one-more-key-of-theirs")}
    unlabelled = {"labels": {"kubeagents.dev/name": None}}
    patch(cluster, namespace, f"secret/{SECRET}", {"data": theirs, "metadata": unlabelled})

    def ours_again() -> bool:
        return "kubeagents.dev/name" in cluster.get(namespace, "secret", SECRET)["metadata"]["labels"]

    eventually(ours_again, what="the operator has looked after it")
    assert cluster.get(namespace, "secret", SECRET)["data"] == theirs

    patch(cluster, namespace, f"secret/{SECRET}", {"data": {"key": encoded("too short")}})
    third = eventually(lambda: (now := key(cluster, namespace)) != "too short" and now, what="a key that is one")
    assert third not in (first, "a-key-of-their-own\n")
    assert cluster.get(namespace, "secret", SECRET)["data"]["another"] == theirs["another"]


def test_it_goes_when_the_manifest_says_whose_keys_there_are_and_comes_back_as_another(
    base: None, cluster: Cluster, namespace: str
) -> None:
    first = deploy(cluster, namespace)
    root = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
    patch(cluster, namespace, "centralagent/front", {"spec": {"access": {"principals": [root]}}})
    wait_for(cluster, namespace, "centralagent/front", "Ready", status="False", reason="SecretNotFound")
    assert key(cluster, namespace) == first, "nobody is locked out while the other keys are not there"

    cluster.kubectl("-n", namespace, "create", "secret", "generic", "root-keys", "--from-literal=a=the-key-of-the-root")
    eventually(lambda: cluster.admin_key(namespace, "front") is None, what="the Secret is gone")
    assert secrets_mounted(deployment(cluster, namespace)) == ["root-keys"]

    patch(cluster, namespace, "centralagent/front", {"spec": {"access": None}})
    second = eventually(lambda: cluster.admin_key(namespace, "front"), what="a key")
    assert second != first
    eventually(lambda: secrets_mounted(deployment(cluster, namespace)) == [SECRET], what="it is mounted")


def test_a_secret_of_somebody_else_is_not_taken_over_and_opens_nothing(
    base: None, cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl("-n", namespace, "create", "secret", "generic", SECRET, "--from-literal=key=a-key-of-somebody-else")
    before = cluster.get(namespace, "secret", SECRET)
    cluster.apply(namespace, workload.central_agent())
    stalled = wait_for(cluster, namespace, "centralagent/front", "Stalled", status="True", reason="CreateForbidden")
    assert f"Secret {SECRET} exists already and does not belong to this CentralAgent" in stalled["message"]
    assert cluster.get(namespace, "secret", SECRET) == before
    assert not cluster.objects(namespace, "deployments", "kubeagents.dev/name=front")
