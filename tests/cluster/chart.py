# SPDX-License-Identifier: Apache-2.0
"""The charts, installed as a user installs them."""

import subprocess
from pathlib import Path

from tests.cluster.handle import ClusterHandle

ROOT = Path(__file__).parents[2]
NAMESPACE = "kubeagents-system"

ADOPT = ("--take-ownership", "--force-conflicts")
"""A cluster that was kept may have objects of ours that something else than Helm has made or changed."""


def install(handle: ClusterHandle) -> None:
    """Install or upgrade the charts with the images that the cluster has. One replica: there is one node."""
    run(handle, handle.helm, "upgrade", "--install", "kubeagents-crds", "helm/kubeagents-crds",
         "--namespace", NAMESPACE, "--create-namespace", *ADOPT)  # fmt: skip
    run(handle, handle.helm, "upgrade", "--install", "kubeagents", "helm/kubeagents", "--namespace", NAMESPACE,
         "--set", f"operator.replicas=1,{images(handle)}", *ADOPT, "--wait", "--timeout", "180s")  # fmt: skip


def images(handle: ClusterHandle) -> str:
    """The images that the cluster has, for `--set`."""
    values = {"operator.image": "operator", "runtime.image": "runtime", "redis.image": "redis"}
    return ",".join(f"{key}={handle.images[name]}" for key, name in values.items())


def run(handle: ClusterHandle, program: Path, *arguments: str) -> None:
    """Show a command as a user would type it, and run it on the cluster."""
    print(f"\n$ {program.name} {' '.join(arguments)}", flush=True)
    environment = {"KUBECONFIG": str(handle.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    subprocess.run([program, *arguments], check=True, cwd=ROOT, env=environment)
