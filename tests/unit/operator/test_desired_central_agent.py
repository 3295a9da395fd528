# SPDX-License-Identifier: Apache-2.0
import base64
import json
from typing import Any

from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired.central_agent import CentralAgentInputs, children
from tests.unit.operator.objects import DEFAULTS, access, owner


def made(*, work: TaskQueueSpec | None = None, admin_key: str | None = None, **spec: Any) -> dict[str, Any]:
    """The children by kind."""
    inputs = CentralAgentInputs(
        owner=owner("CentralAgent", "hub"),
        spec=CentralAgentSpec.model_validate({"queueRefs": [{"name": "work"}, {"name": "mail"}], **spec}),
        queues={"work": work or TaskQueueSpec(), "mail": TaskQueueSpec()},
        access=(access(0), access(1, of="mail-redis")),
        admin_key=admin_key,
    )
    return {manifest["kind"]: manifest for manifest in children(inputs, DEFAULTS)}


def test_the_children_of_a_central_agent() -> None:
    names = {kind: manifest["metadata"]["name"] for kind, manifest in made().items()}

    assert names == {
        "ServiceAccount": "hub-central",
        "Role": "hub-central",
        "RoleBinding": "hub-central",
        "Lease": "hub-leader",
        "ConfigMap": "hub-central",
        "Service": "hub-central",
        "Deployment": "hub-central",
    }


def test_its_pods_may_compete_for_their_own_lease_and_nothing_else() -> None:
    manifests = made()

    assert manifests["Role"]["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["hub-leader"],
            "verbs": ["get", "update", "patch"],
        }
    ]
    assert manifests["RoleBinding"]["roleRef"]["name"] == "hub-central"
    assert manifests["RoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": "hub-central", "namespace": "shop"}
    ]
    assert manifests["Deployment"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_the_spec_of_the_lease_belongs_to_the_leader() -> None:
    assert "spec" not in made()["Lease"]


def test_each_queue_has_its_url() -> None:
    env = made()["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    urls = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in env if one["name"].endswith("_URL")}

    assert urls == {"KUBEAGENTS_QUEUE_0_URL": "work-redis", "KUBEAGENTS_QUEUE_1_URL": "mail-redis"}


def test_the_configuration_names_queues_and_lease() -> None:
    config = json.loads(made(leaseDurationSeconds=9)["ConfigMap"]["data"]["config.json"])

    assert [queue["name"] for queue in config["queues"]] == ["work", "mail"]
    assert config["leader"] == {"type": "lease", "leaseName": "hub-leader", "leaseDurationSeconds": 9}


def test_the_service_is_what_the_user_asks_for() -> None:
    spec = made(service={"type": "NodePort", "port": 8000})["Service"]["spec"]

    assert spec["type"] == "NodePort"
    assert spec["ports"] == [
        {"name": "http", "port": 8000, "protocol": "TCP", "targetPort": "http"},
        {"name": "grpc", "port": 9090, "protocol": "TCP", "targetPort": "grpc"},
    ]


def test_protocols_that_are_not_served_have_no_port() -> None:
    spec = made(endpoints=["http", "zeromq"])["Service"]["spec"]

    assert {port["name"]: port["port"] for port in spec["ports"]} == {"http": 80, "zeromq": 5555}


def test_pausing_or_closing_a_queue_leaves_its_pods_alone() -> None:
    assert made(work=TaskQueueSpec(paused=True, closed=True)) == made()


def test_the_schedules_of_its_queues_reach_the_pods_and_a_change_rolls_them() -> None:
    work = TaskQueueSpec.model_validate({"schedules": [{"name": "tick", "everySeconds": 5}]})
    manifests = made(work=work)

    config = json.loads(manifests["ConfigMap"]["data"]["config.json"])
    assert [schedule["name"] for schedule in config["schedules"]["work"]] == ["tick"]
    assert manifests["Deployment"] != made()["Deployment"]


def test_keys_are_files_of_their_secrets_and_replace_no_pods() -> None:
    def principal(name: str, role: str, secret: str) -> dict[str, Any]:
        return {"name": name, "role": role, "keysFrom": {"name": secret}}

    access = {"principals": [principal("root", "admin", "root-keys"), principal("ci@shop", "viewer", "ci-keys")]}
    manifests = made(access=access)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"] if one["name"] in volumes}

    assert volumes == {"keys-0": "root-keys", "keys-1": "ci-keys"}
    assert mounts == {"keys-0": "/etc/kubeagents-keys/root", "keys-1": "/etc/kubeagents-keys/ci@shop"}
    config = json.loads(manifests["ConfigMap"]["data"]["config.json"])
    assert config["keysPath"] == "/etc/kubeagents-keys"
    assert [one["name"] for one in config["access"]["principals"]] == ["root", "ci@shop"]


def test_without_access_there_is_one_admin_whose_key_is_in_a_secret_and_in_nothing_else() -> None:
    manifests = made(admin_key="a-key-that-was-made-up")
    secret = manifests.pop("Secret")
    config = json.loads(manifests["ConfigMap"]["data"]["config.json"])
    pod = manifests["Deployment"]["spec"]["template"]["spec"]

    assert secret["metadata"]["name"] == "hub-central-admin"
    assert secret["metadata"]["ownerReferences"][0]["name"] == "hub"
    assert {entry: base64.b64decode(text) for entry, text in secret["data"].items()} == {
        "key": b"a-key-that-was-made-up"
    }
    assert config["keysPath"] == "/etc/kubeagents-keys"
    (admin,) = config["access"]["principals"]
    assert admin == {"name": "admin", "role": "admin", "keysFrom": {"name": "hub-central-admin"}}
    assert {"name": "keys-0", "secret": {"secretName": "hub-central-admin"}} in pod["volumes"]
    assert manifests == {kind: one for kind, one in made(admin_key="another").items() if kind != "Secret"}


def test_certificates_are_files_of_their_secrets_and_the_port_is_encrypted() -> None:
    issuer = {
        "name": "corp",
        "url": "https://login.example.com",
        "audiences": ["kubeagents"],
        "ca": {"secretRef": {"name": "corp-ca"}},
        "grants": [{"claim": "groups", "values": ["platform"], "role": "admin"}],
    }
    tls = {"secretRef": {"name": "hub-tls"}, "clientCa": {"secretRef": {"name": "clients", "key": "ca.pem"}}}
    manifests = made(access={"issuers": [issuer]}, tls=tls)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    mounts = {secrets[one["name"]]: one["mountPath"] for one in container["volumeMounts"] if one["name"] in secrets}

    assert mounts == {
        "corp-ca": "/etc/kubeagents-tls/issuer-ca/corp",
        "hub-tls": "/etc/kubeagents-tls/server",
        "clients": "/etc/kubeagents-tls/client-ca",
    }
    config = json.loads(manifests["ConfigMap"]["data"]["config.json"])
    assert config["tls"] == {
        "certificate": "/etc/kubeagents-tls/server/tls.crt",
        "privateKey": "/etc/kubeagents-tls/server/tls.key",
        "clientCa": "/etc/kubeagents-tls/client-ca/ca.pem",
        "clientAuth": "Optional",
    }
    assert config["issuerCa"] == {"corp": "/etc/kubeagents-tls/issuer-ca/corp/ca.crt"}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert manifests["Service"]["spec"]["ports"][0]["appProtocol"] == "https"
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scheme"] == "https"


def test_without_tls_nothing_is_encrypted() -> None:
    manifests = made()
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert "tls" not in json.loads(manifests["ConfigMap"]["data"]["config.json"])
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
