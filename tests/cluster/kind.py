# SPDX-License-Identifier: Apache-2.0
"""A cluster in Docker, by kind, where a Docker engine answers."""

import shutil
import subprocess
from pathlib import Path

from tests.cluster.binaries import cache_folder
from tests.cluster.errors import ClusterError

NAME = "kubeagents-test"


def usable() -> bool:
    """Whether kind is installed and a Docker engine answers."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0


def kubeconfig() -> Path:
    return cache_folder() / "kind.kubeconfig"


def running() -> bool:
    return NAME in _kind("get", "clusters").split()


def up() -> None:
    """Create the cluster, if it is not there (about a minute)."""
    kubeconfig().parent.mkdir(parents=True, exist_ok=True)
    if not running():
        print("Creating a cluster with kind (about a minute)", flush=True)
        _kind("create", "cluster", "--name", NAME, "--wait", "120s", "--kubeconfig", str(kubeconfig()))
    else:
        _kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", str(kubeconfig()))


def load(images: list[str]) -> None:
    """Bring images of the Docker engine into the cluster."""
    _kind("load", "docker-image", *images, "--name", NAME)


def down() -> None:
    _kind("delete", "cluster", "--name", NAME)


def _kind(*arguments: str) -> str:
    done = subprocess.run(["kind", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"kind {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout
