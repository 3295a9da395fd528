# SPDX-License-Identifier: Apache-2.0
"""The children that Agent and CentralAgent share: configuration, identity, and the Deployment of runtime pods.

The RuntimeConfig of an Agent is an annotation of its pod template, so it belongs to the template as the image does: a
pod of an older ReplicaSet that starts again during a rollout, or after a rollback, reads the configuration it was made
for. That of a CentralAgent has the schedules of its queues, which may be too large for that: it is a ConfigMap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import orjson

from kubeagents_api.labels import (
    CONFIG,
    CONFIG_ENV,
    CONFIG_HASH,
    HTTP_PORT,
    INSTANCE_ENV,
    RESTART_HASH,
    REVISION,
    REVISION_ENV,
    SCRAPE_SCHEME,
    TERMINATION_LOG_ENV,
)
from kubeagents_api.pod import PodSettings
from kubeagents_operator.desired import pods
from kubeagents_operator.desired.metadata import Manifest, Owner, manifest, selector
from kubeagents_operator.fingerprint import digest

CODE_PATH = "/agent/code"
KEYS_PATH = "/etc/kubeagents-keys"
TLS_PATH = "/etc/kubeagents-tls"
CONFIG_FOLDER = "/etc/kubeagents"
CONFIG_FILE = "config.json"
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's settings say where an object does not."""

    runtime_image: str
    redis_image: str
    image_pull_policy: str


@dataclass(frozen=True, slots=True)
class QueueAccess:
    """How a pod gets the URL of one queue's Redis."""

    variable: str
    secret: str
    key: str
    digest: str
    """Changes with the Secret's content."""


@dataclass(frozen=True, slots=True)
class RuntimePods:
    """Everything that makes the pods of an Agent or CentralAgent."""

    owner: Owner
    name: str
    """Name of the children."""
    settings: PodSettings
    replicas: int
    config: str
    """The RuntimeConfig, as text."""
    queues: tuple[QueueAccess, ...]
    grace_seconds: int
    """Between SIGTERM and SIGKILL."""
    api_token: bool
    """Whether the pods talk to the Kubernetes API."""
    config_in_template: bool
    """Whether the RuntimeConfig is an annotation of the pods, or in a ConfigMap."""
    own_config: str = ""
    """The part of the RuntimeConfig that makes a version of an Agent: all but what its queue says."""
    code: str | None = None
    """ConfigMap with the user's Python files."""
    code_digest: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Those besides HTTP, by name."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets with API keys, by principal. They are read while the pods run: a change of one does not replace them."""
    tls_files: Mapping[str, str] = field(default_factory=dict)
    """Secrets with certificates, by path under TLS_PATH; read in the same way."""
    https: bool = False
    """Whether the HTTP port is encrypted."""
    env_digest: str = ""
    """Changes with the values that `env` takes from Secrets and ConfigMaps."""
    restarted_at: str = ""
    """The annotation by which people ask for a restart: a new value rolls the pods."""


def config_map(runtime: RuntimePods) -> Manifest:
    """The ConfigMap with the RuntimeConfig. It is updated in place; the hash on the pod template rolls the pods."""
    return manifest(runtime.owner, "v1", "ConfigMap", runtime.name, data={CONFIG_FILE: runtime.config})


def queue_urls(owner: Owner, name: str, urls: Mapping[str, str]) -> list[Manifest]:
    """The Secret with the URLs of queues of other namespaces, if there are any."""
    return [manifest(owner, "v1", "Secret", name, type="Opaque", data=dict(urls))] if urls else []


def service_account(owner: Owner, name: str) -> Manifest:
    """An identity of its own for each object. Pods that need the token say so themselves."""
    return manifest(owner, "v1", "ServiceAccount", name, automountServiceAccountToken=False)


def service(
    owner: Owner,
    name: str,
    *,
    port: int,
    kind: str = "ClusterIP",
    others: Mapping[str, int] = MappingProxyType({}),
    https: bool = False,
) -> Manifest:
    """The Service in front of the pods: `port` leads to HTTP, the `others` are the same as in the pods."""
    scheme = {"appProtocol": "https"} if https else {}
    ports: list[dict[str, Any]] = [{"name": "http", "port": port, "protocol": "TCP", "targetPort": "http", **scheme}]
    ports += [{"name": one, "port": number, "protocol": "TCP", "targetPort": one} for one, number in others.items()]
    return manifest(owner, "v1", "Service", name, spec={"type": kind, "selector": selector(owner), "ports": ports})


def deployment(runtime: RuntimePods, defaults: Defaults) -> Manifest:
    """The Deployment.

    A rollout first starts new pods and then stops old ones, a quarter of them at a time: workers that drain for minutes
    do not lower the throughput, and one that cannot start leaves all old ones at work.
    """
    return manifest(
        runtime.owner,
        "apps/v1",
        "Deployment",
        runtime.name,
        spec={
            "replicas": runtime.replicas,
            "selector": {"matchLabels": selector(runtime.owner)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "progressDeadlineSeconds": runtime.settings.progress_deadline_seconds,
            "template": pods.template(
                runtime.owner, annotations=_annotations(runtime, defaults), spec=_pod(runtime, defaults)
            ),
        },
    )


def _annotations(runtime: RuntimePods, defaults: Defaults) -> dict[str, str]:
    annotations = {CONFIG_HASH: _config_hash(runtime)}
    if runtime.https:
        annotations[SCRAPE_SCHEME] = "https"
    if runtime.config_in_template:
        annotations[CONFIG] = runtime.config
        annotations[REVISION] = _revision(runtime, defaults)
        annotations[RESTART_HASH] = digest(_surroundings(runtime))
    return annotations


def _revision(runtime: RuntimePods, defaults: Defaults) -> str:
    """The version of an Agent: what its spec says about the pods, and the code. What comes from outside, such as where
    the queue is, makes no other version, and neither does the name of the ConfigMap with the code."""
    own = replace(runtime, queues=(), code="" if runtime.code is not None else None)
    pod = orjson.dumps(_pod(own, defaults), option=orjson.OPT_SORT_KEYS)
    return digest([pod, runtime.own_config, runtime.code_digest])


def _surroundings(runtime: RuntimePods) -> list[str]:
    """What replaces the pods of any version when it changes."""
    return [*(queue.digest for queue in runtime.queues), runtime.env_digest, runtime.restarted_at]


def _config_volume(runtime: RuntimePods) -> dict[str, Any]:
    if not runtime.config_in_template:
        return {"name": "config", "configMap": {"name": runtime.name}}
    annotation = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{CONFIG}']"}
    return {"name": "config", "downwardAPI": {"items": [{"path": CONFIG_FILE, "fieldRef": annotation}]}}


def _config_hash(runtime: RuntimePods) -> str:
    parts = [runtime.config, runtime.code_digest, *(queue.digest for queue in runtime.queues)]
    # Pods of objects without these keep the digest that they have.
    return digest([*parts, *(part for part in (runtime.env_digest, runtime.restarted_at) if part)])


def _pod(runtime: RuntimePods, defaults: Defaults) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        _config_volume(runtime),
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, an emptyDir
    ]
    if runtime.code is not None:
        volumes.append({"name": "code", "configMap": {"name": runtime.code}})
        mounts.append({"name": "code", "mountPath": CODE_PATH, "readOnly": True})
    for index, (principal, secret) in enumerate(runtime.keys.items()):
        volumes.append({"name": f"keys-{index}", "secret": {"secretName": secret}})
        mounts.append({"name": f"keys-{index}", "mountPath": f"{KEYS_PATH}/{principal}", "readOnly": True})
    for index, (path, secret) in enumerate(runtime.tls_files.items()):
        volumes.append({"name": f"tls-{index}", "secret": {"secretName": secret}})
        mounts.append({"name": f"tls-{index}", "mountPath": f"{TLS_PATH}/{path}", "readOnly": True})
    settings, https = runtime.settings, runtime.https
    container = {
        "name": "runtime",
        "image": settings.image or defaults.runtime_image,
        "imagePullPolicy": settings.image_pull_policy or defaults.image_pull_policy,
        "command": ["python", "-m", "agent_runtime"],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in {"http": HTTP_PORT, **runtime.ports}.items()
        ],
        "env": [
            {"name": CONFIG_ENV, "value": f"{CONFIG_FOLDER}/{CONFIG_FILE}"},
            {
                "name": INSTANCE_ENV,
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
            },
            {"name": TERMINATION_LOG_ENV, "value": TERMINATION_LOG},
            *_revision_variable(runtime),
            *(pods.secret_variable(queue.variable, secret=queue.secret, key=queue.key) for queue in runtime.queues),
            *pods.environment(settings),
        ],
        "volumeMounts": mounts,
        "securityContext": pods.CONTAINER_SECURITY,
        "terminationMessagePath": TERMINATION_LOG,
        # For what ends without a message of the runtime: the traceback's last lines explain more than an exit code.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Importing a user's module may take minutes (large models); until then nothing else is probed.
        "startupProbe": {**_probe("/healthz", https), "periodSeconds": 1, "failureThreshold": 300},
        "livenessProbe": {**_probe("/healthz", https), "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**_probe("/readyz", https), "periodSeconds": 3, "failureThreshold": 2},
        **pods.resources(settings.resources),
    }
    return {
        "serviceAccountName": runtime.name,
        "automountServiceAccountToken": runtime.api_token,
        "securityContext": pods.POD_SECURITY,
        "terminationGracePeriodSeconds": runtime.grace_seconds,
        "containers": [container],
        "volumes": volumes,
        **settings.pod_fields(),
    }


def _revision_variable(runtime: RuntimePods) -> list[dict[str, Any]]:
    """Its processes tell their version with their heartbeats."""
    if not runtime.config_in_template:
        return []
    annotation = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{REVISION}']"}
    return [{"name": REVISION_ENV, "valueFrom": {"fieldRef": annotation}}]


def _probe(path: str, https: bool) -> dict[str, Any]:
    scheme = {"scheme": "HTTPS"} if https else {}
    return {"httpGet": {"path": path, "port": "http", **scheme}, "timeoutSeconds": 5}
