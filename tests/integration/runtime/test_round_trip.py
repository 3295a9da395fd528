# SPDX-License-Identifier: Apache-2.0
"""From a request to a result."""

import threading

import httpx

from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually


def test_a_task_travels_through_http_queue_and_handler_and_back(system: System) -> None:
    system.agent("handlers:about")
    central = system.central().ready()
    answer = central.post("/v1/tasks", {"id": "first", "type": "greeting", "priority": 7, "payload": {"n": 1}})
    assert answer.status_code == 201
    assert answer.json() == {"id": "first", "queue": "main", "state": "queued", "merged": False}
    answer = central.get("/v1/queues/main/tasks/first/result", timeoutSeconds=20)
    assert answer.status_code == 200
    task = answer.json()
    assert task["state"] == "succeeded"
    assert task["result"] == {
        "type": "greeting", "priority": 7, "attempt": 1, "instance": "worker-1", "agent": "worker", "queue": "main",
    }  # fmt: skip
    assert task["worker"] == "worker-1"
    assert central.get("/v1/queues/main/tasks/first").json() == task


def test_every_task_of_a_batch_comes_back_with_its_own_result(system: System) -> None:
    system.agent(concurrency=16)
    central = system.central().ready()
    ids = submit(central, *range(1000))
    assert [task["result"] for task in final(central, *ids)] == list(range(1000))
    stats = central.get("/v1/queues/main").json()
    assert (stats["succeededTotal"], stats["queued"], stats["running"]) == (1000, 0, 0)


def test_a_wait_that_is_too_short_says_what_is_pending(system: System) -> None:
    central = system.central().ready()
    (task_id,) = submit(central, "nobody is there")
    answer = central.get(f"/v1/queues/main/tasks/{task_id}/result", timeoutSeconds=0)
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["retry-after"] == "1"
    answer = central.post("/v1/queues/main/results", {"ids": [task_id], "timeoutSeconds": 0})
    assert (answer.status_code, answer.json()) == (200, {"tasks": [], "pending": [task_id]})


def test_a_waiting_client_is_told_when_the_task_is_done(system: System) -> None:
    central = system.central().ready()
    (task_id,) = submit(central, "later")
    answers: list[httpx.Response] = []
    path = f"/v1/queues/main/tasks/{task_id}/result"
    waiting = threading.Thread(target=lambda: answers.append(central.get(path, timeoutSeconds=60)))
    waiting.start()
    system.agent()
    waiting.join(timeout=30)
    assert [(answer.status_code, answer.json()["result"]) for answer in answers] == [(200, "later")]


def test_a_task_for_one_agent_is_left_to_it(system: System) -> None:
    system.agent("handlers:about", name="red").ready()
    central = system.central().ready()
    (for_blue,) = submit(central, None, agent="blue")
    (for_anybody,) = submit(central, None)
    assert final(central, for_anybody)[0]["result"]["agent"] == "red"
    assert central.get(f"/v1/queues/main/tasks/{for_blue}").json()["state"] == "queued"
    system.agent("handlers:about", name="blue")
    assert final(central, for_blue)[0]["result"]["agent"] == "blue"


def test_a_class_is_instantiated_once_and_keeps_its_state(system: System) -> None:
    system.agent("handlers:Counter", concurrency=1)
    central = system.central().ready()
    ids = submit(central, *[None] * 5)
    assert [task["result"] for task in final(central, *ids)] == [1, 2, 3, 4, 5]


def test_log_lines_of_a_handler_carry_the_task(system: System) -> None:
    agent = system.agent("handlers:about")
    central = system.central().ready()
    (task_id,) = submit(central, None)
    final(central, task_id)
    (by_context,) = eventually(lambda: agent.logged("said by the context"), what="the line is read")
    assert (by_context["task"], by_context["agent"], by_context["colour"]) == (task_id, "worker", "blue")
    (by_library,) = eventually(lambda: agent.logged("said by a library"), what="the line is read")
    assert (by_library["task"], by_library["instance"]) == (task_id, "worker-1")


def test_several_queues_are_served_by_one_central_agent(system: System) -> None:
    first, second = system.queue("first"), system.queue("second", index=1)
    system.agent("handlers:about", name="one", queue=first)
    system.agent("handlers:about", name="two", queue=system.queue("second"))
    central = system.central(first, second).ready()
    answer = central.post("/v1/tasks", {"payload": 1})
    assert answer.json()["queue"] == "first", "the first queue is the default"
    assert final(central, answer.json()["id"], queue="first")[0]["result"]["agent"] == "one"
    (other,) = submit(central, 1, queue="second")
    assert final(central, other, queue="second")[0]["result"]["agent"] == "two"
    assert [stats["queue"] for stats in central.get("/v1/queues").json()] == ["first", "second"]
    assert {info["agent"] for info in central.get("/v1/agents").json()} == {"one", "two"}
    assert {info["agent"] for info in central.get("/v1/agents", queue="second").json()} == {"two"}
    assert {info["agent"] for info in central.get("/v1/agents", agent="one").json()} == {"one"}
    assert central.get("/v1/agents/two").json()["healthy"] == 1
