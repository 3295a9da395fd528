# SPDX-License-Identifier: Apache-2.0
"""What all our pods have in common: they satisfy the `restricted` Pod Security Standard and know their template."""

from typing import Any

import orjson

from kubeagents_api.labels import TEMPLATE_HASH
from kubeagents_api.pod import PodSettings, Resources
from kubeagents_operator.desired.metadata import Owner, common_labels
from kubeagents_operator.fingerprint import digest, quantity

POD_SECURITY: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def template(owner: Owner, *, annotations: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    """A pod template. To the annotations, which change with the configuration, comes one that changes with the template
    itself; so pods roll when either changes, and a pod tells which template it was made from."""
    made: dict[str, Any] = {
        "metadata": {"labels": common_labels(owner), "annotations": dict(annotations)},
        "spec": {"enableServiceLinks": False, **spec},
    }
    return hashed(made)


def hashed(template: dict[str, Any]) -> dict[str, Any]:
    """The same template with the digest of all the rest of it."""
    metadata = template["metadata"]
    annotations = {name: text for name, text in metadata["annotations"].items() if name != TEMPLATE_HASH}
    made = {**template, "metadata": {**metadata, "annotations": annotations}}
    annotations[TEMPLATE_HASH] = digest([orjson.dumps(made, option=orjson.OPT_SORT_KEYS)])
    return made


def template_hash(workload: dict[str, Any]) -> str:
    """The template digest of a Deployment or StatefulSet manifest."""
    word: str = workload["spec"]["template"]["metadata"]["annotations"][TEMPLATE_HASH]
    return word


def resources(wanted: Resources | None) -> dict[str, Any]:
    """The container field `resources`, if anything is asked for."""
    if wanted is None:
        return {}
    parts = {
        kind: {name: quantity(amount) for name, amount in amounts.items()}
        for kind, amounts in (("requests", wanted.requests), ("limits", wanted.limits))
        if amounts
    }
    return {"resources": parts} if parts else {}


def environment(settings: PodSettings) -> list[dict[str, Any]]:
    """The user's own environment variables."""
    return [variable.to_wire() for variable in settings.env]


def secret_variable(name: str, *, secret: str, key: str) -> dict[str, Any]:
    """An environment variable with the value of a Secret's key."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
