# SPDX-License-Identifier: Apache-2.0
"""TaskQueues of other namespaces: nothing of them is told without a grant, it works with one, and ends with it."""

import base64
import json
from functools import partial
from typing import Any

import pytest

from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator
from tests.integration.operator.states import condition, wait_for
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

CHILDREN = "deployments,services,serviceaccounts,secrets,configmaps,roles,rolebindings"


@pytest.fixture
def serving(start_operator: StartOperator, namespace: str, other_namespace: str) -> OperatorProcess:
    """An operator for both."""
    return start_operator(KUBEAGENTS_WATCH_NAMESPACES=f"{namespace},{other_namespace}").leading()


def agent(home: str, **spec: Any) -> Object:
    return manifests.agent(queueRef={"name": manifests.QUEUE, "namespace": home}, **spec)


def central(home: str) -> Object:
    spec = {"queueRefs": [{"name": manifests.QUEUE, "namespace": home}]}
    return {"apiVersion": manifests.API_VERSION, "kind": "CentralAgent", "metadata": {"name": "front"}, "spec": spec}


def everything(cluster: Cluster, namespace: str) -> str:
    """All that somebody who may read all of a namespace can see."""
    kinds = f"{CHILDREN},pods,events,agents,centralagents,leases"
    found = cluster.objects(namespace, kinds)
    secrets = [
        base64.b64decode(text).decode() for one in found for text in (one.get("data") or {}).values() if _b64(text)
    ]
    return json.dumps(found) + "\n".join(secrets)


def _b64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True).decode()
    except ValueError:
        return False
    return True


def made(cluster: Cluster, namespace: str) -> set[str]:
    """The children that the operator has made there."""
    ours = cluster.objects(namespace, CHILDREN, "app.kubernetes.io/managed-by=kubeagents")
    return {f"{one['kind']}/{one['metadata']['name']}" for one in ours}


def url_in(cluster: Cluster, namespace: str, name: str) -> str:
    secret = next((one for one in cluster.objects(namespace, "secrets") if one["metadata"]["name"] == name), None)
    assert secret is not None, f"no Secret {name}"
    return base64.b64decode(secret["data"]["queue-0"]).decode()


def test_without_a_grant_a_namespace_learns_nothing(
    cluster: Cluster, namespace: str, other_namespace: str, redis_server: RedisServer, serving: OperatorProcess
) -> None:
    url = redis_server.url
    cluster.apply(namespace, manifests.secret(url), manifests.queue(allowedNamespaces=["elsewhere"]))
    wait_for(cluster, namespace, "taskqueue/work", "Ready", status="True")
    nowhere = agent(namespace, code=None)
    nowhere["metadata"]["name"] = "nowhere"
    nowhere["spec"]["queueRef"]["name"] = "no-such-queue"
    cluster.apply(other_namespace, manifests.code(), agent(namespace), central(namespace), nowhere)

    refused = wait_for(cluster, other_namespace, "agent/worker", "Ready", status="False", reason="ReferenceNotGranted")
    wait_for(cluster, other_namespace, "centralagent/front", "Ready", status="False", reason="ReferenceNotGranted")
    missing = wait_for(cluster, other_namespace, "agent/nowhere", "Ready", status="False", reason="ReferenceNotGranted")

    assert "spec.allowedNamespaces" in refused["message"]
    assert "spec.queueRef" in refused["message"]
    assert missing["message"].replace("no-such-queue", "work") == refused["message"], "whether it exists is not told"
    assert made(cluster, other_namespace) == set()
    assert url not in everything(cluster, other_namespace)
    assert f":{redis_server.port}" not in everything(cluster, other_namespace)


def test_a_grant_is_enough_and_its_withdrawal_ends_it(
    cluster: Cluster, namespace: str, other_namespace: str, redis_server: RedisServer, serving: OperatorProcess
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(allowedNamespaces=[other_namespace]))
    cluster.apply(other_namespace, manifests.code(), agent(namespace), central(namespace))

    for name in ("worker-agent", "front-central"):
        assert eventually(partial(url_in, cluster, other_namespace, name), what="the URL") == redis_server.url
    eventually(lambda: "Deployment/worker-agent" in made(cluster, other_namespace), what="a Deployment")
    pod = cluster.get(other_namespace, "deployment", "worker-agent")["spec"]["template"]["spec"]["containers"][0]
    variable = next(one for one in pod["env"] if one["name"] == "KUBEAGENTS_QUEUE_0_URL")
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "worker-agent", "key": "queue-0"}

    before, other = _hash(cluster, other_namespace), f"redis://127.0.0.1:{redis_server.port}/1"
    cluster.apply(namespace, manifests.secret(other))
    eventually(lambda: _hash(cluster, other_namespace) != before, what="the pods are replaced when the URL changes")
    assert url_in(cluster, other_namespace, "worker-agent") == other

    cluster.apply(namespace, manifests.queue(allowedNamespaces=[]))
    wait_for(cluster, other_namespace, "agent/worker", "Ready", status="False", reason="ReferenceNotGranted")
    eventually(lambda: made(cluster, other_namespace) == set(), what="nothing is left, neither the Secret nor pods")
    assert redis_server.url not in everything(cluster, other_namespace)

    cluster.apply(namespace, manifests.queue(allowedNamespaces=["*"]))
    eventually(lambda: url_in(cluster, other_namespace, "worker-agent"), what="the URL again")


def test_only_those_who_may_count_as_users_of_a_queue(
    cluster: Cluster, namespace: str, other_namespace: str, redis_server: RedisServer, serving: OperatorProcess
) -> None:
    schedule = {"name": "poll", "everySeconds": 3600, "task": {"type": "poll"}}
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(schedules=[schedule]))
    cluster.apply(other_namespace, central(namespace))
    wait_for(cluster, other_namespace, "centralagent/front", "Ready", status="False", reason="ReferenceNotGranted")
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="False")

    cluster.apply(namespace, manifests.queue(schedules=[schedule], allowedNamespaces=[other_namespace]))
    wait_for(cluster, namespace, "taskqueue/work", "SchedulesServed", status="True")


def test_a_namespace_that_is_not_served_is_named(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess
) -> None:
    cluster.apply(namespace, manifests.code(), agent("default"))

    found = wait_for(cluster, namespace, "agent/worker", "Ready", status="False", reason="DependencyNotFound")
    assert "operator.watchNamespaces" in found["message"]
    assert condition(cluster, namespace, "agent/worker", "QueueConnected")["reason"] == "DependencyNotFound"


def _hash(cluster: Cluster, namespace: str) -> str:
    template = cluster.get(namespace, "deployment", "worker-agent")["spec"]["template"]
    found: str = template["metadata"]["annotations"]["kubeagents.dev/config-hash"]
    return found
