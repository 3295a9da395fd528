# SPDX-License-Identifier: Apache-2.0
"""What a newcomer does on a cluster: apply the quickstart, submit with the CLI, look at logs, delete."""

import json
import subprocess
import sys

import pytest

from tests.cluster import add_image
from tests.support.cluster import QUICKSTART, ROOT, Cluster
from tests.support.eventually import eventually


def kubeagents(cluster: Cluster, *arguments: str) -> str:
    """The CLI, with nothing to go by but a kubeconfig."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_runtime.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"KUBECONFIG": str(cluster.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_quickstart_works_with_kubectl_and_the_cli(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, QUICKSTART)
    for target in ("taskqueue/tasks", "agent/echo", "agent/textstats", "centralagent/central"):
        cluster.wait(namespace, target, "condition=Ready")

    task = json.loads(
        kubeagents(cluster, "submit", "-n", namespace, "--agent", "echo", "--wait", "-o", "json", '{"hello": "world"}')
    )
    task = task[0] if isinstance(task, list) else task
    assert (task["state"], task["result"]["echo"]) == ("succeeded", {"hello": "world"})
    again = json.loads(kubeagents(cluster, "result", "-n", namespace, "-o", "json", task["id"]))
    assert (again[0] if isinstance(again, list) else again)["result"] == task["result"]

    instances = json.loads(kubeagents(cluster, "get", "agents", "-n", namespace, "-o", "json"))
    assert sorted(one["agent"] for one in instances) == ["echo", "echo", "textstats"]
    assert all(one["healthy"] for one in instances)

    assert task["worker"] in kubeagents(cluster, "logs", "-n", namespace, "echo")

    everything = cluster.kubectl("-n", namespace, "get", "kubeagents")
    assert {"agent.kubeagents.dev/echo", "taskqueue.kubeagents.dev/tasks"} <= set(everything.split())

    cluster.kubectl("-n", namespace, "delete", "-f", QUICKSTART, "--timeout=60s")
    eventually(lambda: not cluster.objects(namespace, "pods"), what="no pod is left", timeout=90)


def test_an_image_of_ones_own_runs_with_its_own_dependencies(cluster: Cluster, namespace: str) -> None:
    if cluster.handle.kind == "given":
        pytest.skip("images cannot be brought into a cluster that was given")
    example, image = ROOT / "examples" / "02-custom-image", "localhost/pressroom:dev"
    add_image(cluster.handle, example, image)
    manifests = (example / "pressroom.yaml").read_text()
    assert "image: pressroom:dev" in manifests
    cluster.apply(namespace, manifests.replace("image: pressroom:dev", f"image: {image}"))
    cluster.wait(namespace, "agent/pressroom", "condition=Ready")
    cluster.wait(namespace, "centralagent/press-desk", "condition=Ready")
    answer = kubeagents(cluster, "submit", "-n", namespace, "--wait", "-o", "json", '{"markdown": "It *works*."}')
    assert "<em>works</em>" in answer


def test_kubectl_explain_has_the_descriptions_of_the_models(cluster: Cluster) -> None:
    assert "The TaskQueue whose tasks this agent takes" in cluster.kubectl("explain", "agent.spec.queueRef")
