# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.cluster`: a cluster to play with. `make cluster-up` and its siblings call this."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable

from tests import cluster
from tests.cluster import binaries, chart

INTERRUPTED = 128 + signal.SIGINT


def up() -> cluster.ClusterHandle:
    """Start the cluster, with our images in it."""
    handle = cluster.ensure()
    print(f"\nThe cluster runs. To use it:\n\n  export KUBECONFIG={handle.kubeconfig}")
    if handle.kind != "given":
        print(f"  export PATH={handle.kubectl.parent}:$PATH    # kubectl and helm")
    return handle


def install() -> cluster.ClusterHandle:
    """Start the cluster and install the chart, as a user would."""
    handle = up()
    chart.install(handle)
    return handle


def demo() -> None:
    """Start the cluster, install the chart and apply the quickstart."""
    handle = install()
    chart.run(handle, handle.kubectl, "apply", "-f", "examples/01-quickstart/")
    chart.run(handle, handle.kubectl, "wait", "--for=condition=Ready", "agents,centralagents,taskqueues", "--all",
         "--timeout=120s")  # fmt: skip
    chart.run(handle, handle.kubectl, "get", "kubeagents")
    print(
        "\nTry, after the two exports above:\n"
        '  .venv/bin/kubeagents submit --agent echo \'{"text": "hello"}\' --wait\n'
        "  kubectl scale agent echo --replicas=5\n"
        "  kubectl get agents --watch\n"
        "  kubectl delete -f examples/01-quickstart/\n"
        "  make cluster-down"
    )


COMMANDS: dict[str, tuple[Callable[[], object], str]] = {
    "up": (up, "start a cluster with our images in it, or bring its images up to date"),
    "down": (cluster.down, "stop it and leave nothing behind"),
    "install": (install, "start it and install the chart"),
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
    except KeyboardInterrupt:
        # A half-made cluster is no harm: `up` goes on from whatever it finds.
        print("\nstopped; `make cluster-up` goes on, `make cluster-down` removes what there is", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
