# SPDX-License-Identifier: Apache-2.0
"""What the answer to a submission says, and that what is refused leaves nothing behind."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from kubeagents_api.limits import QueueLimits
from kubeagents_api.task import ErrorBody
from tests.integration.runtime.conftest import System, final, submit
from tests.support.runtime_process import RuntimeProcess


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return system.central().ready()


def refused(answer: httpx.Response, status: int, code: str) -> ErrorBody:
    assert answer.status_code == status, answer.text
    body = ErrorBody.model_validate_json(answer.content)
    assert body.code == code
    return body


def figures(central: RuntimeProcess, queue: str = "main") -> dict[str, int]:
    stats = central.get(f"/v1/queues/{queue}").json()
    return {state: stats[state] for state in ("queued", "scheduled", "blocked", "running", "submittedTotal")}


NOTHING = {"queued": 0, "scheduled": 0, "blocked": 0, "running": 0, "submittedTotal": 0}


def moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("task", "state"),
    [
        ({}, "queued"),
        ({"delaySeconds": 0}, "queued"),
        ({"delaySeconds": 60}, "scheduled"),
        ({"notBefore": moment(3600)}, "scheduled"),
        ({"notBefore": moment(-3600)}, "queued"),
        ({"dependsOn": ["parent"]}, "blocked"),
        ({"dependsOn": ["parent"], "delaySeconds": 60}, "blocked"),
    ],
)
def test_the_answer_says_where_the_task_was_put(central: RuntimeProcess, task: dict[str, Any], state: str) -> None:
    submit(central, 0, id="parent")
    answer = central.post("/v1/tasks", {"id": "it", **task})
    assert answer.status_code == 201
    assert answer.json() == {"id": "it", "queue": "main", "state": state, "merged": False}
    assert central.get("/v1/queues/main/tasks/it").json()["state"] == state


def test_a_merged_task_is_200_with_the_earlier_id_and_state(system: System, central: RuntimeProcess) -> None:
    first = central.post("/v1/tasks", {"idempotencyKey": "bill-7"})
    assert first.status_code == 201
    again = central.post("/v1/tasks", {"idempotencyKey": "bill-7"})
    assert again.status_code == 200
    assert again.json() == {"id": first.json()["id"], "queue": "main", "state": "queued", "merged": True}
    system.agent().ready()
    final(central, first.json()["id"])
    named = central.post("/v1/tasks", {"id": "other", "idempotencyKey": "bill-7"})
    assert (named.status_code, named.json()["state"]) == (200, "succeeded")
    assert central.get("/v1/queues/main/tasks/other").status_code == 404


def test_a_batch_says_which_tasks_were_merged(central: RuntimeProcess) -> None:
    (known,) = submit(central, 0, idempotencyKey="a")
    tasks = [{"idempotencyKey": "b"}, {"idempotencyKey": "a"}, {}, {"idempotencyKey": "b"}]
    answer = central.post("/v1/tasks/batch", {"tasks": tasks})
    ids = answer.json()["ids"]
    assert (answer.status_code, ids[1], ids[3]) == (201, known, ids[0])
    assert answer.json()["merged"] == [known, ids[0]]
    assert figures(central)["queued"] == 3


def test_merging_is_told_for_a_queue_in_shards_too(system: System) -> None:
    central = system.central(system.queue(shards=4)).ready()
    for key in ("a", "b", "c", "d", "e"):
        first = central.post("/v1/tasks", {"idempotencyKey": key})
        again = central.post("/v1/tasks", {"idempotencyKey": key})
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["id"] == first.json()["id"]
    events = central.get("/v1/queues/main/events").json()
    assert sorted(event["kind"] for event in events["events"]) == ["merged"] * 5 + ["submitted"] * 5
    assert central.get("/v1/queues/main/events", after=events["next"]).json()["events"] == []


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"delaySeconds": -1}, "delaySeconds"),
        ({"delaySeconds": 31536001}, "delaySeconds"),
        ({"notBefore": "tomorrow"}, "notBefore"),
        ({"notBefore": "2026-05-01T12:00:00"}, "notBefore"),
        ({"deadline": "2026-05-01T12:00:00"}, "deadline"),
        ({"dependsOn": "x"}, "dependsOn"),
        ({"dependsOn": ["a b"]}, "dependsOn.0"),
        ({"onParentFailure": "fail"}, "onParentFailure"),
        ({"tenant": "a b"}, "tenant"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "x" * 257}, "idempotencyKey"),
        ({"capability": "Not_A_Name"}, "capability"),
        ({"instance": ""}, "instance"),
        ({"agent": "a", "capability": "b"}, ""),
        ({"delaySeconds": 1, "notBefore": moment(60)}, ""),
        ({"notBefore": moment(60), "deadline": moment(30)}, ""),
        ({"id": "me", "dependsOn": ["me"]}, ""),
        ({"dependsOn": ["x", "x"]}, ""),
    ],
)
def test_a_malformed_task_is_refused_and_nothing_is_written(
    central: RuntimeProcess, task: dict[str, Any], field: str
) -> None:
    said = refused(central.post("/v1/tasks", task), 400, "INVALID_REQUEST")
    assert [found["field"] for found in said.details["errors"]] == [field]
    refused(central.post("/v1/tasks/batch", {"tasks": [{}, task]}), 400, "INVALID_REQUEST")
    assert figures(central) == NOTHING
    assert central.get("/v1/queues/main/events").json()["events"] == []


@pytest.mark.parametrize(
    ("tasks", "status", "code", "field"),
    [
        ([{}, {"dependsOn": ["unknown"]}], 400, "INVALID_TASK", "dependsOn"),
        ([{"id": "a", "dependsOn": ["b"]}, {"id": "b", "dependsOn": ["a"]}], 400, "INVALID_TASK", "dependsOn"),
        ([{"id": "a", "dependsOn": ["c"]}, {"id": "b", "dependsOn": ["a"]}, {"id": "c", "dependsOn": ["b"]}],
         400, "INVALID_TASK", "dependsOn"),
        ([{"id": "a"}, {}, {"id": "a"}], 409, "DUPLICATE_TASK", "id"),
        ([{}, {"payload": "x" * 1_048_577}], 413, "PAYLOAD_TOO_LARGE", "payload"),
    ],
)  # fmt: skip
def test_what_the_queue_refuses_names_code_and_field_and_nothing_is_written(
    central: RuntimeProcess, tasks: list[dict[str, Any]], status: int, code: str, field: str
) -> None:
    said = refused(central.post("/v1/tasks/batch", {"tasks": tasks}), status, code)
    assert said.details == {"field": field}
    assert figures(central) == NOTHING
    assert central.get("/v1/queues/main/events").json()["events"] == []


def test_a_task_that_waits_for_an_unknown_one_is_refused(central: RuntimeProcess) -> None:
    said = refused(central.post("/v1/tasks", {"dependsOn": ["nobody"]}), 400, "INVALID_TASK")
    assert "nobody" in said.error
    assert said.details == {"field": "dependsOn"}


def test_a_full_queue_is_429_and_says_when_to_try_again(system: System) -> None:
    queue = system.queue(limits=QueueLimits(max_depth=2))
    central = system.central(queue).ready()
    submit(central, 1)
    answer = central.post("/v1/tasks/batch", {"tasks": [{}, {}]})
    refused(answer, 429, "QUEUE_FULL")
    assert int(answer.headers["retry-after"]) >= 1
    assert figures(central)["queued"] == 1, "all or none"
    submit(central, 1)
    refused(central.post("/v1/tasks", {}), 429, "QUEUE_FULL")


def test_a_client_that_hangs_up_does_not_submit_any_more(system: System) -> None:
    queue = system.queue(limits=QueueLimits(max_depth=1, when_full="Block", block_seconds=600))
    central = system.central(queue).ready()
    (first,) = submit(central, 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(central.base_url + "/v1/tasks", json={"id": "late"}, timeout=1, trust_env=False)
    central.delete(f"/v1/queues/main/tasks/{first}")
    submit(central, 1)  # there is room, and it is not for the one that has gone
    assert central.get("/v1/queues/main/tasks/late").status_code == 404


def test_a_closed_queue_is_409(system: System, central: RuntimeProcess) -> None:
    assert central.post("/v1/queues/main/close", {"by": "test"}).status_code == 200
    said = refused(central.post("/v1/tasks", {}), 409, "QUEUE_CLOSED")
    assert "closed to new tasks" in said.error
    assert figures(central) == NOTHING
