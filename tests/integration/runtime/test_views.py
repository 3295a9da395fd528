# SPDX-License-Identifier: Apache-2.0
"""What a CentralAgent shows: registry, status, pages, OpenAPI, probes; and what its leader does."""

import re
import signal
from typing import Any

import pytest

from agent_runtime.adapters.calls.work import WORK
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

ONE_TRY = RetryPolicy(max_attempts=1, initial_seconds=0, max_seconds=0)


def test_a_silent_process_is_unhealthy_and_later_forgotten(system: System) -> None:
    agent = system.agent()
    central = system.central(agent_timeout_seconds=1).ready()
    agent.ready()

    def healthy() -> Any:
        seen = central.get("/v1/agents/worker").json()
        return seen if seen["healthy"] == 1 else None

    seen = eventually(healthy, what="it is known and healthy")
    assert seen["known"] == 1
    (info,) = seen["instances"]
    assert (info["instance"], info["queue"], info["concurrency"], info["running"]) == ("worker-1", "main", 4, 0)
    agent.signal(signal.SIGKILL)
    eventually(lambda: central.get("/v1/agents/worker").json()["healthy"] == 0, what="it is unhealthy")
    eventually(lambda: central.get("/v1/agents").json() == [], what="the leader has forgotten it")
    assert central.logged("forgot agent processes that were silent for over 10 s: worker-1")
    assert central.get("/v1/agents/worker").status_code == 404
    eventually(lambda: 'agent="worker"' not in central.get("/metrics").text, what="the metrics have forgotten it too")


def test_who_leads_is_in_status_and_metrics(system: System) -> None:
    central = system.central().ready()
    assert central.get("/v1/status").json()["leader"] == "hub-1"
    assert "kubeagents_central_leader 1.0" in central.get("/metrics").text


def test_requests_are_counted_by_route_and_not_by_path(system: System) -> None:
    central = system.central().ready()
    central.get("/v1/queues/main/tasks/some-id")
    central.get("/somewhere/else")
    text = central.get("/metrics").text
    route = "/v1/queues/{queue}/tasks/{task}"
    assert f'kubeagents_http_requests_total{{method="GET",route="{route}",status="404"}}' in text
    assert 'kubeagents_http_requests_total{method="GET",route="none",status="404"}' in text
    assert "some-id" not in text


def test_dead_tasks_are_listed_newest_first(system: System) -> None:
    queue = system.queue(retry=ONE_TRY)
    system.agent("handlers:fail", queue=queue)
    central = system.central(queue).ready()
    for payload in ("error", "exit"):
        final(central, *submit(central, payload))
    dead = central.get("/v1/queues/main/dead").json()
    assert [task["payload"] for task in dead] == ["exit", "error"]
    assert len(central.get("/v1/queues/main/dead", limit=1).json()) == 1


def test_the_status_has_queues_and_agents_in_one_look(system: System) -> None:
    system.agent().ready()
    central = system.central().ready()
    final(central, *submit(central, 1))
    status = central.get("/v1/status").json()
    assert (status["name"], status["instance"]) == ("hub", "hub-1")
    assert [queue["stats"]["succeededTotal"] for queue in status["queues"]] == [1]
    assert [(agent["agent"], agent["healthy"]) for agent in status["agents"]] == [("worker", 1)]
    eventually(
        lambda: (
            'kubeagents_agent_instances{agent="worker",health="healthy",queue="main"} 1.0'
            in central.get("/metrics").text
        ),
        what="the metrics have the agent",
    )


def test_the_metrics_of_a_queue_have_its_states_its_totals_and_its_gates(system: System) -> None:
    central = system.central(instance="hub-2").ready()
    ids = submit(central, 1, 2)
    submit(central, 3, dependsOn=[ids[0]])
    submit(central, 4, agent="nobody")
    central.post("/v1/queues/main/cancel", {"ids": [ids[1]]})
    central.post("/v1/queues/main/pause", {"by": "test"})
    lines = [
        'kubeagents_queue_tasks{queue="main",state="queued"} 2.0',
        'kubeagents_queue_tasks{queue="main",state="blocked"} 1.0',
        'kubeagents_queue_tasks{queue="main",state="unroutable"} 1.0',
        'kubeagents_queue_submitted_tasks_total{queue="main"} 4.0',
        'kubeagents_queue_ended_tasks_total{queue="main",state="cancelled"} 1.0',
        'kubeagents_queue_ended_tasks_total{queue="main",state="succeeded"} 0.0',
        'kubeagents_queue_shut{gate="claims",queue="main"} 1.0',
        'kubeagents_queue_shut{gate="submissions",queue="main"} 0.0',
    ]

    def shown() -> bool:
        text = central.get("/metrics").text
        assert [line for line in lines if line not in text] == []
        return True

    eventually(shown, what="the metrics show it")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere(system: System, path: str) -> None:
    answer = system.central().ready().get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"(?:https?:)?//[a-z]", answer.text.replace("// ", "")), "no address of another host"
    assert not re.search(r"""(?:href|fetch\()=?["']/""", answer.text), "addresses are relative: it works behind a proxy"


def openapi(central: RuntimeProcess) -> dict[str, Any]:
    document: dict[str, Any] = central.get("/openapi.json").json()
    return document


def references(part: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(value) for value in part.values()))
    return set().union(*(references(value) for value in part)) if isinstance(part, list) else set()


def test_openapi_describes_every_operation_with_its_errors(system: System) -> None:
    document = openapi(system.central().ready())
    assert document["openapi"].startswith("3.1")
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {
        "POST /v1/tasks",
        "POST /v1/tasks/batch",
        "GET /v1/queues",
        "GET /v1/queues/{queue}",
        "GET /v1/queues/{queue}/dead",
        "POST /v1/queues/{queue}/results",
        "GET /v1/queues/{queue}/tasks/{task}",
        "GET /v1/queues/{queue}/tasks/{task}/result",
        "GET /v1/queues/{queue}/tasks/{task}/stream",
        "DELETE /v1/queues/{queue}/tasks/{task}",
        "POST /v1/queues/{queue}/cancel",
        "POST /v1/queues/{queue}/dead/replay",
        "POST /v1/queues/{queue}/dead/purge",
        "POST /v1/queues/{queue}/pause",
        "POST /v1/queues/{queue}/resume",
        "POST /v1/queues/{queue}/close",
        "POST /v1/queues/{queue}/open",
        "POST /v1/queues/{queue}/cordon",
        "POST /v1/queues/{queue}/uncordon",
        "GET /v1/queues/{queue}/events",
        "GET /v1/queues/{queue}/schedules",
        *(f"POST /v1/queues/{{queue}}/work/{call}" for call in (*WORK, "revoked")),
        "POST /v1/messages",
        "POST /v1/messages/receive",
        "GET /v1/agents",
        "GET /v1/agents/{agent}",
        "GET /v1/status",
        "POST /v1/keys",
        "GET /v1/keys",
        "DELETE /v1/keys/{key}",
        "GET /v1/audit",
    }
    for name, operation in operations.items():
        errors = {status: answer for status, answer in operation["responses"].items() if not status.startswith("2")}
        assert "422" not in errors, f"{name}: malformed requests are 400 here"
        assert "default" in errors
        for answer in errors.values():
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}, name
        assert operation["summary"], name
        if name.startswith("POST"):
            assert "example" in operation["requestBody"]["content"]["application/json"], name
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_the_examples_of_the_documentation_work(system: System) -> None:
    central = system.central().ready()
    paths = openapi(central)["paths"]

    def example(path: str) -> Any:
        return paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]

    assert central.post("/v1/tasks", example("/v1/tasks")).status_code == 201
    assert central.post("/v1/tasks/batch", example("/v1/tasks/batch")).status_code == 201
    wait = example("/v1/queues/{queue}/results")
    for task_id in wait["ids"]:
        assert central.post("/v1/tasks", {"id": task_id}).status_code == 201
    answer = central.post("/v1/queues/main/results", {**wait, "timeoutSeconds": 0})
    assert answer.json()["pending"] == wait["ids"]
    (instance,) = example("/v1/queues/{queue}/cordon")["instances"]
    system.agent(instance=instance).ready()
    for path in paths:
        if "post" in paths[path] and path.startswith("/v1/queues/") and not path.endswith("/revoked"):
            body = example(path) | ({"waitSeconds": 0} if path.endswith("/claim") else {})
            asked = central.post(path.replace("{queue}", "main"), body)
            assert asked.status_code == 200, f"{path}: {asked.text}"


def test_an_agent_has_probes_and_nothing_else(system: System) -> None:
    agent = system.agent().ready()
    assert agent.get("/readyz").json() == {
        "ok": True,
        "checks": {"handler": "ok", "queue": "ok", "claiming": "ok", "heartbeat": "ok", "draining": "ok"},
    }
    assert agent.get("/healthz").json() == {"ok": True, "checks": {"claiming": "ok"}}
    answer = agent.get("/v1/tasks")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_a_busy_agent_stays_ready(system: System, tmp_path: Any) -> None:
    agent = system.agent("handlers:gate", concurrency=1)
    central = system.central().ready()
    submit(central, str(tmp_path), str(tmp_path))
    eventually(lambda: list(tmp_path.glob("started-*")), what="its only slot is taken")
    agent.ready()
    assert "kubeagents_agent_running 1.0" in agent.get("/metrics").text


def test_a_frozen_redis_makes_an_agent_not_ready(system: System, durable_redis: Any) -> None:
    agent = system.agent(url=durable_redis.url).ready()
    durable_redis.freeze()
    eventually(lambda: agent.get("/readyz").status_code == 503, what="it is not ready", timeout=60)
    assert agent.get("/healthz").status_code == 200
    durable_redis.thaw()
    agent.ready()
