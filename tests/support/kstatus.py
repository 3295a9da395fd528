# SPDX-License-Identifier: Apache-2.0
"""kstatus in Python: how Helm, Flux and `kubectl` plugins read the status of a custom resource.

The six rules of sigs.k8s.io/cli-utils/pkg/kstatus, in their order; rule 4 (built-in kinds) does not concern us.
"""

from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["Terminating", "InProgress", "Failed", "Current"]


def kstatus(body: Mapping[str, Any]) -> Status:
    """The status that tools compute for the object."""
    metadata, status = body["metadata"], body.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"
