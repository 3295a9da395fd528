# SPDX-License-Identifier: Apache-2.0
"""Cordoned processes: told over HTTP, obeyed by real processes, kept by Redis."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime.conftest import System, final, submit
from tests.integration.runtime.test_failures import started
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess


def cordon(central: RuntimeProcess, *instances: str, change: str = "cordon") -> list[dict[str, Any]]:
    """Cordon or uncordon processes; what is known of them."""
    answer = central.post(f"/v1/queues/main/{change}", {"instances": list(instances), "by": "test"})
    assert answer.status_code == 200, answer.text
    known: list[dict[str, Any]] = answer.json()["instances"]
    return known


def instance(central: RuntimeProcess, name: str = "worker-1") -> dict[str, Any]:
    """What is known of a process."""
    found = [info for info in central.get("/v1/agents").json() if info["instance"] == name]
    assert found, f"{name} is not known"
    info: dict[str, Any] = found[0]
    return info


def says(central: RuntimeProcess, *, cordoned: bool, running: int = 0) -> None:
    """Wait until the process says so, which it does long before its next regular heartbeat."""

    def said() -> bool:
        info = instance(central)
        return (info["cordoned"], info["running"]) == (cordoned, running)

    eventually(said, what=f"cordoned={cordoned} running={running}", timeout=10, every=0.02)


def test_a_cordoned_process_finishes_what_it_runs_and_takes_nothing_new(system: System, tmp_path: Path) -> None:
    agent = system.agent("handlers:gate", concurrency=2, heartbeat_seconds=60).ready()
    central = system.central().ready()
    running = submit(central, *[str(tmp_path)] * 2)
    started(tmp_path, 2)
    (info,) = cordon(central, "worker-1")
    assert (info["instance"], info["cordonedBy"]) == ("worker-1", ["test"])
    says(central, cordoned=True, running=2)
    (late,) = submit(central, str(tmp_path))
    (tmp_path / "open").touch()
    says(central, cordoned=True, running=0)
    assert [task["state"] for task in final(central, *running)] == ["succeeded"] * 2
    assert central.get(f"/v1/queues/main/tasks/{late}").json()["state"] == "queued"
    info = instance(central)
    assert (info["succeeded"], info["failed"]) == (2, 0)
    ready = agent.get("/readyz")
    assert (ready.status_code, "takes no new tasks" in ready.json()["checks"]["cordoned"]) == (200, True)
    assert "kubeagents_worker_cordoned 1.0" in agent.get("/metrics").text

    cordon(central, "worker-1", change="uncordon")
    assert final(central, late)[0]["result"]["by"] == "worker-1"
    says(central, cordoned=False)
    assert "kubeagents_worker_cordoned 0.0" in agent.get("/metrics").text
    assert "cordoned" not in agent.get("/readyz").json()["checks"]


def test_others_do_what_a_cordoned_process_would_have_done(system: System) -> None:
    system.agent(heartbeat_seconds=60).ready()
    system.agent(instance="worker-2", heartbeat_seconds=60).ready()
    central = system.central().ready()
    cordon(central, "worker-1")
    tasks = final(central, *submit(central, *range(200)))
    assert {task["worker"] for task in tasks} == {"worker-2"}


def test_a_cordon_outlives_a_restart_of_redis(system: System, durable_redis: RedisServer) -> None:
    agent = system.agent(url=durable_redis.url).ready()
    central = system.central(instance="hub-2", urls=[durable_redis.url]).ready()
    cordon(central, "worker-1")
    says(central, cordoned=True)
    durable_redis.kill()
    durable_redis.start()
    agent.ready()
    (task_id,) = submit(central, "work")
    assert instance(central)["cordonedBy"] == ["test"]
    eventually(lambda: instance(central)["healthy"] and instance(central)["cordoned"], what="it beats again")
    assert central.get(f"/v1/queues/main/tasks/{task_id}").json()["state"] == "queued"
    cordon(central, "worker-1", change="uncordon")
    assert final(central, task_id)[0]["state"] == "succeeded"


def test_a_process_that_begins_while_its_name_is_cordoned_takes_nothing_and_is_ready(system: System) -> None:
    central = system.central().ready()
    first = system.agent().ready()
    cordon(central, "worker-1")
    first.signal(signal.SIGKILL)
    first.exit_code()
    (task_id,) = submit(central, "work")
    second = system.agent().ready()  # as the container of a pod that is restarted
    says(central, cordoned=True)
    assert "cordoned" in second.get("/readyz").json()["checks"]
    assert central.get(f"/v1/queues/main/tasks/{task_id}").json()["state"] == "queued"


def test_a_cordoned_process_that_dies_gives_its_tasks_to_others_and_its_order_is_forgotten(
    system: System, tmp_path: Path
) -> None:
    queue = system.queue(lease_seconds=1)
    agent = system.agent("handlers:gate", queue=queue)
    central = system.central(queue, instance="hub-2", agent_timeout_seconds=1).ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    cordon(central, "worker-1")
    agent.signal(signal.SIGKILL)
    (tmp_path / "open").touch()
    system.agent("handlers:gate", queue=queue, instance="worker-2")
    assert final(central, task_id)[0]["worker"] == "worker-2"

    def names() -> list[str]:
        return [info["instance"] for info in central.get("/v1/agents").json()]

    eventually(lambda: names() == ["worker-2"], what="it is forgotten")
    with system.redis.client() as client:
        keys = client.keys("*")
    assert [key for key in keys if key.endswith(":cordons") or "worker-1" in key] == []


def test_a_drain_of_a_cordoned_process_ends_in_order(system: System) -> None:
    agent = system.agent().ready()
    central = system.central().ready()
    cordon(central, "worker-1")
    says(central, cordoned=True)
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert central.get("/v1/agents").json() == []
    fresh = system.agent().ready()  # the name may be used again: leaving has lifted the order
    assert final(central, *submit(central, 1))[0]["result"] == 1
    assert "cordoned" not in fresh.get("/readyz").json()["checks"]


@pytest.mark.parametrize("change", ["cordon", "uncordon"])
def test_a_process_that_is_not_known_is_refused_and_nothing_is_changed(system: System, change: str) -> None:
    system.agent().ready()
    central = system.central().ready()
    answer = central.post(f"/v1/queues/main/{change}", {"instances": ["worker-1", "nobody"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "INSTANCE_NOT_FOUND")
    assert "nobody" in answer.json()["error"]
    assert instance(central)["cordonedBy"] == []


def test_an_agent_shows_its_slots_and_what_waits_for_it(system: System, tmp_path: Path) -> None:
    central = system.central(instance="hub-2").ready()
    system.agent("handlers:gate", concurrency=2, capabilities=["ocr"]).ready()
    submit(central, *[str(tmp_path)] * 2)
    started(tmp_path, 2)
    submit(central, 1, 2, 3)
    submit(central, 4, agent="worker")
    submit(central, 5, capability="ocr")
    submit(central, 6, instance="worker-1")
    submit(central, 7, agent="other")
    seen = eventually(
        lambda: (found := central.get("/v1/agents/worker").json())["utilization"] == 1 and found, what="it is busy"
    )
    assert (seen["slots"], seen["running"], seen["waiting"]) == (2, 2, 6)
    figures = central.get("/v1/queues/main").json()
    assert figures["waiting"] == {
        "": 3,
        "agent/other": 1,
        "agent/worker": 1,
        "capability/ocr": 1,
        "instance/worker-1": 1,
    }
    assert figures["oldestSeconds"] > 0
    lines = [
        'kubeagents_queue_waiting_tasks{queue="main",target="any"} 3.0',
        'kubeagents_queue_waiting_tasks{queue="main",target="agent/other"} 1.0',
        'kubeagents_queue_waiting_tasks{queue="main",target="instances"} 1.0',
        'kubeagents_queue_waiting_tasks{queue="main",target="others"} 0.0',
        'kubeagents_agent_slots{agent="worker",queue="main"} 2.0',
        'kubeagents_agent_slots_taken{agent="worker",queue="main"} 2.0',
        'kubeagents_agent_utilization{agent="worker",queue="main"} 1.0',
        'kubeagents_agent_cordoned_instances{agent="worker",queue="main"} 0.0',
    ]

    def shown() -> bool:
        text = central.get("/metrics").text
        assert [line for line in lines if line not in text] == []
        return True

    eventually(shown, what="the metrics show it")
    cordon(central, "worker-1")
    says(central, cordoned=True, running=2)
    seen = central.get("/v1/agents/worker").json()
    assert (seen["slots"], seen["utilization"], seen["running"]) == (0, 0, 2)


def test_a_heartbeat_tells_revision_outcomes_and_the_last_answer_to_a_claim(system: System) -> None:
    system.agent("handlers:fail", environment={"KUBEAGENTS_REVISION": "5c9d7"}).ready()
    central = system.central().ready()
    final(central, *submit(central, "permanent", "set", None, maxAttempts=1))

    def told() -> bool:
        info = instance(central)
        return bool(info["succeeded"] + info["failed"] == 3)

    eventually(told, what="its outcomes are told")
    info = instance(central)
    assert (info["succeeded"], info["failed"], info["revision"]) == (1, 2, "5c9d7")
    before = info["claimedAt"]
    eventually(lambda: instance(central)["claimedAt"] > before, what="its claims are answered again and again")
