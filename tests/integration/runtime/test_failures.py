# SPDX-License-Identifier: Apache-2.0
"""How attempts end when they do not succeed, and what happens when processes do not live."""

import signal
from pathlib import Path
from typing import Any

import pytest

from kubeagents_api.task_queue import RetryPolicy
from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

ONE_TRY = RetryPolicy(max_attempts=1, initial_seconds=0, max_seconds=0)


def started(folder: Path, count: int = 1) -> list[str]:
    """The `task-instance` of each attempt that a gate has begun, once there are `count`."""

    def names() -> list[str]:
        found = sorted(path.name.removeprefix("started-") for path in folder.glob("started-*"))
        return found if len(found) >= count else []

    return eventually(names, what=f"{count} attempts have started")


@pytest.mark.parametrize(
    ("payload", "state", "code", "message"),
    [
        ("permanent", "failed", "FAILED", "PermanentError: never will"),
        ("error", "dead", "FAILED", "ValueError: bad value"),
        ("odd", "dead", "FAILED", "Odd: (its text cannot be had: ValueError)"),
        ("exit", "dead", "FAILED", "SystemExit: 3"),
        ("cancels itself", "dead", "FAILED", "CancelledError"),
        ("set", "failed", "RESULT_NOT_JSON", "the handler returned set, which is not JSON: "),
        ("keys", "failed", "RESULT_NOT_JSON", "the handler returned dict, which is not JSON: Dict key must be str"),
        ("large", "failed", "RESULT_TOO_LARGE", "the result has 5002 bytes of JSON, the queue takes 2048: "),
        ("slow", "dead", "TIMEOUT", "not done within 0.2 s"),
    ],
)
def test_an_attempt_that_ends_badly_is_recorded_for_what_it_is(
    system: System, payload: str, state: str, code: str, message: str
) -> None:
    queue = system.queue(retry=ONE_TRY, max_payload_bytes=2048, task_timeout_seconds=0.2)
    agent = system.agent("handlers:fail", queue=queue)
    central = system.central(queue).ready()
    (task_id,) = submit(central, payload)
    (task,) = final(central, task_id)
    (failure,) = task["failures"]
    assert (task["state"], failure["code"], failure["worker"]) == (state, code, "worker-1")
    assert failure["message"].startswith(message)
    assert agent.running.poll() is None, "a task cannot end the process"


def test_a_temporary_error_is_tried_again_after_its_own_delay(system: System) -> None:
    slow_retries = system.queue(retry=RetryPolicy(max_attempts=2, initial_seconds=3600, max_seconds=3600))
    system.agent("handlers:fail", queue=slow_retries)
    central = system.central(slow_retries).ready()
    (task,) = final(central, *submit(central, "temporary"))
    assert (task["state"], task["result"], task["attempts"]) == ("succeeded", "now", 2)
    assert [failure["code"] for failure in task["failures"]] == ["UNAVAILABLE"]


def test_a_failure_is_logged_with_its_traceback_and_recorded_within_bounds(system: System) -> None:
    queue = system.queue(retry=ONE_TRY)
    agent = system.agent("handlers:fail", queue=queue)
    central = system.central(queue).ready()
    (task_id,) = submit(central, "long text")
    assert len(final(central, task_id)[0]["failures"][0]["message"]) <= 4096
    (line,) = agent.logged(f"task {task_id} failed in attempt 1 of 1: ValueError")
    assert "handlers.py" in line["traceback"]
    assert line["task"] == task_id


def test_a_task_of_a_killed_worker_is_finished_by_another_and_final_once(system: System, tmp_path: Path) -> None:
    queue = system.queue(lease_seconds=1)
    first = system.agent("handlers:gate", instance="worker-1", queue=queue)
    central = system.central(queue).ready()
    (task_id,) = submit(central, str(tmp_path))
    assert started(tmp_path) == [f"{task_id}-worker-1"]
    first.signal(signal.SIGKILL)
    system.agent("handlers:gate", instance="worker-2", queue=queue)
    started(tmp_path, 2)
    (tmp_path / "open").touch()
    (task,) = final(central, task_id)
    assert (task["state"], task["result"]["by"], task["attempts"]) == ("succeeded", "worker-2", 2)
    assert [failure["code"] for failure in task["failures"]] == ["LEASE_EXPIRED"]
    assert central.get("/v1/queues/main").json()["succeededTotal"] == 1


def test_a_worker_that_was_frozen_drops_what_is_not_its_own_any_more(system: System, tmp_path: Path) -> None:
    queue = system.queue(lease_seconds=1)
    frozen = system.agent("handlers:gate", instance="frozen", queue=queue)
    central = system.central(queue).ready()
    (task_id,) = submit(central, str(tmp_path))
    started(tmp_path)
    frozen.signal(signal.SIGSTOP)
    system.agent("handlers:gate", instance="awake", queue=queue)
    started(tmp_path, 2)
    frozen.signal(signal.SIGCONT)
    eventually((tmp_path / f"cancelled-{task_id}-frozen").exists, what="the handler of the frozen one is cancelled")
    eventually(lambda: frozen.logged(f"task {task_id} is not ours any more"), what="it says so")
    (tmp_path / "open").touch()
    (task,) = final(central, task_id)
    assert task["result"]["by"] == "awake"
    assert 'kubeagents_agent_attempts_total{outcome="lost"} 1.0' in frozen.get("/metrics").text


def test_a_task_may_take_longer_than_its_lease(system: System, tmp_path: Path) -> None:
    queue = system.queue(lease_seconds=1)
    system.agent("handlers:gate", queue=queue)
    rival = system.agent("handlers:gate", instance="rival", queue=queue)
    central = system.central(queue).ready()
    (task_id,) = submit(central, str(tmp_path))
    (only,) = started(tmp_path)
    rival.ready()
    (second,) = submit(central, "no folder")  # its retries show that time passes and leases are looked at
    eventually(
        lambda: central.get(f"/v1/queues/main/tasks/{second}").json()["attempts"] >= 2,
        what="the other task was tried twice",
    )
    (tmp_path / "open").touch()
    (task,) = final(central, task_id)
    assert task["attempts"] == 1
    assert only == f"{task_id}-{task['worker']}"


def test_a_handler_that_ignores_its_cancellation_keeps_its_slot_but_not_its_task(
    system: System, tmp_path: Path
) -> None:
    queue = system.queue(lease_seconds=1, task_timeout_seconds=0.2, retry=ONE_TRY)
    agent = system.agent("handlers:stubborn", queue=queue, drain_seconds=0)
    central = system.central(queue).ready()
    (task_id,) = submit(central, str(tmp_path))
    eventually((tmp_path / f"cancelled-{task_id}-worker-1").exists, what="the handler was told")
    eventually(lambda: agent.logged("ignores its cancellation and keeps its slot"), what="it is said")
    (task,) = final(central, task_id)
    assert [failure["code"] for failure in task["failures"]] == ["LEASE_EXPIRED"]
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


def test_a_handler_that_blocks_the_event_loop_is_told_where(system: System) -> None:
    agent = system.agent("handlers:block")
    central = system.central().ready()
    final(central, *submit(central, 2.5))
    (line,) = agent.logged("the event loop has been blocked for")
    assert "handlers.py" in line["message"]
    assert "time.sleep(task.payload)" in line["message"]
    eventually(lambda: agent.logged("the event loop was blocked for 2."), what="how long it was is said")


def test_a_restart_of_redis_loses_nothing(system: System, durable_redis: RedisServer, tmp_path: Path) -> None:
    url = durable_redis.url
    echo = system.agent(url=url, concurrency=16)
    gate = system.agent("handlers:gate", name="gate", url=url)
    central = system.central(urls=[url]).ready()
    (running,) = submit(central, str(tmp_path), agent="gate")
    started(tmp_path)
    ids = submit(central, *range(300), agent="worker")
    durable_redis.kill()
    (tmp_path / "open").touch()  # this one ends while there is no Redis: its outcome must be kept
    eventually(lambda: gate.logged("does not answer, trying on"), what="the outage is noticed")
    assert gate.get("/readyz").status_code == 503
    durable_redis.start()
    tasks = final(central.ready(), running, *ids, seconds=60)
    assert [task["state"] for task in tasks] == ["succeeded"] * 301
    assert [task["result"] for task in tasks[1:]] == list(range(300))
    assert tasks[0]["attempts"] == 1
    assert central.get("/v1/queues/main").json()["succeededTotal"] == 301
    for agent in (echo, gate):
        agent.ready()


def attempts(agent: RuntimeProcess) -> dict[str, Any]:
    """The attempts by outcome, as the metrics have them."""
    lines = [
        line for line in agent.get("/metrics").text.splitlines() if line.startswith("kubeagents_agent_attempts_total{")
    ]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_the_metrics_count_attempts_by_how_they_ended(system: System) -> None:
    queue = system.queue(retry=RetryPolicy(max_attempts=2, initial_seconds=0, max_seconds=0))
    agent = system.agent("handlers:fail", queue=queue)
    central = system.central(queue).ready()
    final(central, *submit(central, "nothing special", "nothing special", "error", "permanent"))
    eventually(
        lambda: (
            attempts(agent)
            == {"succeeded": 2.0, "failed": 2.0, "refused": 1.0, "released": 0.0, "revoked": 0.0, "lost": 0.0}
        ),
        what=f"the outcomes are counted: {attempts(agent)}",
    )
    text = agent.get("/metrics").text
    assert "kubeagents_agent_attempt_seconds_count 5.0" in text
    assert "kubeagents_agent_claimed_total 5.0" in text
    assert 'kubeagents_queue_up{queue="main"} 1.0' in text
    assert 'kubeagents_build_info{component="agent"' in text
    assert "kubeagents_event_loop_lag_seconds_count" in text
