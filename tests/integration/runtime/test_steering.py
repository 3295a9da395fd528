# SPDX-License-Identifier: Apache-2.0
"""Changing what is in a queue over HTTP: cancelling, dead tasks, gates."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeagents_api.task import ErrorBody
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

ONE_TRY = RetryPolicy(max_attempts=1, initial_seconds=0, max_seconds=0)


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return system.central().ready()


def refused(answer: httpx.Response, status: int, code: str) -> ErrorBody:
    assert answer.status_code == status, answer.text
    body = ErrorBody.model_validate_json(answer.content)
    assert body.code == code
    return body


def task(central: RuntimeProcess, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = central.get(f"/v1/queues/main/tasks/{task_id}").json()
    return found


def by_whom(central: RuntimeProcess, kind: str) -> list[Any]:
    """Who did what the queue's events tell of."""
    events = central.get("/v1/queues/main/events", limit=1000).json()["events"]
    return [event.get("by") for event in events if event["kind"] == kind]


def test_a_waiting_task_is_cancelled(central: RuntimeProcess) -> None:
    submit(central, 1, id="wrong")
    answer = central.delete("/v1/queues/main/tasks/wrong", reason="not needed", by="maria")
    assert (answer.status_code, answer.json()) == (200, {"id": "wrong", "state": "cancelled"})
    (failure,) = task(central, "wrong")["failures"]
    assert failure["code"] == "CANCELLED"
    assert "maria" in failure["message"]
    assert "not needed" in failure["message"]
    assert central.delete("/v1/queues/main/tasks/wrong").json()["state"] == "cancelled", "again does no harm"
    assert by_whom(central, "cancelled") == ["maria"]


def test_a_running_task_is_cancelled_and_its_handler_stops(
    system: System, central: RuntimeProcess, tmp_path: Path
) -> None:
    system.agent("handlers:gate").ready()
    submit(central, str(tmp_path), id="runs")
    eventually(lambda: (tmp_path / "started-runs-worker-1").exists(), what="it runs")
    assert central.delete("/v1/queues/main/tasks/runs").json()["state"] == "cancelled"
    eventually(lambda: (tmp_path / "cancelled-runs-worker-1").exists(), what="its handler is told")
    assert by_whom(central, "cancelled") == ["127.0.0.1"], "without a name it is the client's address"


def test_a_task_that_has_ended_is_left_as_it_is(system: System, central: RuntimeProcess) -> None:
    system.agent().ready()
    (done,) = submit(central, 7)
    final(central, done)
    assert central.delete(f"/v1/queues/main/tasks/{done}").json() == {"id": done, "state": "succeeded"}
    assert task(central, done)["result"] == 7


def test_many_are_cancelled_in_one_call_or_none(central: RuntimeProcess) -> None:
    ids = submit(central, 1, 2, 3)
    refused(central.post("/v1/queues/main/cancel", {"ids": [*ids, "unknown"]}), 404, "TASK_NOT_FOUND")
    assert central.get("/v1/queues/main").json()["queued"] == 3
    answer = central.post("/v1/queues/main/cancel", {"ids": ids, "reason": "all wrong", "by": "maria"})
    assert answer.json() == {"queue": "main", "tasks": [{"id": found, "state": "cancelled"} for found in ids]}
    assert central.get("/v1/queues/main").json()["cancelledTotal"] == 3


def test_the_header_says_who_asks_and_the_body_goes_before_it(central: RuntimeProcess) -> None:
    def pause(headers: dict[str, str], body: dict[str, Any]) -> httpx.Response:
        url = f"{central.base_url}/v1/queues/main/pause"
        return httpx.post(url, json=body, headers=headers, trust_env=False)

    assert pause({"x-kubeagents-by": "proxy user"}, {}).json()["pausedBy"] == ["proxy user"]
    assert pause({"x-kubeagents-by": "proxy user"}, {"by": "me"}).json()["pausedBy"] == ["me", "proxy user"]
    said = refused(pause({"x-kubeagents-by": "x" * 129}, {}), 400, "INVALID_REQUEST")
    assert "x-kubeagents-by" in said.error
    refused(pause({}, {"by": ""}), 400, "INVALID_REQUEST")
    refused(pause({}, {"by": "line\nbreak"}), 400, "INVALID_REQUEST")


def test_a_paused_queue_gives_no_tasks_until_all_have_resumed(system: System, central: RuntimeProcess) -> None:
    system.agent().ready()
    assert central.post("/v1/queues/main/pause", {"by": "a"}).json() == {
        "queue": "main", "pausedBy": ["a"], "closedBy": [],
    }  # fmt: skip
    assert central.post("/v1/queues/main/pause", {"by": "b"}).json()["pausedBy"] == ["a", "b"]
    (waits,) = submit(central, 1)
    assert central.get(f"/v1/queues/main/tasks/{waits}/result", timeoutSeconds=0.5).status_code == 202
    assert central.post("/v1/queues/main/resume", {"by": "a"}).json()["pausedBy"] == ["b"]
    assert central.get("/v1/queues/main").json()["pausedBy"] == ["b"]
    assert central.post("/v1/queues/main/resume", {"by": "b"}).json()["pausedBy"] == []
    final(central, waits)
    assert by_whom(central, "paused") == ["a", "b"]
    assert by_whom(central, "resumed")[-1] == "b"


def test_a_closed_queue_is_worked_off(system: System, central: RuntimeProcess) -> None:
    (before,) = submit(central, 1)
    assert central.post("/v1/queues/main/close", {"by": "me"}).json()["closedBy"] == ["me"]
    refused(central.post("/v1/tasks", {}), 409, "QUEUE_CLOSED")
    system.agent().ready()
    final(central, before)
    assert central.post("/v1/queues/main/open", {"by": "me"}).json()["closedBy"] == []
    assert central.post("/v1/tasks", {}).status_code == 201


def test_what_the_manifest_has_shut_is_not_opened_over_http(central: RuntimeProcess) -> None:
    for change in ("pause", "resume", "close", "open"):
        said = refused(central.post(f"/v1/queues/main/{change}", {"by": "spec"}), 400, "INVALID_REQUEST")
        assert "change the manifest" in said.error


def test_another_site_cannot_pause_a_queue_through_a_browser(central: RuntimeProcess) -> None:
    # A browser sends such a form without asking; it asks before it sends JSON.
    answer = httpx.post(f"{central.base_url}/v1/queues/main/pause", data={"by": "x"}, trust_env=False)
    refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert central.get("/v1/queues/main").json()["pausedBy"] == []


@pytest.fixture
def graveyard(system: System) -> RuntimeProcess:
    """Five dead tasks, d1 the oldest."""
    queue = system.queue(retry=ONE_TRY)
    system.agent("handlers:fail", queue=queue).ready()
    central = system.central(queue).ready()
    for number in range(1, 6):
        fields = {"type": "odd" if number % 2 else "even", "tenant": "acme" if number < 3 else "umbrella"}
        central.post("/v1/tasks", {"id": f"d{number}", "payload": "set" if number == 5 else "error", **fields})
        final(central, f"d{number}")
    return central


def dead(central: RuntimeProcess, **query: Any) -> list[str]:
    answer = central.get("/v1/queues/main/dead", **query)
    assert answer.status_code == 200, answer.text
    return [found["id"] for found in answer.json()]


def test_dead_tasks_are_found_by_what_they_are(graveyard: RuntimeProcess) -> None:
    # A result that is no JSON fails for good at once: not dead.
    assert dead(graveyard) == ["d4", "d3", "d2", "d1"]
    assert dead(graveyard, type="odd") == ["d3", "d1"]
    assert dead(graveyard, tenant="acme") == ["d2", "d1"]
    assert dead(graveyard, tenant="acme", type="even") == ["d2"]
    assert dead(graveyard, code="FAILED", worker="worker-1") == ["d4", "d3", "d2", "d1"]
    assert dead(graveyard, code="TIMEOUT") == []
    assert dead(graveyard, agent="other") == []
    died = task(graveyard, "d3")["finishedAt"]
    assert dead(graveyard, after=died) == ["d4", "d3"]
    assert dead(graveyard, before=died) == ["d2", "d1"]


def test_dead_tasks_come_in_pages_that_lead_to_one_another(graveyard: RuntimeProcess) -> None:
    pages, address = [], "/v1/queues/main/dead?limit=2&code=FAILED"
    while address:
        answer = graveyard.get(address)
        pages.append([found["id"] for found in answer.json()])
        following = answer.links.get("next", {}).get("url", "")
        address = following and f"/v1/queues/main/dead{following}"
    assert pages in ([["d4", "d3"], ["d2", "d1"]], [["d4", "d3"], ["d2", "d1"], []])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"before": "yesterday"}, "before"),
        ({"before": "2026-05-01T00:00:00"}, "before"),
        ({"tenant": "a b"}, "tenant"),
        ({"cursor": "a b"}, "cursor"),
        ({"limit": 1001}, "limit"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_malformed_filter_is_refused(central: RuntimeProcess, query: dict[str, Any], field: str) -> None:
    said = refused(central.get("/v1/queues/main/dead", **query), 400, "INVALID_REQUEST")
    assert said.details["errors"][0]["field"].split(".")[0] == field


def test_dead_tasks_are_replayed_by_filter_by_id_and_all(graveyard: RuntimeProcess) -> None:
    graveyard.post("/v1/queues/main/pause", {"by": "test"})

    def replay(body: dict[str, Any]) -> list[str]:
        answer = graveyard.post("/v1/queues/main/dead/replay", body)
        assert answer.status_code == 200, answer.text
        return sorted(answer.json()["ids"])

    assert replay({"filter": {"tenant": "acme", "type": "odd"}, "by": "maria"}) == ["d1"]
    assert replay({"ids": ["d1", "d2", "unknown"]}) == ["d2"], "what is not dead is left alone"
    assert replay({"all": True}) == ["d3", "d4"]
    assert dead(graveyard) == []
    again = task(graveyard, "d1")
    assert (again["state"], again["attempts"], again["replays"], len(again["failures"])) == ("queued", 0, 1, 1)
    assert by_whom(graveyard, "replayed")[0] == "maria"


def test_dead_tasks_are_purged_and_are_gone_for_good(graveyard: RuntimeProcess) -> None:
    answer = graveyard.post("/v1/queues/main/dead/purge", {"ids": ["d1", "d5"], "by": "maria"})
    assert answer.json() == {"queue": "main", "ids": ["d1"]}
    assert graveyard.get("/v1/queues/main/tasks/d1").status_code == 404
    assert graveyard.get("/v1/queues/main/tasks/d5").status_code == 200, "failed, not dead"
    assert sorted(graveyard.post("/v1/queues/main/dead/purge", {"all": True}).json()["ids"]) == ["d2", "d3", "d4"]
    assert graveyard.get("/v1/queues/main").json()["dead"] == 0
    assert by_whom(graveyard, "purged")[0] == "maria"


@pytest.mark.parametrize("change", ["replay", "purge"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "exactly one of ids, filter and all must be given"),
        ({"filter": {}}, "give all: true instead"),
        ({"all": False}, "all"),
        ({"all": True, "ids": ["d1"]}, "exactly one of"),
        ({"ids": []}, "ids"),
        ({"filter": {"colour": "blue"}}, "filter.colour"),
        ({"filter": {"before": "2026-05-01"}}, "filter.before"),
    ],
)
def test_a_selection_that_does_not_say_which_changes_nothing(
    central: RuntimeProcess, change: str, body: dict[str, Any], message: str
) -> None:
    said = refused(central.post(f"/v1/queues/main/dead/{change}", body), 400, "INVALID_REQUEST")
    assert message in json.dumps(said.details) + said.error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/queues/other/pause"),
        ("POST", "/v1/queues/other/cancel"),
        ("POST", "/v1/queues/other/dead/replay"),
        ("DELETE", "/v1/queues/other/tasks/x"),
        ("GET", "/v1/queues/other/events"),
        ("GET", "/v1/queues/other/schedules"),
        ("GET", "/v1/queues/other/tasks/x/stream"),
    ],
)
def test_a_queue_that_is_not_served_is_404(central: RuntimeProcess, method: str, path: str) -> None:
    body = {"ids": ["x"]} if "cancel" in path or "dead" in path else {}
    answer = httpx.request(
        method, central.base_url + path, json=body if method == "POST" else None, timeout=30, trust_env=False
    )
    refused(answer, 404, "QUEUE_NOT_FOUND")
