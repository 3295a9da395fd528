# SPDX-License-Identifier: Apache-2.0
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.integration.cli.conftest import QUICKSTART, Dev, Finished, gone
from tests.integration.cli.manifest_files import write_system
from tests.support.eventually import eventually

StartDev = Callable[..., Dev]
Run = Callable[..., Finished]

SLOW = """
import asyncio
from pathlib import Path

async def handle(task, ctx):
    Path(task.payload["begun"]).touch()
    await asyncio.sleep(task.payload["seconds"])
    Path(task.payload["done"]).touch()
"""

DYING = """
import os, signal

async def handle(task, ctx):
    if task.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"
"""


def test_the_quickstart_runs_answers_and_leaves_nothing_behind(dev: StartDev, run: Run) -> None:
    session = dev(QUICKSTART)
    url = session.ready()
    assert "Agent          echo                2   echo:handle on tasks" in session.output
    assert httpx.get(f"{url}/readyz").status_code == 200
    done = run("submit", "--agent", "echo", "--wait", '{"text": "hello"}', "-o", "json")
    assert done.code == 0
    assert json.loads(done.out)["result"]["echo"] == {"text": "hello"}
    pids = session.processes()
    assert len(pids) == 6  # the watchdog, Valkey, and four of ours
    session.interrupt()
    assert session.ended() == 0
    assert "stopping: the agents finish what they run" in session.output
    assert gone(pids)
    assert session.temporary_files() == []
    assert run("get", "queues").code == 1


def test_lines_of_processes_have_their_names_and_are_kept_in_log_files(dev: StartDev, run: Run, tmp_path: Path) -> None:
    session = dev(write_system(tmp_path))
    session.ready()
    session.printed(r"worker-0 │ \S+ INFO +agent worker takes tasks from queue tasks")
    logs = run("logs", "worker")
    assert logs.code == 0
    assert "INFO    agent worker takes tasks from queue tasks" in logs.out
    session.interrupt()
    session.ended()
    [kept] = (tmp_path / "state" / "kubeagents" / "dev").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["central.log", "valkey.log", "worker-0.log"]


def test_the_default_port_is_8080_or_any_when_that_is_taken(
    environment: dict[str, str], tmp_path: Path, dev: StartDev
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        session = Dev([str(write_system(tmp_path))], environment=environment, folder=tmp_path)
        try:
            assert not session.ready().endswith(":8080")
        finally:
            session.close()


def test_a_port_that_is_asked_for_and_taken_is_an_error(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("dev", write_system(tmp_path), "--port", str(port))
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: port {port} is taken: choose another with --port, or leave it out to get a free one\n"


def test_bad_manifests_are_all_told_and_nothing_starts(run: Run, tmp_path: Path) -> None:
    file = write_system(tmp_path)
    file.write_text(file.read_text().replace("drainSeconds: 20", "drainSeconds: -1").replace("[{name: tasks}]", "[]"))
    done = run("dev", file)
    assert (done.code, done.out) == (1, "")
    first, *problems = done.err.splitlines()
    assert first == "error: 2 problems in the manifests; nothing was started"
    assert problems[0].startswith(f'  {file}, document 3 (line 15): Agent "worker" is invalid: spec.drainSeconds: ')
    assert problems[1].startswith(
        f'  {file}, document 4 (line 24): CentralAgent "central" is invalid: spec.queueRefs: '
    )


@pytest.mark.parametrize(
    ("code", "handler", "message"),
    [
        ("x = 1", "work:handle", "module 'work' has no attribute 'handle'"),
        ("import nowhere", "work:handle", "importing module 'work' failed: ModuleNotFoundError"),
        ("def handle(task, ctx): ...", "work:handle", "is not an async function: write `async def handle(task, ctx)`"),
    ],
)
def test_an_unknown_handler_ends_the_session_with_one_clear_error(
    run: Run, tmp_path: Path, code: str, handler: str, message: str
) -> None:
    done = run("dev", write_system(tmp_path, code=code, handler=handler), "--port", "0")
    assert done.code == 1
    [error] = [line for line in done.err.splitlines() if line]
    assert error.startswith('error: Agent "worker" cannot run: handler ')
    assert message in error
    assert error.endswith("(HandlerNotFound)")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_process_that_dies_is_started_again_and_its_task_is_done(dev: StartDev, run: Run, tmp_path: Path) -> None:
    file = write_system(tmp_path, code=DYING)
    file.write_text(file.read_text().replace("spec:\n  retry", "spec:\n  leaseSeconds: 1\n  retry"))
    session = dev(file)
    session.ready()
    done = run("submit", "--wait", "{}", "-o", "json")
    assert (done.code, json.loads(done.out)["result"]) == (0, "alive")
    assert "worker-0 was ended by SIGKILL after" in session.output


def test_ctrl_c_lets_running_tasks_finish(dev: StartDev, run: Run, tmp_path: Path) -> None:
    session = dev(write_system(tmp_path, code=SLOW))
    session.ready()
    begun, done = tmp_path / "begun", tmp_path / "done"
    run("submit", json.dumps({"begun": str(begun), "done": str(done), "seconds": 1.5}))
    eventually(begun.exists, what="the task has begun")
    session.interrupt()
    assert session.ended() == 0
    assert done.exists()


def test_a_second_ctrl_c_does_not_wait(dev: StartDev, run: Run, tmp_path: Path) -> None:
    session = dev(write_system(tmp_path, code=SLOW))
    session.ready()
    begun, done = tmp_path / "begun", tmp_path / "done"
    run("submit", json.dumps({"begun": str(begun), "done": str(done), "seconds": 3600}))
    eventually(begun.exists, what="the task has begun")
    pids = session.processes()
    session.interrupt()
    session.printed("stopping: ")
    session.interrupt()
    assert session.ended(within=10) == 0  # drainSeconds is 20
    assert gone(pids)
    assert not done.exists()
    assert session.temporary_files() == []


def test_no_process_outlives_a_session_that_is_killed(dev: StartDev, tmp_path: Path, run: Run) -> None:
    session = dev(write_system(tmp_path))
    session.ready()
    pids = session.processes()
    assert len(pids) == 4
    os.kill(session.process.pid, signal.SIGKILL)
    eventually(lambda: gone(pids), what="all processes are gone")
    assert session.temporary_files() == []
    stale = run("get", "queues")
    assert stale.code == 1
    assert "no `kubeagents dev` runs" in stale.err
    assert list((tmp_path / "state" / "kubeagents" / "dev").glob("*.json")) == []


def test_the_end_of_valkey_ends_the_session(dev: StartDev, tmp_path: Path) -> None:
    session = dev(write_system(tmp_path))
    session.ready()
    os.kill(session.child("valkey-server"), signal.SIGKILL)
    assert session.ended() == 1
    assert "error: the private Valkey has ended, and its tasks with it" in session.output


def test_a_data_folder_keeps_the_queues_and_is_used_once_at_a_time(dev: StartDev, run: Run, tmp_path: Path) -> None:
    file = write_system(tmp_path)
    data = tmp_path / "data"
    session = dev(file, "--data-dir", data)
    session.ready()
    assert run("submit", '"kept"', "--id", "one", "--wait").code == 0
    second = run("dev", file, "--port", "0", "--data-dir", data)
    assert second.code == 1
    assert "is in use by another `kubeagents dev`" in second.err
    session.interrupt()
    session.ended()
    session = dev(file, "--data-dir", data)
    session.ready()
    again = run("result", "one", "-o", "json")
    assert (again.code, json.loads(again.out)["result"]) == (0, "kept")


def test_an_external_redis_is_used_and_its_password_is_never_printed(dev: StartDev, run: Run, tmp_path: Path) -> None:
    holder = dev(write_system(tmp_path))  # its private Valkey is the external Redis of the other one
    holder.ready()
    environ = Path(f"/proc/{holder.child('-m', 'agent_runtime')}/environ").read_bytes().decode().split("\0")
    url = next(entry.partition("=")[2] for entry in environ if entry.startswith("KUBEAGENTS_QUEUE_0_URL="))
    password = httpx.URL(url).password
    assert password
    other = tmp_path / "other"
    other.mkdir()
    file = write_system(other)
    file.write_text(
        file.read_text().replace("spec:\n  retry", "spec:\n  redis: {external: {secretRef: {name: redis}}}\n  retry")
        + f'---\napiVersion: v1\nkind: Secret\nmetadata: {{name: redis}}\nstringData: {{url: "{url}"}}\n'
    )
    session = dev(file)
    session.ready()
    assert count(session, "valkey-server") == 0
    done = run("get", "agents", "--server", session.ready(), "-o", "json")
    assert len({row["instance"] for row in json.loads(done.out)}) == 2  # both sessions' workers, told apart
    assert password not in session.output + holder.output
    assert password not in "".join(path.read_text() for path in (tmp_path / "state").rglob("*") if path.is_file())


def count(session: Dev, word: str) -> int:
    """How many children have the word in their command line."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in session.processes()]
    return sum(word in line for line in lines)


def test_an_external_redis_that_does_not_answer_is_told(dev: StartDev, tmp_path: Path) -> None:
    file = write_system(tmp_path)
    file.write_text(
        file.read_text().replace("spec:\n  retry", "spec:\n  redis: {external: {secretRef: {name: redis}}}\n  retry")
        + '---\napiVersion: v1\nkind: Secret\nmetadata: {name: redis}\nstringData: {url: "redis://127.0.0.1:1/0"}\n'
    )
    session = dev(file)
    told = session.printed(r"kubeagents not ready after \d+ s: (.*)")[1]
    assert "worker-0: " in told
    session.printed("127.0.0.1:1")
    session.interrupt()
    assert session.ended() == 0


def test_a_central_agent_is_added_where_the_manifests_have_none(dev: StartDev, run: Run, tmp_path: Path) -> None:
    file = write_system(tmp_path)
    file.write_text(file.read_text().rpartition("---")[0])
    session = dev(file)
    session.ready()
    assert 'no CentralAgent in these manifests: added one, "local" for tasks' in session.output
    assert run("submit", "1", "--wait").code == 0


def test_a_command_runs_against_the_system_and_its_exit_code_counts(run: Run, tmp_path: Path) -> None:
    file = write_system(tmp_path)
    script = "import os, sys; print('at', os.environ['KUBEAGENTS_SERVER']); sys.exit(int(sys.argv[1]))"
    good = run("dev", file, "--port", "0", "--", "python3", "-c", script, "0")
    assert good.code == 0
    assert "at http://127.0.0.1:" in good.out
    assert "worker-0 │" not in good.out  # the command has the terminal
    bad = run("dev", file, "--port", "0", "--", "python3", "-c", script, "3")
    assert bad.code == 3
    assert bad.err == "error: the command ended with exit code 3\n"
