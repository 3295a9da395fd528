# SPDX-License-Identifier: Apache-2.0
"""Builders of what the operator sees, with sensible values for what a test does not care about."""

from typing import Any

from kubeagents_api.agent import AgentSpec
from kubeagents_api.labels import FIELD_MANAGER, MANAGED_BY, MANAGED_BY_VALUE, OWNER_KIND, OWNER_NAME
from kubeagents_operator.desired.metadata import Owner
from kubeagents_operator.desired.runtime import Defaults, QueueAccess
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Container, Pod, Rollout, Termination

NAMESPACE = "shop"
TEMPLATE = "template-1"
DEFAULTS = Defaults(runtime_image="runtime:1", redis_image="redis:1", image_pull_policy="IfNotPresent")

Body = dict[str, Any]


def owner(kind: str = "Agent", name: str = "echo", uid: str = "uid-1") -> Owner:
    return Owner(Key(kind, NAMESPACE, name), uid)


def agent_spec(**fields: Any) -> AgentSpec:
    return AgentSpec.model_validate({"queueRef": {"name": "work"}, "handler": "echo:handle", **fields})


def access(index: int = 0, *, of: str = "work-redis", digest: str = "d1") -> QueueAccess:
    return QueueAccess(variable=f"KUBEAGENTS_QUEUE_{index}_URL", secret=of, key="url", digest=digest)


def body(
    name: str, *, version: int = 1, uid: str | None = None, labels: dict[str, str] | None = None, **rest: Any
) -> Body:
    """A live object."""
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid if uid is not None else f"uid-{name}",
        "resourceVersion": str(version),
        "generation": 1,
        "labels": labels or {},
    }
    return {"metadata": {**metadata, **rest.pop("metadata", {})}, **rest}


def child_labels(kind: str, name: str) -> dict[str, str]:
    return {MANAGED_BY: MANAGED_BY_VALUE, OWNER_KIND: kind, OWNER_NAME: name}


def applied(manifest: Body, *, version: int = 1, uid: str = "uid-child") -> Body:
    """A manifest as the API server stores it when nobody else touches it."""
    fields = _fields({key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")})
    del fields["f:metadata"]["f:name"], fields["f:metadata"]["f:namespace"]
    entry = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}
    metadata = {**manifest["metadata"], "uid": uid, "resourceVersion": str(version), "managedFields": [entry]}
    return {**manifest, "metadata": metadata}


def _fields(value: Body) -> Body:
    return {f"f:{key}": _fields(item) if isinstance(item, dict) and item else {} for key, item in value.items()}


def rollout(
    *,
    wanted: int = 1,
    replicas: int | None = None,
    updated: int | None = None,
    ready: int | None = None,
    current: bool = True,
    conditions: dict[str, tuple[str, str, str]] | None = None,
) -> Rollout:
    """A Deployment's status; complete unless told otherwise."""
    ready = wanted if ready is None else ready
    return Rollout(
        current=current,
        wanted=wanted,
        replicas=wanted if replicas is None else replicas,
        updated=wanted if updated is None else updated,
        ready=ready,
        available=ready,
        template=TEMPLATE,
        conditions=conditions or {},
    )


def pod(name: str = "echo-1", *, ready: bool = False, template: str = TEMPLATE, **fields: Any) -> Pod:
    values: dict[str, Any] = {
        "uid": f"uid-{name}",
        "version": 1,
        "deleting": False,
        "ready_since": "2026-01-01T00:00:00Z" if ready else None,
        "created": "2026-01-01T00:00:00Z",
        "unschedulable": None,
        "containers": (),
        **fields,
    }
    return Pod(name=name, ready=ready, template=template, **values)


def container(
    *,
    waiting: str | None = None,
    message: str = "",
    restarts: int = 0,
    ended: Termination | None = None,
    name: str = "runtime",
) -> Container:
    return Container(name=name, restarts=restarts, waiting=waiting, waiting_message=message, ended=ended)


def ended(message: str = "", *, exit_code: int = 1, reason: str = "Error") -> Termination:
    return Termination(reason=reason, exit_code=exit_code, message=message)
