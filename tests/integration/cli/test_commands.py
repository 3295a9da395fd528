# SPDX-License-Identifier: Apache-2.0
"""The commands against a running session."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.conftest import CLI, Dev, Finished, own_environment, run_command
from tests.integration.cli.manifest_files import write_system
from tests.support.eventually import eventually

CODE = """
import asyncio
from kubeagents_api.errors import PermanentError

async def handle(task, ctx):
    match task.payload:
        case {"fail": str(why)}:
            raise PermanentError(why)
        case {"raise": str(why)}:
            raise ValueError(why)
        case {"sleep": seconds}:
            await asyncio.sleep(seconds)
    return {"got": task.payload, "type": task.type, "priority": task.priority}
"""

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Dev, str]]:
    """One session for all tests here: they only add tasks to it."""
    folder = tmp_path_factory.mktemp("world")
    environment = own_environment(folder)
    session = Dev(["--port", "0", str(write_system(folder, code=CODE))], environment=environment, folder=folder)
    try:
        url = session.ready()
        yield lambda *a, **more: run_command(a, environment=environment, folder=folder, **more), session, url
    finally:
        session.close()


@pytest.fixture(name="cli")
def _cli(world: tuple[Run, Dev, str]) -> Run:
    return world[0]


def test_submit_prints_the_id_and_result_waits_for_it(cli: Run) -> None:
    submitted = cli("submit", "--type", "greeting", "--priority", "9", '{"a": 1}')
    assert submitted.code == 0
    assert submitted.err == "1 task is on queue tasks\n"
    done = cli("result", submitted.out.strip(), "--wait", "30", "-o", "yaml")
    assert done.code == 0
    assert yaml.safe_load(done.out)["result"] == {"got": {"a": 1}, "type": "greeting", "priority": 9}


def test_many_tasks_come_back_in_the_order_of_the_file(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f'{{"n": {n}}}\n' for n in range(2500)))
    done = cli("submit", "--file", file, "--wait", "-o", "json")
    assert done.code == 0
    assert [task["result"]["got"]["n"] for task in json.loads(done.out)] == list(range(2500))
    assert "2500 succeeded, 0 did not" in done.err


def test_a_document_of_several_lines_is_one_task(cli: Run) -> None:
    done = cli("submit", "-f", "-", "--wait", "-o", "json", stdin='{\n  "a": [\n 1]\n}\n')
    assert json.loads(done.out)["result"]["got"] == {"a": [1]}


def test_a_failed_task_makes_submit_and_result_exit_1_but_not_get(cli: Run) -> None:
    done = cli("submit", "--id", "fails", "--wait", '{"fail": "no way"}')
    assert done.code == 1
    assert "state      failed" in done.out
    assert "FAILED: PermanentError: no way" in done.out
    assert cli("result", "fails").code == 1
    assert cli("get", "task", "fails").code == 0
    both = cli("submit", "-f", "-", "--wait", stdin='{"fail": "x"}\n{"a": 1}\n')
    assert both.code == 1
    assert "1 succeeded, 1 did not" in both.err
    assert len(both.out.splitlines()) == 3


def test_a_task_that_still_runs_makes_result_exit_3(cli: Run) -> None:
    cli("submit", "--id", "sleeps", '{"sleep": 3600}')
    done = cli("result", "sleeps", "--wait", "0.2")
    assert done.code == 3
    assert "1 of 1 not finished yet: --wait SECONDS waits" in done.err


def test_dead_tasks_are_shown_with_their_last_failure(cli: Run) -> None:
    assert cli("submit", "--id", "dies", "--max-attempts", "2", "--wait", '{"raise": "broken"}').code == 1
    table = cli("get", "dead")
    assert re.search(r"^dies +- +2/2 +\d+s +FAILED: ValueError: broken$", table.out, re.MULTILINE)
    assert [task["id"] for task in json.loads(cli("get", "dead", "-o", "json").out)] == ["dies"]


def test_agents_and_queues_are_shown(cli: Run) -> None:
    [agent] = json.loads(cli("get", "agents", "worker", "-o", "json").out)
    assert (agent["agent"], agent["queue"], agent["healthy"]) == ("worker", "tasks", True)
    assert cli("get", "agent").out.splitlines()[1].split()[0] == "worker"
    assert cli("get", "queues").out.splitlines()[1].split()[0] == "tasks"
    assert yaml.safe_load(cli("get", "queue", "tasks", "-o", "yaml").out)[0]["queue"] == "tasks"


def test_the_version_of_the_server_is_shown(cli: Run) -> None:
    assert re.search(r"^server +\d+\.\d+", cli("version").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("result", "nope"), "queue 'tasks' has no task 'nope'"),
        (("get", "task", "a/b?c"), "error: "),
        (("get", "queues", "other"), "does not serve a queue 'other'"),
        (("get", "agents", "nobody"), 'no instance of an agent "nobody" is known'),
        (("submit", "1", "--queue", "other"), "does not serve a queue 'other'"),
        (("submit", "1", "--agent", "No Name"), "agent: String should match pattern"),
        (("submit", "1", "--id", "bad id"), "id: String should match pattern"),
        (("logs", "nobody"), 'no running `kubeagents dev` has an agent "nobody" (they have: central, worker)'),
        (("get", "queues", "--central", "other"), "the running `kubeagents dev` has no such CentralAgent"),
        (("get", "queues", "--server", "http://127.0.0.1:1"), "cannot reach http://127.0.0.1:1 (from --server)"),
        (("get", "queues", "--server", "http://nowhere.invalid"), "cannot reach http://nowhere.invalid"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_exit_1(cli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = cli(*arguments)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err


def test_an_id_that_exists_is_refused(cli: Run) -> None:
    assert cli("submit", "1", "--id", "same").code == 0
    again = cli("submit", "1", "--id", "same")
    assert again.code == 1
    assert "has a task of this id already; nothing was queued" in again.err


def test_a_payload_over_the_limit_is_refused_with_the_limit(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text(json.dumps("x" * 2_000_000))
    done = cli("submit", "--file", file)
    assert done.code == 1
    assert "the limit is " in done.err


def _has_open(pid: int, name: str) -> bool:
    """Whether the process has a file of that name open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if descriptor.readlink().name == name:
                return True
        except FileNotFoundError:  # closed while we looked
            continue
    return False


def test_logs_can_be_followed_and_cut(cli: Run, world: tuple[Run, Dev, str], tmp_path: Path) -> None:
    assert len(cli("logs", "worker", "--tail", "1").out.splitlines()) == 1
    environment = {**os.environ, "XDG_STATE_HOME": str(world[1].state_home)}
    following = subprocess.Popen(
        [*CLI, "logs", "worker", "-f", "--tail", "0"], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert following.stdout is not None
        eventually(lambda: _has_open(following.pid, "worker-0.log"), what="the log file is open")
        cli("submit", "--wait", '{"fail": "seen in the log"}')
        assert "seen in the log" in following.stdout.readline()
        following.send_signal(2)
        assert following.wait(10) == 130
    finally:
        following.kill()
        following.wait()
        if following.stdout is not None:
            following.stdout.close()


def test_the_state_file_is_private_and_without_secrets(world: tuple[Run, Dev, str]) -> None:
    [path] = (world[1].state_home / "kubeagents" / "dev").glob("*.json")
    assert path.stat().st_mode & 0o077 == 0
    assert "redis://" not in path.read_text()
