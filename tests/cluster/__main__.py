# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.cluster`: a cluster to play with. `make cluster-up` and its siblings call this."""

import argparse
import subprocess
import sys
from pathlib import Path

from tests import cluster
from tests.cluster import binaries

ROOT = Path(__file__).parents[2]
NAMESPACE = "kubeagents-system"


def up() -> cluster.ClusterHandle:
    """Start the cluster, with our images in it."""
    handle = cluster.ensure()
    print(f"\nThe cluster runs. To use it:\n\n  export KUBECONFIG={handle.kubeconfig}")
    if handle.kind != "given":
        print(f"  export PATH={handle.kubectl.parent}:$PATH    # kubectl and helm")
    return handle


def demo() -> None:
    """Start the cluster, install the chart and apply the quickstart."""
    handle = up()
    _run(handle, handle.kubectl, "apply", "--server-side", "--force-conflicts", "-f", "helm/kubeagents/crds")
    values = {"operator.image": "operator", "runtime.image": "runtime", "redis.image": "redis"}
    settings = ",".join(f"{key}={handle.images[name]}" for key, name in values.items())
    _run(handle, handle.helm, "upgrade", "--install", "kubeagents", "helm/kubeagents", "--namespace", NAMESPACE,
         "--create-namespace", "--set", settings, "--wait")  # fmt: skip
    _run(handle, handle.kubectl, "apply", "-f", "examples/01-quickstart/")
    _run(handle, handle.kubectl, "wait", "--for=condition=Ready", "agents,centralagents,taskqueues", "--all",
         "--timeout=120s")  # fmt: skip
    _run(handle, handle.kubectl, "get", "kubeagents")
    print(
        "\nTry:\n"
        '  kubeagents submit --agent echo \'{"text": "hello"}\' --wait\n'
        "  kubectl scale agent echo --replicas=5\n"
        "  kubectl get agents --watch\n"
        "  kubectl delete -f examples/01-quickstart/\n"
        "  make cluster-down"
    )


def _run(handle: cluster.ClusterHandle, program: Path, *arguments: str) -> None:
    print(f"\n$ {program.name} {' '.join(arguments)}", flush=True)
    environment = {"KUBECONFIG": str(handle.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    subprocess.run([program, *arguments], check=True, cwd=ROOT, env=environment)


COMMANDS = {
    "up": (up, "start a cluster with our images in it, or bring its images up to date"),
    "down": (cluster.down, "stop it and leave nothing behind"),
    "demo": (demo, "start it, install the chart, apply the quickstart"),
    "build": (binaries.build, "only build the programs of the cluster"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=cluster.__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    try:
        COMMANDS[parser.parse_args().command][0]()
    except cluster.ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
