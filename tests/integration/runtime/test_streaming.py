# SPDX-License-Identifier: Apache-2.0
"""What comes bit by bit over HTTP: a queue's events, and what a task says."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeagents_api.task import ErrorBody
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

SSE = {"accept": "text/event-stream"}
AT_ONCE = RetryPolicy(max_attempts=2, initial_seconds=0, max_seconds=0)


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return system.central().ready()


def sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events: `id`, `event`, `data`, and comments as `comment`."""
    event: dict[str, Any] = {}
    for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            yield event
            event = {}


def read(central: RuntimeProcess, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """A whole stream that ends by itself."""
    with httpx.stream("GET", central.base_url + path, headers=headers, timeout=30, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(sse(answer.iter_lines()))


def expect(found: object, wanted: object) -> bool:
    """For `eventually`, which says what it found last."""
    assert found == wanted
    return True


def waits(central: RuntimeProcess) -> float:
    """How many calls wait in the CentralAgent."""
    metrics = central.get("/metrics").text.splitlines()
    return float(next(line for line in metrics if line.startswith("kubeagents_central_waits")).split()[1])


def events(central: RuntimeProcess, **query: Any) -> dict[str, Any]:
    answer = central.get("/v1/queues/main/events", **query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_events_can_be_read_on_from_any_of_them(system: System, central: RuntimeProcess) -> None:
    system.agent().ready()
    (done,) = submit(central, 1)
    final(central, done)
    eventually(lambda: expect(len(events(central)["events"]), 3), what="all has been noted")
    page = events(central)
    assert [event["kind"] for event in page["events"]] == ["submitted", "started", "succeeded"]
    assert {event["task"] for event in page["events"]} == {done}
    assert page["events"][1]["by"] == "worker-1"
    assert page["events"][2]["seconds"] >= 0
    assert page["next"] == page["events"][-1]["offset"]
    rest = events(central, after=page["events"][0]["offset"])
    assert rest["events"] == page["events"][1:]
    newest = events(central, after="$")
    assert newest["events"] == page["events"][-1:]
    assert events(central, after=page["next"]) == {"events": [], "next": page["next"]}


def test_events_are_waited_for(central: RuntimeProcess) -> None:
    begun = time.monotonic()
    assert events(central, waitSeconds=0.2)["events"] == []
    found: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: found.append(events(central, waitSeconds=25)))
    waiting.start()
    eventually(lambda: expect(waits(central), 1), what="it waits")
    submit(central, 1)
    waiting.join(20)
    assert [event["kind"] for event in found[0]["events"]] == ["submitted"]
    assert time.monotonic() - begun < 20, "it did not wait for all of its time"


@pytest.mark.parametrize("path", ["/v1/queues/main/events", "/v1/queues/main/tasks/it/stream"])
@pytest.mark.parametrize("headers", [{}, SSE])
def test_a_bad_offset_is_400(central: RuntimeProcess, path: str, headers: dict[str, str]) -> None:
    submit(central, 1, id="it")
    answer = httpx.get(f"{central.base_url}{path}?after=here", headers=headers, timeout=30, trust_env=False)
    assert (answer.status_code, ErrorBody.model_validate_json(answer.content).code) == (400, "INVALID_TASK")
    assert answer.json()["details"] == {"field": "after"}


def test_events_are_pushed_and_resumed_after_the_last_one_seen(central: RuntimeProcess) -> None:
    submit(central, 1, id="a")
    url = central.base_url + "/v1/queues/main/events"
    with httpx.stream("GET", url, headers=SSE, timeout=30, trust_env=False) as answer:
        assert answer.headers["cache-control"] == "no-store"
        stream = sse(answer.iter_lines())
        first = next(stream)
        assert (first["data"]["task"], first["id"]) == ("a", first["data"]["offset"])
        submit(central, 1, id="b")
        assert next(stream)["data"]["task"] == "b"
    submit(central, 1, id="c")
    again = {**SSE, "last-event-id": first["id"]}
    with httpx.stream("GET", url + "?after=%24", headers=again, timeout=30, trust_env=False) as answer:
        stream = sse(answer.iter_lines())
        assert [next(stream)["data"]["task"] for _ in range(2)] == ["b", "c"], "the header goes before the query"


def test_a_stream_of_events_ends_when_the_pod_stops(system: System) -> None:
    central = system.central(instance="hub-2").ready()
    submit(central, 1)
    url = central.base_url + "/v1/queues/main/events"
    with httpx.stream("GET", url, headers=SSE, timeout=30, trust_env=False) as answer:
        stream = sse(answer.iter_lines())
        next(stream)
        central.signal(signal.SIGTERM)
        assert list(stream) == [], "closed in order"
    assert central.exit_code() == 0


@pytest.fixture
def talker(system: System, tmp_path: Path) -> RuntimeProcess:
    """A CentralAgent, and an agent that runs the task `it` and waits for the gate."""
    queue = system.queue(retry=AT_ONCE)
    system.agent("speakers:speak", queue=queue).ready()
    central = system.central(queue).ready()
    submit(central, {"folder": str(tmp_path)}, id="it")
    return central


def test_a_task_is_heard_while_it_runs_and_again_afterwards(talker: RuntimeProcess, tmp_path: Path) -> None:
    path = "/v1/queues/main/tasks/it/stream"
    with httpx.stream("GET", talker.base_url + path, timeout=30, trust_env=False) as answer:
        stream = sse(answer.iter_lines())
        said = [next(stream), next(stream)]
        record = talker.get("/v1/queues/main/tasks/it").json()
        assert (record["state"], record["progress"]["fraction"], record["progress"]["message"]) == (
            "running", 0.25, "begun",
        )  # fmt: skip
        (tmp_path / "open").touch()
        said += list(stream)
    kinds = [item["data"]["kind"] for item in said]
    assert kinds == ["progress", "partial", "partial", "progress", "end"]
    assert said[0]["data"]["data"] == {"fraction": 0.25, "message": "begun"}
    assert [item["data"]["data"] for item in said[1:3]] == [{"part": 1}, "two\nlines"]
    assert said[-1] == {"event": "end", "data": {"kind": "end", "state": "succeeded"}}
    assert all(item["id"] == item["data"]["offset"] for item in said[:-1])
    assert read(talker, path, {}) == said, "what was said is kept"
    assert read(talker, path, {"last-event-id": said[1]["id"]}) == said[2:]
    assert read(talker, f"{path}?after={said[2]['id']}", {}) == said[3:]


def test_a_task_is_heard_as_lines_of_json(talker: RuntimeProcess, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    final(talker, "it")
    answer = httpx.get(
        talker.base_url + "/v1/queues/main/tasks/it/stream",
        headers={"accept": "application/x-ndjson"}, timeout=30, trust_env=False,
    )  # fmt: skip
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["kind"] for line in lines] == ["progress", "partial", "partial", "progress", "end"]


def test_a_second_attempt_says_that_it_is_one(system: System, tmp_path: Path) -> None:
    queue = system.queue(retry=AT_ONCE)
    system.agent("speakers:speak", queue=queue).ready()
    central = system.central(queue).ready()
    (tmp_path / "open").touch()
    submit(central, {"folder": str(tmp_path), "fail": True}, id="it")
    said = read(central, "/v1/queues/main/tasks/it/stream", {})
    assert [item["data"].get("attempt") for item in said] == [1, 1, 2, 2, 2, 2, None]


def test_a_task_that_is_not_known_is_404_on_a_stream_too(central: RuntimeProcess) -> None:
    answer = central.get("/v1/queues/main/tasks/nobody/stream")
    assert (answer.status_code, answer.json()["code"]) == (404, "TASK_NOT_FOUND")


def test_a_stream_whose_queue_breaks_says_so_and_ends(system: System, durable_redis: RedisServer) -> None:
    central = system.central(urls=[durable_redis.url], instance="hub-2").ready()
    submit(central, 1)
    url = central.base_url + "/v1/queues/main/events"
    with httpx.stream("GET", url, headers=SSE, timeout=60, trust_env=False) as answer:
        stream = sse(answer.iter_lines())
        next(stream)
        durable_redis.kill()
        (fault,) = [event for event in stream if "comment" not in event]
    assert fault["event"] == "fault"
    assert fault["data"]["code"] == "QUEUE_UNAVAILABLE"
    assert central.get("/v1/queues/main/events").status_code == 503


def test_a_client_that_hangs_up_leaves_nothing_behind(central: RuntimeProcess) -> None:
    submit(central, 1)
    url = central.base_url + "/v1/queues/main/events"
    with httpx.stream("GET", url, headers=SSE, timeout=30, trust_env=False) as answer:
        stream = sse(answer.iter_lines())
        next(stream)
        eventually(lambda: expect(waits(central), 1), what="it waits for more")
    eventually(lambda: expect(waits(central), 0), what="nobody waits any more")
    assert not central.logged("failed")
