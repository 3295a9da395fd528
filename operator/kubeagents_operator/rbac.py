# SPDX-License-Identifier: Apache-2.0
"""What the operator may do: the rules of its Role or ClusterRole, as data. A test holds the chart against it."""

from typing import Any

from kubeagents_api.labels import GROUP
from kubeagents_operator.watched import CHILDREN, CUSTOM

_READ = ["get", "list", "watch"]


def rules() -> list[dict[str, Any]]:
    """The rules in each namespace that is served, or cluster-wide."""
    plurals = [resource.plural for resource in CUSTOM]
    groups: dict[str, list[str]] = {}
    for resource in CHILDREN:
        groups.setdefault(resource.group, []).append(resource.plural)
    return [
        {"apiGroups": [GROUP], "resources": plurals, "verbs": _READ},
        {"apiGroups": [GROUP], "resources": [f"{plural}/status" for plural in plurals], "verbs": ["patch"]},
        # Owner references that block deletion, where OwnerReferencesPermissionEnforcement is on.
        {"apiGroups": [GROUP], "resources": [f"{plural}/finalizers" for plural in plurals], "verbs": ["update"]},
        *(
            {"apiGroups": [group], "resources": sorted(resources), "verbs": [*_READ, "create", "patch", "delete"]}
            for group, resources in sorted(groups.items())
        ),
        # Not for the operator itself: the Roles of CentralAgents grant it, and nobody may grant what he lacks.
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update"]},
        # To mark those that are to go.
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*_READ, "patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]


def lease_rules(name: str) -> list[dict[str, Any]]:
    """The rules in the operator's own namespace, for the Lease that its replicas compete for."""
    group, resources = ["coordination.k8s.io"], ["leases"]
    return [
        {"apiGroups": group, "resources": resources, "verbs": ["create"]},
        {"apiGroups": group, "resources": resources, "resourceNames": [name], "verbs": ["get", "update"]},
    ]
