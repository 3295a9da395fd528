# SPDX-License-Identifier: Apache-2.0
"""The chart, installed as a user installs it."""

import subprocess
from pathlib import Path

from tests.cluster.handle import ClusterHandle

ROOT = Path(__file__).parents[2]
NAMESPACE = "kubeagents-system"


def install(handle: ClusterHandle) -> None:
    """Install or upgrade the chart with the images that the cluster has."""
    # Helm does not upgrade CRDs; a cluster that was kept must not keep older ones.
    run(handle, handle.kubectl, "apply", "--server-side", "--force-conflicts", "-f", "helm/kubeagents/crds")
    values = {"operator.image": "operator", "runtime.image": "runtime", "redis.image": "redis"}
    settings = ",".join(f"{key}={handle.images[name]}" for key, name in values.items())
    run(handle, handle.helm, "upgrade", "--install", "kubeagents", "helm/kubeagents", "--namespace", NAMESPACE,
         "--create-namespace", "--set", settings, "--wait", "--timeout", "180s")  # fmt: skip


def run(handle: ClusterHandle, program: Path, *arguments: str) -> None:
    """Show a command as a user would type it, and run it on the cluster."""
    print(f"\n$ {program.name} {' '.join(arguments)}", flush=True)
    environment = {"KUBECONFIG": str(handle.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    subprocess.run([program, *arguments], check=True, cwd=ROOT, env=environment)
