# SPDX-License-Identifier: Apache-2.0
"""What a TaskQueue's manifest says holds on a laptop as in a cluster."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.cli.conftest import Dev, Finished
from tests.integration.cli.manifest_files import write_system
from tests.support.eventually import eventually

StartDev = Callable[..., Dev]
Run = Callable[..., Finished]


def system(folder: Path, **queue: object) -> Path:
    """The small system, with more in the spec of its queue."""
    path = write_system(folder)
    documents = list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        if document["kind"] == "TaskQueue":
            document["spec"].update(queue)
    path.write_text(yaml.safe_dump_all(documents))
    return path


def state(url: str, task: str, *, seconds: float = 0) -> str:
    answer = httpx.get(f"{url}/v1/queues/tasks/tasks/{task}/result", params={"timeoutSeconds": seconds}, timeout=60)
    return str(answer.json()["state"])


def test_a_paused_queue_holds_its_tasks_until_its_manifest_says_otherwise(dev: StartDev, tmp_path: Path) -> None:
    data = tmp_path / "data"
    session = dev(system(tmp_path, paused=True), "--data-dir", data)
    url = session.ready()
    assert 'TaskQueue "tasks" has paused: true, so agents take nothing from it' in session.output
    task = httpx.post(f"{url}/v1/tasks", json={"payload": "waits"}).json()["id"]
    assert state(url, task, seconds=1) == "queued"
    session.interrupt()
    assert session.ended() == 0

    session = dev(system(tmp_path), "--data-dir", data)
    assert state(session.ready(), task, seconds=30) == "succeeded"


def test_a_closed_queue_refuses_new_tasks(dev: StartDev, tmp_path: Path) -> None:
    url = dev(system(tmp_path, closed=True)).ready()

    answer = httpx.post(f"{url}/v1/tasks", json={"payload": "too late"})

    assert (answer.status_code, answer.json()["code"]) == (409, "QUEUE_CLOSED")


@pytest.mark.parametrize("shards", [1, 3])
def test_schedules_fire_with_their_payload(dev: StartDev, tmp_path: Path, shards: int) -> None:
    task = {"agent": "worker", "payload": {"report": ["daily", None, 1.5]}}
    schedules = [{"name": "tick", "everySeconds": 1, "task": task}]
    url = dev(system(tmp_path, schedules=schedules, shards=shards)).ready()

    def fired() -> bool:
        return bool(httpx.get(f"{url}/v1/queues/tasks").json()["succeededTotal"] >= 2)

    eventually(fired, what="two due times", timeout=30)
    events = httpx.get(f"{url}/v1/queues/tasks/events", params={"limit": 100})
    assert events.status_code == 200, events.text
    names = {event["task"] for event in events.json()["events"] if event["kind"] == "succeeded"}
    record = httpx.get(f"{url}/v1/queues/tasks/tasks/{min(names)}").json()
    assert record["id"].startswith("tick.")
    assert record["result"] == task["payload"]


def test_a_schedule_that_is_never_due_is_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    schedules = [{"name": "never", "cron": "0 0 31 2 *"}]

    ended = run("dev", str(system(tmp_path, schedules=schedules)))

    assert ended.code != 0
    assert "spec.schedules[0]: schedule 'never'" in json.dumps(ended.err).replace("\\n", " ")
