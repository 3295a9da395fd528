# SPDX-License-Identifier: Apache-2.0
"""The children of a TaskQueue with a managed Redis: one pod with an append-only file."""

import base64
from dataclasses import dataclass
from typing import Any

from kubeagents_api.labels import CONFIG_HASH, REDIS_PORT
from kubeagents_api.task_queue import ManagedRedis, RedisStorage
from kubeagents_operator.desired import names, pods, runtime
from kubeagents_operator.desired.metadata import Manifest, Owner, manifest, selector
from kubeagents_operator.desired.runtime import Defaults
from kubeagents_operator.fingerprint import digest, quantity

PASSWORD_KEY = "password"  # noqa: S105 - a key's name
URL_KEY = "url"
CONFIG_KEY = "redis.conf"

_CONFIG_FOLDER = "/etc/kubeagents-redis"
_REDIS_USER = 999
"""User and group of the official images; owner of the volume's files."""


@dataclass(frozen=True, slots=True)
class ManagedInputs:
    """A TaskQueue with a managed Redis."""

    owner: Owner
    redis: ManagedRedis
    password: str
    """Made once, read back from the Secret afterwards."""


def children(inputs: ManagedInputs, defaults: Defaults) -> list[Manifest]:
    """In the order in which they are written: what the pod needs comes before it."""
    owner, name = inputs.owner, names.redis(inputs.owner.key.name)
    return [
        secret(owner, inputs.password),
        runtime.service_account(owner, name),
        _service(owner, name),
        _stateful_set(inputs, name, defaults),
    ]


def secret(owner: Owner, password: str) -> Manifest:
    """The password, and the two texts that contain it."""
    name = names.redis(owner.key.name)
    texts = {
        PASSWORD_KEY: password,
        URL_KEY: f"redis://:{password}@{name}.{owner.key.namespace}.svc:{REDIS_PORT}/0",
        CONFIG_KEY: _redis_conf(password),
    }
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return manifest(owner, "v1", "Secret", name, type="Opaque", data=data)


def _redis_conf(password: str) -> str:
    """What Redis acknowledges it keeps: an append-only file, flushed every second, and no eviction of keys."""
    return (
        f"port {REDIS_PORT}\n"
        "dir /data\n"
        "appendonly yes\n"
        "appendfsync everysec\n"
        'save ""\n'
        "maxmemory-policy noeviction\n"
        f"requirepass {password}\n"
    )


def _service(owner: Owner, name: str) -> Manifest:
    """A ClusterIP rather than a headless Service: clients find a replaced pod without waiting for DNS to forget."""
    ports = [{"name": "redis", "port": REDIS_PORT, "protocol": "TCP", "targetPort": "redis"}]
    return manifest(owner, "v1", "Service", name, spec={"selector": selector(owner), "ports": ports})


def _stateful_set(inputs: ManagedInputs, name: str, defaults: Defaults) -> Manifest:
    owner, storage = inputs.owner, inputs.redis.storage
    spec: dict[str, Any] = {
        "replicas": 1,
        "serviceName": name,
        "selector": {"matchLabels": selector(owner)},
        "template": pods.template(
            owner,
            annotations={CONFIG_HASH: digest([_redis_conf(inputs.password)])},
            spec=_pod(inputs, name, defaults),
        ),
    }
    if storage.type == "PersistentVolumeClaim":
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": storage.when_deleted, "whenScaled": "Retain"}
        spec["volumeClaimTemplates"] = [_claim(storage)]
    return manifest(owner, "apps/v1", "StatefulSet", name, spec=spec)


def _claim(storage: RedisStorage) -> dict[str, Any]:
    """An atomic part of the StatefulSet: the API server's defaults are spelled out."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity(storage.size)}},
        "volumeMode": "Filesystem",
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": spec,
        "status": {"phase": "Pending"},
    }


def _pod(inputs: ManagedInputs, name: str, defaults: Defaults) -> dict[str, Any]:
    storage = inputs.redis.storage
    volumes: list[dict[str, Any]] = [
        {
            "name": "config",
            "secret": {
                "secretName": name,
                "items": [{"key": CONFIG_KEY, "path": CONFIG_KEY}],
                "defaultMode": 0o440,
            },
        }
    ]
    if storage.type == "EmptyDir":
        volumes.append({"name": "data", "emptyDir": {"sizeLimit": quantity(storage.size)}})
    container = {
        "name": "redis",
        "image": inputs.redis.image or defaults.redis_image,
        "imagePullPolicy": defaults.image_pull_policy,
        "command": ["redis-server", f"{_CONFIG_FOLDER}/{CONFIG_KEY}"],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT, "protocol": "TCP"}],
        # redis-cli takes the password from here, so that it is on no command line.
        "env": [pods.secret_variable("REDISCLI_AUTH", secret=name, key=PASSWORD_KEY)],
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
        "securityContext": pods.CONTAINER_SECURITY,
        # A Redis that loads its file answers PING with an error: alive, but not ready. Each probe starts processes in
        # the container, some 100 ms of a node's processor: so they are rare. That Redis ends is noticed without them.
        "startupProbe": _exec(["redis-cli", "ping"], period=1, failures=300),
        "livenessProbe": _exec(["redis-cli", "ping"], period=20, failures=3),
        "readinessProbe": _exec(["sh", "-c", 'test "$(redis-cli ping)" = PONG'], period=10, failures=2),
        **pods.resources(inputs.redis.resources),
    }
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "securityContext": {
            **pods.POD_SECURITY,
            "runAsUser": _REDIS_USER,
            "runAsGroup": _REDIS_USER,
            "fsGroup": _REDIS_USER,
        },
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": volumes,
    }


def _exec(command: list[str], *, period: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
