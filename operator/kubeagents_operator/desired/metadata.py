# SPDX-License-Identifier: Apache-2.0
"""Who a child belongs to: labels, selectors and the owner reference."""

from dataclasses import dataclass
from typing import Any

from kubeagents_api import labels
from kubeagents_operator.keys import Key

Manifest = dict[str, Any]

_COMPONENTS = {"Agent": "agent", "CentralAgent": "central-agent", "TaskQueue": "redis"}


@dataclass(frozen=True, slots=True)
class Owner:
    """The custom resource that a child is made for."""

    key: Key
    uid: str


def selector(owner: Owner) -> dict[str, str]:
    """Labels that select the pods of a custom resource. A Deployment's selector can never change, so neither may
    these."""
    return {labels.OWNER_KIND: owner.key.kind, labels.OWNER_NAME: owner.key.name}


def common_labels(owner: Owner) -> dict[str, str]:
    """Labels on every child and every pod."""
    component = _COMPONENTS[owner.key.kind]
    return {
        labels.NAME: f"kubeagents-{component}",
        labels.INSTANCE: owner.key.name,
        labels.COMPONENT: component,
        labels.MANAGED_BY: labels.MANAGED_BY_VALUE,
        **selector(owner),
    }


def manifest(owner: Owner, api_version: str, kind: str, name: str, **content: Any) -> Manifest:
    """A child with its metadata."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.key.namespace,
            "labels": common_labels(owner),
            "ownerReferences": [
                {
                    "apiVersion": labels.API_VERSION,
                    "kind": owner.key.kind,
                    "name": owner.key.name,
                    "uid": owner.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        **content,
    }
