# SPDX-License-Identifier: Apache-2.0
"""What these tests ask a cluster again and again."""

import re
from collections.abc import Iterable

from tests.support.cluster import Cluster, Object

CHILDREN = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings"
"""The children that nobody but the operator writes (Leases belong to their holders)."""


def condition(cluster: Cluster, namespace: str, kind: str, name: str, wanted: str) -> Object:
    conditions: list[Object] = cluster.get(namespace, kind, name)["status"]["conditions"]
    return next(one for one in conditions if one["type"] == wanted)


def wait_for_reason(cluster: Cluster, namespace: str, target: str, reason: str, *, seconds: int = 120) -> None:
    """Wait until the Ready condition has the reason."""
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}'
    cluster.wait(namespace, target, f"{path}={reason}", seconds=seconds)


def event_reasons(cluster: Cluster, namespace: str, target: str) -> list[str]:
    """Reasons of the Events about an object, oldest first."""
    printed = cluster.kubectl(
        "-n", namespace, "events", f"--for={target}", "-o", "jsonpath={range .items[*]}{.reason}{' '}{end}"
    )
    return printed.split()


def columns(cluster: Cluster, namespace: str, target: str) -> dict[str, str]:
    """What `kubectl get -o wide` shows of an object, by column."""
    head, row = cluster.kubectl("-n", namespace, "get", target, "-o", "wide").splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    ends = [*starts[1:], None]
    return {head[start:end].strip(): row[start:end].strip() for start, end in zip(starts, ends, strict=True)}


def versions(objects: Iterable[Object]) -> dict[str, str]:
    """`Kind/name` -> resourceVersion: equal as long as nobody has written the objects."""
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for one in objects
        if one["metadata"]["name"] not in ("default", "kube-root-ca.crt")
    }
