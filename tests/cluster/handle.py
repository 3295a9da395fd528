# SPDX-License-Identifier: Apache-2.0
"""What everybody needs to use a cluster."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClusterHandle:
    """A cluster that runs, with our images in it."""

    kind: str
    """`given`, `kind` or `local`."""
    kubeconfig: Path
    kubectl: Path
    helm: Path
    images: dict[str, str]
    """`runtime`, `operator`, `redis` -> what to write into a manifest."""
