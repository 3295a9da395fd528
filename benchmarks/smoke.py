# SPDX-License-Identifier: Apache-2.0
"""`make bench-smoke`: tasks/s of the quickstart on this machine, and seconds from apply to Ready on a cluster.

Beside the first number stands what the bare Redis commands reach in the same run: machines differ, ratios less so. The
cluster is that of --kubeconfig, with the chart installed; without it the tests' own cluster is used, and started where
need be. Where none can be had that part is left out, and said so.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import bare_redis, machine
from tests import cluster as test_cluster
from tests.cluster import chart

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "examples" / "01-quickstart"
READY_SECONDS = 300


def local(*, tasks: int) -> dict[str, Any]:
    """The quickstart in local processes, driven over HTTP, and bare Redis beside it."""
    _say(f"quickstart on this machine: {tasks:,} tasks, three times (about 20 s)")
    with tempfile.TemporaryDirectory() as state:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "agent_runtime.cli.main", "dev", str(QUICKSTART), "--port", "0", "--"),
                *(sys.executable, "-m", "benchmarks.load", "--tasks", str(tasks)),
            ],
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": state},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    figures = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"runs"'))
    ours = _median(figures["runs"])
    _say(f"bare Redis: {tasks:,} tasks by LPUSH and BRPOP, three times")
    bare: dict[str, Any] = {}
    for name, batch in (("oneByOne", 1), ("batched", bare_redis.BATCH)):
        runs = [bare_redis.measure(tasks=tasks, batch=batch) for _ in range(3)]
        rate = _median(runs)
        bare[name] = {"tasksPerSecond": rate, "ratio": round(ours / rate, 3), "batch": batch, "runs": runs}
    return {"tasksPerSecond": ours, **figures, "bareRedis": bare}


def _median(runs: list[dict[str, Any]]) -> int:
    return round(statistics.median(float(run["tasksPerSecond"]) for run in runs))


def cluster(*, kubectl: str, kubeconfig: str) -> dict[str, Any]:
    """Seconds from `kubectl apply` of the quickstart to agent/echo Ready, in three fresh namespaces."""
    command = [kubectl, "--kubeconfig", kubeconfig]
    _say("quickstart on the cluster: apply -> Ready, three times")
    runs = []
    for _ in range(3):
        namespace = f"bench-{secrets.token_hex(3)}"
        _run([*command, "create", "namespace", namespace])
        try:
            begun = time.perf_counter()
            _run([*command, "-n", namespace, "apply", "-f", str(QUICKSTART)])
            applied = time.perf_counter() - begun
            wait = ["wait", "agent/echo", "--for=condition=Ready", f"--timeout={READY_SECONDS}s"]
            _run([*command, "-n", namespace, *wait])
            runs.append({"applySeconds": round(applied, 2), "readySeconds": round(time.perf_counter() - begun, 2)})
        finally:
            _run([*command, "delete", "namespace", namespace, "--wait=false"])
    return {"readySeconds": statistics.median(run["readySeconds"] for run in runs), "runs": runs}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks per local run")
    parser.add_argument("--kubeconfig", help="a cluster with the chart installed (default: the tests' own)")
    parser.add_argument("--kubectl", default="kubectl", help="the kubectl to use")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "smoke.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine.describe(), "local": local(tasks=arguments.tasks)}
    kubectl, kubeconfig = arguments.kubectl, arguments.kubeconfig
    if kubeconfig is None:
        try:
            handle = test_cluster.ensure()
        except test_cluster.ClusterUnavailableError as error:
            _say(f"NO CLUSTER, so apply -> Ready is not measured: {error}")
        else:
            chart.install(handle)
            kubectl, kubeconfig = str(handle.kubectl), str(handle.kubeconfig)
    if kubeconfig is not None:
        report["cluster"] = cluster(kubectl=kubectl, kubeconfig=kubeconfig)
    text = json.dumps(report, indent=2)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
