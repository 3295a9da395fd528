# SPDX-License-Identifier: Apache-2.0
"""Whatever a client sends, it gets an ErrorBody that says what is wrong, and never a traceback."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeagents_api.task import ErrorBody
from tests.integration.runtime.conftest import System, submit
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

LIMIT = 1_048_576
JSON = {"content-type": "application/json"}


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return system.central().ready()


@pytest.fixture
def http(central: RuntimeProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=central.base_url, timeout=30, trust_env=False) as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> ErrorBody:
    """The ErrorBody of an answer that must be a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = ErrorBody.model_validate_json(answer.content)
    assert body.code == code
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("body", "code", "error", "fields"),
    [
        (b"", "INVALID_JSON", "the body is no JSON: ", []),
        (b"{", "INVALID_JSON", "the body is no JSON: ", []),
        (b"\xff\xfe", "INVALID_JSON", "the body is no JSON: ", []),
        (b'{"payload": NaN}', "INVALID_JSON", "the body is no JSON: ", []),
        (b'{"payload": 1e999}', "INVALID_JSON", "the body is no JSON: ", []),
        (b'{"payload": "\\ud800"}', "INVALID_JSON", "the body is no JSON: ", []),
        (b'{"payload": ' + b"[" * 5000 + b"]" * 5000 + b"}", "INVALID_JSON", "the body is no JSON: ", []),
        (b"[]", "INVALID_REQUEST", "the body is not valid: Input should be an object", [""]),
        (b"null", "INVALID_REQUEST", "the body is not valid: Input should be an object", [""]),
        (b'{"colour": "blue"}', "INVALID_REQUEST", "the body is not valid: colour: Extra inputs", ["colour"]),
        (b'{"priority": 10}', "INVALID_REQUEST", "the body is not valid: priority: ", ["priority"]),
        (b'{"priority": "5"}', "INVALID_REQUEST", "the body is not valid: priority: ", ["priority"]),
        (b'{"priority": true}', "INVALID_REQUEST", "the body is not valid: priority: ", ["priority"]),
        (b'{"timeoutSeconds": 0}', "INVALID_REQUEST", "the body is not valid: timeoutSeconds: ", ["timeoutSeconds"]),
        (b'{"maxAttempts": 101}', "INVALID_REQUEST", "the body is not valid: maxAttempts: ", ["maxAttempts"]),
        (b'{"id": "a b"}', "INVALID_REQUEST", "the body is not valid: id: ", ["id"]),
        (b'{"id": ""}', "INVALID_REQUEST", "the body is not valid: id: ", ["id"]),
        (b'{"agent": "Not_A_Name"}', "INVALID_REQUEST", "the body is not valid: agent: ", ["agent"]),
        (b'{"type": 5, "priority": -1}', "INVALID_REQUEST", "the body is not valid: type: ", ["type", "priority"]),
    ],
)
def test_a_malformed_task_is_refused_and_the_field_is_named(
    http: httpx.Client, body: bytes, code: str, error: str, fields: list[str]
) -> None:
    said = refused(http.post("/v1/tasks", content=body, headers=JSON), 400, code)
    assert said.error.startswith(error)
    assert sorted(found["field"] for found in said.details.get("errors", [])) == sorted(fields)
    assert http.get("/v1/queues/main").json()["queued"] == 0


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([], "tasks"),
        ([{"priority": 1}, {"priority": 99}], "tasks.1.priority"),
        ([{"queue": "main"}, {"queue": "other"}], ""),
        ("all", "tasks"),
    ],
)
def test_a_malformed_batch_is_refused_as_a_whole(http: httpx.Client, tasks: Any, field: str) -> None:
    said = refused(http.post("/v1/tasks/batch", json={"tasks": tasks}), 400, "INVALID_REQUEST")
    assert said.details["errors"][0]["field"] == field
    assert http.get("/v1/queues/main").json()["queued"] == 0


def test_a_number_that_no_result_could_hold_is_refused(http: httpx.Client) -> None:
    said = refused(
        http.post("/v1/tasks", content=b'{"payload": [1' + b"0" * 30 + b"]}", headers=JSON), 400, "INVALID_TASK"
    )
    assert said.details == {"field": "payload"}


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json_is_refused(http: httpx.Client, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    said = refused(http.post("/v1/tasks", content=b"{}", headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert "Content-Type: application/json" in said.error


def test_an_id_that_exists_is_refused_and_the_first_task_is_kept(http: httpx.Client) -> None:
    assert http.post("/v1/tasks", json={"id": "once", "payload": 1}).status_code == 201
    said = refused(http.post("/v1/tasks", json={"id": "once", "payload": 2}), 409, "DUPLICATE_TASK")
    assert "'once'" in said.error
    assert said.details == {"field": "id"}
    assert http.get("/v1/queues/main/tasks/once").json()["payload"] == 1


def test_a_payload_may_have_exactly_the_size_that_the_queue_takes(http: httpx.Client) -> None:
    text = "x" * (LIMIT - 2)  # and two quotes
    assert http.post("/v1/tasks", json={"payload": text}).status_code == 201
    said = refused(http.post("/v1/tasks", json={"payload": text + "x"}), 413, "PAYLOAD_TOO_LARGE")
    assert f"{LIMIT + 1} bytes" in said.error
    said = refused(
        http.post("/v1/tasks/batch", json={"tasks": [{}, {"payload": text + "x"}]}), 413, "PAYLOAD_TOO_LARGE"
    )
    assert http.get("/v1/queues/main").json()["queued"] == 1


def test_a_body_over_the_limit_is_refused_before_it_is_read(central: RuntimeProcess) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n"
    answer = raw(central, head)  # not one byte of the body is sent
    assert answer.startswith(b"HTTP/1.1 413 ")
    body = ErrorBody.model_validate_json(answer.partition(b"\r\n\r\n")[2])
    assert (body.code, body.details) == ("BODY_TOO_LARGE", {"limitBytes": LIMIT + 65536})


def test_a_body_of_unknown_length_is_measured_while_it_is_read(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"payload": "'
        for _ in range(40):
            yield b"x" * 65536
        yield b'"}'

    refused(http.post("/v1/tasks", content=chunks(), headers=JSON), 413, "BODY_TOO_LARGE")


def test_a_batch_over_the_limit_says_to_split_it(http: httpx.Client) -> None:
    tasks = [{"payload": "x" * 900_000}] * 38
    said = refused(http.post("/v1/tasks/batch", json={"tasks": tasks}), 413, "BODY_TOO_LARGE")
    assert said.error.endswith("the limit is 33554432: split the batch")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/v1/queues/", 404, "NOT_FOUND"),
        ("GET", "/v1/queues/main/tasks/missing", 404, "TASK_NOT_FOUND"),
        ("GET", "/v1/queues/main/tasks/missing/result", 404, "TASK_NOT_FOUND"),
        ("GET", "/v1/queues/main/tasks/a%20b", 400, "INVALID_REQUEST"),
        ("GET", "/v1/queues/other", 404, "QUEUE_NOT_FOUND"),
        ("GET", "/v1/queues/other/dead", 404, "QUEUE_NOT_FOUND"),
        ("GET", "/v1/queues/other/tasks/x", 404, "QUEUE_NOT_FOUND"),
        ("GET", "/v1/agents?queue=other", 404, "QUEUE_NOT_FOUND"),
        ("GET", "/v1/agents?quue=main", 400, "INVALID_REQUEST"),
        ("GET", "/v1/agents/missing", 404, "AGENT_NOT_FOUND"),
        ("GET", "/v1/queues/main/dead?limit=0", 400, "INVALID_REQUEST"),
        ("GET", "/v1/queues/main/tasks/x/result?timeoutSeconds=soon", 400, "INVALID_REQUEST"),
        ("GET", "/v1/queues/main/tasks/x/result?timeoutSeconds=301", 400, "INVALID_REQUEST"),
        ("GET", "/v1/queues/main/tasks/x/result?timeoutSeconds=nan", 400, "INVALID_REQUEST"),
        ("GET", "/v1/tasks", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/queues/main", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/readyz", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_what_does_not_exist_is_refused(http: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = http.request(method, path)
    refused(answer, status, code)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "body",
    [
        {"ids": []},
        {"ids": "x"},
        {"ids": ["x"], "timeoutSeconds": -1},
        {"ids": ["x"], "timeoutSeconds": "5"},
        {"ids": ["a b"]},
        {"ids": [f"t{n}" for n in range(10_001)]},
        {},
    ],
)
def test_a_malformed_wait_is_refused(http: httpx.Client, body: Any) -> None:
    refused(http.post("/v1/queues/main/results", json=body), 400, "INVALID_REQUEST")


def test_waiting_for_a_task_that_does_not_exist_does_not_wait(http: httpx.Client, central: RuntimeProcess) -> None:
    ids = [*submit(central, 1), "missing"]
    said = refused(
        http.post("/v1/queues/main/results", json={"ids": ids, "timeoutSeconds": 300}), 404, "TASK_NOT_FOUND"
    )
    assert "'missing'" in said.error


def raw(central: RuntimeProcess, data: bytes) -> bytes:
    """What comes back for bytes on a bare connection, up to its end or a whole answer."""
    with socket.create_connection(("127.0.0.1", central.port), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while b"}}" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_body_too(central: RuntimeProcess, data: bytes) -> None:
    head, _, body = raw(central, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert ErrorBody.model_validate_json(body).code == "INVALID_HTTP"
    assert central.get("/healthz").status_code == 200


def test_a_request_keeps_its_id_in_answer_and_log(http: httpx.Client, central: RuntimeProcess) -> None:
    answer = http.get("/with-an-id", headers={"x-request-id": "my-own.id:1"})
    assert answer.headers["x-request-id"] == "my-own.id:1"
    (line,) = eventually(lambda: central.logged("GET /with-an-id -> 404"), what="it is logged")
    assert line["request"] == "my-own.id:1"
    made_up = {
        http.get("/nowhere", headers={"x-request-id": bad}).headers["x-request-id"] for bad in ("a b", "", "x" * 129)
    }
    assert len(made_up) == 3
    assert all(len(request_id) == 32 for request_id in made_up)


def test_a_broken_queue_is_503_and_the_others_are_served(system: System, redis_binary: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "second").mkdir()
    with RedisServer(redis_binary, folder) as second:
        urls = [system.redis.url, second.url]
        central = system.central(system.queue("good"), system.queue("bad", index=1), urls=urls).ready()
        submit(central, 1, queue="bad")
        second.kill()
        answer = central.get("/v1/queues/bad")
        assert "does not answer" in refused(answer, 503, "QUEUE_UNAVAILABLE").error
        assert answer.headers["retry-after"] == "2"
        refused(central.post("/v1/tasks", {"queue": "bad"}), 503, "QUEUE_UNAVAILABLE")
        submit(central, 1, queue="good")
        ready = central.get("/readyz")
        assert ready.status_code == 200, "one broken queue does not take the others down"
        checks = ready.json()["checks"]
        assert checks["queue good"] == "ok"
        assert "does not answer" in checks["queue bad"]
        status = central.get("/v1/status").json()
        assert [("trouble" in queue, "stats" in queue) for queue in status["queues"]] == [(False, True), (True, False)]
        metrics = central.get("/metrics").text
        assert 'kubeagents_queue_up{queue="bad"} 0.0' in metrics
        assert 'kubeagents_queue_up{queue="good"} 1.0' in metrics
        second.start()
        eventually(lambda: central.get("/readyz").json()["checks"]["queue bad"] == "ok", what="it is back")


def test_ids_and_queue_names_are_quoted_and_never_markup(http: httpx.Client) -> None:
    said = refused(http.get("/v1/queues/%3Cscript%3E"), 404, "QUEUE_NOT_FOUND")
    assert json.loads(json.dumps(said.error)).startswith("this CentralAgent does not serve a queue '<script>'")
