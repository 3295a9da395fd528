# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes cluster for tests, on whatever machine they run.

In this order: the kubeconfig named by KUBEAGENTS_TEST_KUBECONFIG (with images that it can pull, see `given`); kind,
where Docker answers; a cluster of plain processes on this machine, with programs built from Go modules. The last one
needs root on Linux and Go, and neither Docker nor a registry.
"""

import os
import shutil
import sys
from pathlib import Path

from tests.cluster import binaries, images, kind
from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.handle import ClusterHandle
from tests.cluster.node import Node

__all__ = ["ClusterError", "ClusterHandle", "ClusterUnavailableError", "add_image", "down", "ensure", "is_running"]

KUBECONFIG_ENV = "KUBEAGENTS_TEST_KUBECONFIG"


def ensure() -> ClusterHandle:
    """A running cluster with up-to-date images; makes whatever is missing.

    Raises ClusterUnavailableError where none can be had, ClusterError if something breaks.
    """
    if os.environ.get(KUBECONFIG_ENV):
        return given(Path(os.environ[KUBECONFIG_ENV]))
    if kind.usable():
        return _kind()
    return _local()


def is_running() -> bool:
    """Whether `ensure` would find a cluster, so that it is not ours to stop."""
    if os.environ.get(KUBECONFIG_ENV):
        return True
    if kind.usable():
        return kind.running()
    folder = binaries.cache_folder() / "cluster" / binaries.cache_key()
    return os.geteuid() == 0 and Node(binaries.Binaries(folder)).healthy()


def down() -> None:
    """Stop what `ensure` started. A cluster that was given is left alone."""
    if os.environ.get(KUBECONFIG_ENV):
        return
    if kind.usable() and kind.running():
        kind.down()
    elif os.geteuid() == 0:
        folder = binaries.cache_folder() / "cluster" / binaries.cache_key()
        Node(binaries.Binaries(folder)).down()


def add_image(handle: ClusterHandle, folder: Path, image: str) -> None:
    """Build a user's image from a folder with a Dockerfile, and bring it into the cluster.

    Raises ClusterUnavailableError for a cluster that was given: where its images come from is not known.
    """
    if handle.kind == "given":
        raise ClusterUnavailableError("images cannot be brought into a cluster that was given")
    builder = "docker" if handle.kind == "kind" else "buildah"
    images.build_other(folder, image, runtime=handle.images["runtime"], builder=builder)
    if handle.kind == "kind":
        kind.load([image])
    else:
        Node(binaries.build()).ctr("images", "import", images.pack(image))


def given(kubeconfig: Path) -> ClusterHandle:
    """Somebody's cluster. Its nodes must be able to pull the images that KUBEAGENTS_TEST_<NAME>_IMAGE name."""
    if not kubeconfig.exists():
        raise ClusterUnavailableError(f"{KUBECONFIG_ENV} names {kubeconfig}, which does not exist")
    names = {name: os.environ.get(f"KUBEAGENTS_TEST_{name.upper()}_IMAGE", "") for name in images.NAMES}
    unset = [f"KUBEAGENTS_TEST_{name.upper()}_IMAGE" for name, value in names.items() if not value]
    if unset:
        raise ClusterUnavailableError(f"{KUBECONFIG_ENV} is set; set {', '.join(unset)} too, to images it can pull")
    return ClusterHandle("given", kubeconfig, _program("kubectl"), _program("helm"), names)


def _kind() -> ClusterHandle:
    kind.up()
    tag = images.content_tag()
    images.build_with_docker(tag)
    references = images.references(tag)
    kind.load(list(references.values()))
    return ClusterHandle("kind", kind.kubeconfig(), _program("kubectl"), _program("helm"), references)


def _local() -> ClusterHandle:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise ClusterUnavailableError(
            "there is no Docker with kind, and the cluster of plain processes needs root on Linux. "
            f"Or name a cluster by {KUBECONFIG_ENV}"
        )
    binaries.install_packages()
    programs = binaries.build()
    with binaries.lock(binaries.cache_folder() / "cluster"):  # two runs at once share one cluster
        return _local_node(Node(programs))


def _local_node(node: Node) -> ClusterHandle:
    if node.healthy():
        node.provision()
    else:
        node.up()
    loaded = node.state / "images"
    tag = images.content_tag()
    if not loaded.exists() or loaded.read_text() != tag:
        for archive in images.build(binaries.cache_folder() / "images", tag):
            node.ctr("images", "import", archive)
        loaded.write_text(tag)
    return ClusterHandle(
        "local", node.kubeconfig, node.binaries["kubectl"], node.binaries["helm"], images.references(tag)
    )


def _program(name: str) -> Path:
    """A program of the user's, or the one we build."""
    found = shutil.which(name)
    return Path(found) if found else binaries.build()[name]
