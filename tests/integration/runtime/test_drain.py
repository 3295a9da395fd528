# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: finish, give back, leave."""

import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.integration.runtime.conftest import System, final, submit
from tests.integration.runtime.test_failures import started
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer


def test_a_worker_finishes_what_it_runs_before_it_ends(system: System, tmp_path: Path) -> None:
    agent = system.agent("handlers:gate", concurrency=2)
    central = system.central().ready()
    ids = submit(central, *[str(tmp_path)] * 3)
    started(tmp_path, 2)
    agent.signal(signal.SIGTERM)
    eventually(lambda: "the process is stopping" in agent.get("/readyz").text, what="it is not ready any more")
    assert agent.get("/readyz").status_code == 503
    assert agent.get("/healthz").status_code == 200
    eventually(
        lambda: [info["draining"] for info in central.get("/v1/agents").json()] == [True], what="the registry knows"
    )
    (tmp_path / "open").touch()
    assert agent.exit_code() == 0
    assert [task["result"]["by"] for task in final(central, *ids[:2])] == ["worker-1"] * 2
    left = central.get(f"/v1/queues/main/tasks/{ids[2]}").json()
    assert (left["state"], left["attempts"]) == ("queued", 0), "it claims nothing while it drains"
    assert central.get("/v1/agents").json() == [], "it has signed off"
    assert len(list(tmp_path.glob("started-*"))) == 2


def test_what_is_not_finished_in_time_goes_back_and_costs_no_attempt(system: System, tmp_path: Path) -> None:
    agent = system.agent("handlers:gate", drain_seconds=0)
    central = system.central().ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert (tmp_path / f"cancelled-{task_id}-worker-1").exists()
    task = central.get(f"/v1/queues/main/tasks/{task_id}").json()
    assert (task["state"], task["attempts"], task["failures"]) == ("queued", 0, [])
    (tmp_path / "open").touch()
    system.agent("handlers:gate", instance="worker-2")
    assert final(central, task_id)[0]["result"]["attempt"] == 1


def test_a_second_signal_cuts_the_drain_short_and_still_gives_back(system: System, tmp_path: Path) -> None:
    agent = system.agent("handlers:gate", drain_seconds=3600)
    central = system.central().ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    agent.signal(signal.SIGINT)
    eventually(lambda: agent.logged("tasks run, they have 3600 s to finish"), what="it drains")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert agent.logged("gave back 1 unfinished tasks")
    assert central.get(f"/v1/queues/main/tasks/{task_id}").json()["state"] == "queued"


@pytest.mark.parametrize("handler", ["handlers:stubborn", "handlers:thread"])
def test_a_handler_that_cannot_be_cancelled_does_not_hold_up_the_end(
    system: System, tmp_path: Path, handler: str
) -> None:
    agent = system.agent(handler, drain_seconds=0)
    central = system.central().ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    task = central.get(f"/v1/queues/main/tasks/{task_id}").json()
    assert (task["state"], task["attempts"]) == ("queued", 0)


def test_an_idle_worker_ends_without_waiting_for_its_claim(system: System) -> None:
    agent = system.agent().ready()
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert [line["message"] for line in agent.lines][-2:] == ["SIGTERM: stopping", "stopped"]


def test_a_worker_ends_in_bounded_time_without_redis_and_says_what_is_left(
    system: System, durable_redis: RedisServer, tmp_path: Path
) -> None:
    agent = system.agent("handlers:gate", drain_seconds=0, url=durable_redis.url)
    central = system.central(urls=[durable_redis.url]).ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    durable_redis.kill()
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    (line,) = agent.logged("stopped without the queue")
    assert task_id in line["message"]


def test_many_drains_under_load_lose_nothing_and_count_nothing_twice(system: System) -> None:
    central = system.central().ready()
    ids = submit(central, *range(5000))
    for turn in range(4):
        agent = system.agent(instance=f"short-lived-{turn}", concurrency=8).ready()
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    stats = central.get("/v1/queues/main").json()
    assert (stats["running"], stats["queued"] + stats["succeededTotal"]) == (0, 5000)
    system.agent(instance="last", concurrency=64)
    tasks = final(central, *ids, seconds=60)
    assert [task["result"] for task in tasks] == list(range(5000))
    assert {task["attempts"] for task in tasks} == {1}
    assert central.get("/v1/queues/main").json()["succeededTotal"] == 5000


def test_a_central_agent_answers_those_who_wait_before_it_ends(system: System) -> None:
    central = system.central(instance="hub-2").ready()
    (task_id,) = submit(central, "nobody is there")
    answers: list[httpx.Response] = []
    path = f"/v1/queues/main/tasks/{task_id}/result"
    waiting = threading.Thread(target=lambda: answers.append(central.get(path, timeoutSeconds=300)))
    waiting.start()
    eventually(lambda: "kubeagents_central_waits 1.0" in central.get("/metrics").text, what="the client waits")
    central.signal(signal.SIGTERM)
    waiting.join(timeout=30)
    (answer,) = answers
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["connection"] == "close", "the next question should reach another pod"
    assert central.exit_code() == 0


def test_a_client_that_hangs_up_leaves_no_wait_behind(system: System) -> None:
    central = system.central().ready()
    (task_id,) = submit(central, "nobody is there")
    with httpx.Client(base_url=central.base_url, trust_env=False) as client:
        waiting = threading.Thread(target=lambda: _hang_up(client, f"/v1/queues/main/tasks/{task_id}/result"))
        waiting.start()
        eventually(lambda: "kubeagents_central_waits 1.0" in central.get("/metrics").text, what="the client waits")
        waiting.join(timeout=30)
    eventually(lambda: "kubeagents_central_waits 0.0" in central.get("/metrics").text, what="nobody waits any more")


def _hang_up(client: httpx.Client, path: str) -> None:
    try:
        client.get(path, params={"timeoutSeconds": 300}, timeout=httpx.Timeout(5, read=2))
    except httpx.ReadTimeout:
        return
    raise AssertionError("an answer came")
