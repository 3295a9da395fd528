# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from typing import Any

import pytest

from kubeagents_api.labels import CONFIG, CONFIG_HASH, RESTART_HASH, REVISION, TEMPLATE_HASH
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired.agent import AgentInputs, children
from tests.unit.operator.objects import DEFAULTS, access, agent_spec, owner

OWNER_REFERENCE = {
    "apiVersion": "kubeagents.dev/v1alpha1",
    "kind": "Agent",
    "name": "echo",
    "uid": "uid-1",
    "controller": True,
    "blockOwnerDeletion": True,
}
LABELS = {
    "app.kubernetes.io/name": "kubeagents-agent",
    "app.kubernetes.io/instance": "echo",
    "app.kubernetes.io/component": "agent",
    "app.kubernetes.io/managed-by": "kubeagents",
    "kubeagents.dev/kind": "Agent",
    "kubeagents.dev/name": "echo",
}
SELECTOR = {"kubeagents.dev/kind": "Agent", "kubeagents.dev/name": "echo"}


def made(code_digest: str = "", digest: str = "d1", queue: TaskQueueSpec | None = None, **spec: Any) -> dict[str, Any]:
    """The children by kind."""
    inputs = AgentInputs(
        owner=owner(),
        spec=agent_spec(**spec),
        queue=queue or TaskQueueSpec(),
        access=access(digest=digest),
        replicas=int(spec.get("replicas", 1)),
        code_digest=code_digest,
    )
    return {manifest["kind"]: manifest for manifest in children(inputs, DEFAULTS)}


def template(manifests: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["Deployment"]["spec"]["template"]
    return found


def configuration(manifests: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(template(manifests)["metadata"]["annotations"][CONFIG])
    return found


def container(manifests: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template(manifests)["spec"]["containers"][0]
    return found


def test_what_a_pod_needs_is_written_before_the_pods() -> None:
    assert list(made()) == ["ServiceAccount", "Service", "Deployment"]


def test_every_child_says_whose_it_is() -> None:
    for manifest in made().values():
        assert manifest["metadata"] == {
            "name": "echo-agent",
            "namespace": "shop",
            "labels": LABELS,
            "ownerReferences": [OWNER_REFERENCE],
        }


def test_the_pods_of_an_agent() -> None:
    deployment = made(replicas=3, drainSeconds=60, progressDeadlineSeconds=120)["Deployment"]
    annotations = deployment["spec"]["template"]["metadata"].pop("annotations")

    assert set(annotations) == {CONFIG, CONFIG_HASH, TEMPLATE_HASH, REVISION, RESTART_HASH}
    assert deployment["spec"] == {
        "replicas": 3,
        "selector": {"matchLabels": SELECTOR},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "progressDeadlineSeconds": 120,
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "serviceAccountName": "echo-agent",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "terminationGracePeriodSeconds": 75,
                "containers": [
                    {
                        "name": "runtime",
                        "image": "runtime:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-m", "agent_runtime"],
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        "env": [
                            {"name": "KUBEAGENTS_CONFIG", "value": "/etc/kubeagents/config.json"},
                            {
                                "name": "KUBEAGENTS_INSTANCE",
                                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
                            },
                            {"name": "KUBEAGENTS_TERMINATION_LOG", "value": "/dev/termination-log"},
                            {
                                "name": "KUBEAGENTS_REVISION",
                                "valueFrom": {
                                    "fieldRef": {
                                        "apiVersion": "v1",
                                        "fieldPath": "metadata.annotations['kubeagents.dev/revision']",
                                    }
                                },
                            },
                            {
                                "name": "KUBEAGENTS_QUEUE_0_URL",
                                "valueFrom": {"secretKeyRef": {"name": "work-redis", "key": "url"}},
                            },
                        ],
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/etc/kubeagents", "readOnly": True},
                            {"name": "tmp", "mountPath": "/tmp"},
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": True,
                        },
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "startupProbe": {
                            "httpGet": {"path": "/healthz", "port": "http"},
                            "timeoutSeconds": 5,
                            "periodSeconds": 1,
                            "failureThreshold": 300,
                        },
                        "livenessProbe": {
                            "httpGet": {"path": "/healthz", "port": "http"},
                            "timeoutSeconds": 5,
                            "periodSeconds": 10,
                            "failureThreshold": 3,
                        },
                        "readinessProbe": {
                            "httpGet": {"path": "/readyz", "port": "http"},
                            "timeoutSeconds": 5,
                            "periodSeconds": 3,
                            "failureThreshold": 2,
                        },
                    }
                ],
                "volumes": [
                    {
                        "name": "config",
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "config.json",
                                    "fieldRef": {
                                        "apiVersion": "v1",
                                        "fieldPath": "metadata.annotations['kubeagents.dev/config']",
                                    },
                                }
                            ]
                        },
                    },
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        },
    }


def test_an_agent_has_an_identity_that_opens_nothing() -> None:
    assert made()["ServiceAccount"]["automountServiceAccountToken"] is False


def test_the_service_leads_to_the_http_port() -> None:
    assert made()["Service"]["spec"] == {
        "type": "ClusterIP",
        "selector": SELECTOR,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http"}],
    }


def test_the_runtime_configuration_is_part_of_the_pod_template() -> None:
    config = configuration(made(concurrency=5))

    assert (config["kind"], config["handler"], config["concurrency"]) == ("Agent", "echo:handle", 5)
    assert config["queue"]["name"] == "work"


def test_code_from_a_config_map_is_mounted() -> None:
    pods = made(code={"configMapRef": {"name": "my-code"}})

    assert {"name": "code", "configMap": {"name": "my-code"}} in template(pods)["spec"]["volumes"]
    assert {"name": "code", "mountPath": "/agent/code", "readOnly": True} in container(pods)["volumeMounts"]
    assert configuration(pods)["codePath"] == "/agent/code"


def test_what_the_user_says_about_the_pods_is_taken_over() -> None:
    pods = made(
        image="mine:2",
        imagePullPolicy="Always",
        imagePullSecrets=[{"name": "registry"}],
        env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        resources={"requests": {"cpu": "1000m", "memory": "0.5Gi"}, "limits": {}},
        nodeSelector={"disk": "ssd"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    spec, runtime = template(pods)["spec"], container(pods)

    assert (runtime["image"], runtime["imagePullPolicy"]) == ("mine:2", "Always")
    assert runtime["env"][-2:] == [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    assert runtime["resources"] == {"requests": {"cpu": "1", "memory": "512Mi"}}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


@pytest.mark.parametrize(
    "change",
    [
        {"concurrency": 7},
        {"digest": "d2"},
        {"code_digest": "c2", "code": {"configMapRef": {"name": "my-code"}}},
        {"queue": TaskQueueSpec(lease_seconds=60.0)},
    ],
    ids=["the configuration", "the redis url", "the code", "a policy of the queue"],
)
def test_the_pods_roll_when_what_they_read_at_the_start_changes(change: dict[str, Any]) -> None:
    base = made(code_digest="c1", code=change.get("code")) if "code" in change else made()

    annotation = template(base)["metadata"]["annotations"][CONFIG_HASH]
    assert template(made(**change))["metadata"]["annotations"][CONFIG_HASH] != annotation


def test_scaling_rolls_no_pods() -> None:
    assert template(made(replicas=1)) == template(made(replicas=9))


def test_the_template_hash_tells_templates_apart() -> None:
    def of(pods: dict[str, Any]) -> str:
        word: str = template(pods)["metadata"]["annotations"][TEMPLATE_HASH]
        return word

    assert of(made()) == of(made(replicas=9))
    assert of(made()) != of(made(image="mine:2"))


def test_no_manifest_has_an_empty_list_or_map_that_the_api_server_would_drop() -> None:
    def empty(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            found = [path] if not value and not path.endswith("emptyDir") else []
            return found + [one for key, item in value.items() for one in empty(item, f"{path}.{key}")]
        if isinstance(value, list):
            return ([] if value else [path]) + [one for item in value for one in empty(item, f"{path}[]")]
        return []

    assert empty(made(env=[], tolerations=[], resources={}), "") == []


@pytest.mark.parametrize(
    "queue",
    [
        {"paused": True},
        {"closed": True},
        {"schedules": [{"name": "tick", "everySeconds": 5}]},
    ],
)
def test_a_change_of_the_queue_that_is_not_for_the_pods_leaves_them_alone(queue: dict[str, Any]) -> None:
    assert made(queue=TaskQueueSpec.model_validate(queue)) == made()


@pytest.mark.parametrize(
    "queue",
    [
        {"limits": {"concurrency": 5}},
        {"taskTtlSeconds": 60},
        {"shards": 2},
        {"retry": {"nonRetryableErrors": ["ValueError"]}},
    ],
)
def test_a_change_of_a_policy_that_the_pods_hold_rolls_them(queue: dict[str, Any]) -> None:
    changed = made(queue=TaskQueueSpec.model_validate(queue))

    assert template(changed)["metadata"]["annotations"] != template(made())["metadata"]["annotations"]


def test_what_an_agent_can_do_and_how_it_is_called_reaches_its_pods() -> None:
    manifests = made(capabilities=["ocr"], batch={"maxTasks": 8})

    config = configuration(manifests)
    assert config["capabilities"] == ["ocr"]
    assert config["batch"] == {"maxTasks": 8, "waitSeconds": 0.0}


def test_a_restart_that_is_asked_for_rolls_the_pods() -> None:
    inputs = AgentInputs(owner=owner(), spec=agent_spec(), queue=TaskQueueSpec(), access=access(), replicas=1)
    before, after, again = (
        template({m["kind"]: m for m in children(replace(inputs, restarted_at=asked), DEFAULTS)})
        for asked in ("", "noon", "noon")
    )
    assert before != after == again


def test_without_endpoints_nothing_but_the_probes_is_reached() -> None:
    found = made()
    assert [port["name"] for port in container(found)["ports"]] == ["http"]
    assert not any("kubeagents-keys" in mount["mountPath"] for mount in container(found).get("volumeMounts", ()))


def test_endpoints_have_ports_on_pods_and_service_and_the_keys_of_who_may_use_them() -> None:
    root = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
    found = made(endpoints=["http", "grpc"], access={"principals": [root]}, tls={"secretRef": {"name": "cert"}})
    assert {port["name"]: port["containerPort"] for port in container(found)["ports"]} == {"http": 8080, "grpc": 9090}
    assert {port["name"]: port["port"] for port in found["Service"]["spec"]["ports"]} == {"http": 8080, "grpc": 9090}
    told = configuration(found)
    assert told["endpoints"] == {"http": 0, "grpc": 9090}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(found)["volumeMounts"]}
    secrets = {
        one["name"]: one["secret"]["secretName"] for one in template(found)["spec"]["volumes"] if "secret" in one
    }
    assert secrets[mounts[f"{told['keysPath']}/root"]] == "root-keys"
    assert "cert" in secrets.values()
    assert container(found)["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
