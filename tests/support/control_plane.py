# SPDX-License-Identifier: Apache-2.0
"""The control plane without containers, for tests and benchmarks of the operator."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.handle import ClusterHandle
from tests.support.cluster import ROOT, Cluster

CRDS = ROOT / "crds"


@contextmanager
def running_control_plane(state: Path, *, nodes: int, audited: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """One with fake nodes and our CustomResourceDefinitions. Raises ClusterUnavailableError where none can be had."""
    with ControlPlane.build(state, audited=audited) as plane:
        files = [f"--filename={path}" for path in sorted(CRDS.glob("*.yaml"))]
        plane.kubectl("apply", "--server-side", *files)
        plane.kubectl("wait", "--for=condition=Established", *files, "--timeout=30s")
        plane.add_nodes(nodes)
        yield plane


def as_cluster(plane: ControlPlane) -> Cluster:
    """The same with the verbs that the tests on a cluster with containers use. It has no images."""
    programs = plane.programs
    return Cluster(ClusterHandle("control-plane", plane.kubeconfig, programs["kubectl"], programs["helm"], images={}))
