# SPDX-License-Identifier: Apache-2.0
"""The children of a CentralAgent."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeagents_api import runtime_config
from kubeagents_api.access import key_secrets
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.labels import ADMIN_KEY, admin_secret
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_api.tls import tls_secrets
from kubeagents_operator.desired import names, runtime
from kubeagents_operator.desired.metadata import Manifest, Owner, manifest
from kubeagents_operator.desired.runtime import KEYS_PATH, TLS_PATH, Defaults, QueueAccess, RuntimePods

_GRACE_SECONDS = 40
"""Longer than the longest poll for a result that a client may have open (30 s)."""


@dataclass(frozen=True, slots=True)
class CentralAgentInputs:
    """A CentralAgent and all that its children depend on."""

    owner: Owner
    spec: CentralAgentSpec
    queues: dict[str, TaskQueueSpec]
    access: tuple[QueueAccess, ...]
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The encoded URLs of queues of other namespaces, by key of a Secret."""
    env_digest: str = ""
    restarted_at: str = ""
    """The annotation by which people ask for a restart."""
    admin_key: str | None = field(default=None, repr=False)
    """Made once, read back from the Secret afterwards; None where `spec.access` says whose keys there are."""


def children(inputs: CentralAgentInputs, defaults: Defaults) -> list[Manifest]:
    """In the order in which they are written: what a pod needs comes before it."""
    owner, spec = inputs.owner, inputs.spec
    config = runtime_config.central_agent_config(
        name=owner.key.name,
        namespace=owner.key.namespace,
        spec=spec,
        queues=inputs.queues,
        leader="lease",
        keys_path=KEYS_PATH,
        tls_path=TLS_PATH,
    )
    ports = {str(name): port for name, port in config.endpoints.items() if port}
    pods = RuntimePods(
        owner=owner,
        name=names.central_agent(owner.key.name),
        settings=spec,
        replicas=0 if spec.suspend else spec.replicas,
        config=runtime_config.render(config),
        queues=inputs.access,
        grace_seconds=_GRACE_SECONDS,
        api_token=True,
        config_in_template=False,
        ports=ports,
        keys=key_secrets(config.access),
        tls_files=tls_secrets(spec.access, spec.tls),
        https=spec.tls is not None,
        env_digest=inputs.env_digest,
        restarted_at=inputs.restarted_at,
    )
    return [
        *runtime.queue_urls(owner, pods.name, inputs.urls),
        *([_admin_secret(owner, inputs.admin_key)] if inputs.admin_key is not None else []),
        runtime.service_account(owner, pods.name),
        _role(owner, pods.name),
        _role_binding(owner, pods.name),
        lease(owner),
        runtime.config_map(pods),
        runtime.service(
            owner, pods.name, port=spec.service.port, kind=spec.service.type, others=ports, https=spec.tls is not None
        ),
        runtime.deployment(pods, defaults),
    ]


def lease(owner: Owner) -> Manifest:
    """The Lease that the pods compete for. Its spec belongs to whoever leads and is not touched."""
    return manifest(owner, "coordination.k8s.io/v1", "Lease", runtime_config.lease_name(owner.key.name))


def _admin_secret(owner: Owner, key: str) -> Manifest:
    """What opens a CentralAgent whose manifest names nobody: whoever may read Secrets of the namespace may use it."""
    data = {ADMIN_KEY: base64.b64encode(key.encode()).decode()}
    return manifest(owner, "v1", "Secret", admin_secret(owner.key.name), type="Opaque", data=data)


def _role(owner: Owner, name: str) -> Manifest:
    """The pods may do one thing: compete for their own Lease."""
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [runtime_config.lease_name(owner.key.name)],
        "verbs": ["get", "update", "patch"],
    }
    return manifest(owner, "rbac.authorization.k8s.io/v1", "Role", name, rules=[rule])


def _role_binding(owner: Owner, name: str) -> Manifest:
    return manifest(
        owner,
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        name,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": owner.key.namespace}],
    )
