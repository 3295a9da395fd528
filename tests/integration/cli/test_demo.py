# SPDX-License-Identifier: Apache-2.0
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.cli.conftest import CLI, QUICKSTART, Finished

Run = Callable[..., Finished]


def test_the_demo_ends_by_itself_and_exits_0_when_every_result_is_right(run: Run) -> None:
    done = run("dev", QUICKSTART, "--port", "0", "--keep-running", "--", sys.executable, QUICKSTART / "demo.py")
    assert done.code == 0, done.err
    assert "all 2030 results are right" in done.out
    assert "tasks/s" in done.out


def test_on_a_terminal_the_agents_keep_running_after_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    arguments = (
        "dev",
        str(QUICKSTART),
        "--port",
        "0",
        "--keep-running",
        "--",
        sys.executable,
        str(QUICKSTART / "demo.py"),
    )
    session = subprocess.Popen(
        [*CLI, *arguments], env=environment, cwd=tmp_path, stdout=inner, stderr=inner, start_new_session=True
    )
    os.close(inner)
    try:
        seen = read_terminal(outer, until=b"Ctrl-C stops them")
        assert b"all 2030 results are right" in seen
        assert session.poll() is None
        session.send_signal(signal.SIGINT)
        assert b"stopping: the agents finish what they run" in read_terminal(outer, until=None)
        assert session.wait(30) == 0
    finally:
        session.kill()
        session.wait()
        os.close(outer)


def read_terminal(terminal: int, *, until: bytes | None) -> bytes:
    """Read what is printed, up to some text or to the end."""
    seen = b""
    while until is None or until not in seen:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # nobody has it open any more
            chunk = b""
        if not chunk:
            assert until is None, seen.decode()
            break
        seen += chunk
    return seen


def test_the_demo_exits_1_when_one_result_is_wrong(run: Run, tmp_path: Path) -> None:
    example = tmp_path / "quickstart"
    shutil.copytree(QUICKSTART, example)
    code = example / "10-code.yaml"
    right = 'return {"echo": task.payload,'
    assert right in code.read_text()
    wrong = 'return {"echo": None if task.payload["number"] == 77 else task.payload,'
    code.write_text(code.read_text().replace(right, wrong))
    done = run("dev", example, "--port", "0", "--", sys.executable, example / "demo.py")
    assert done.code == 1
    assert "1 of 2030 results are not right" in done.out


def test_the_demo_exits_1_when_a_task_fails(run: Run, tmp_path: Path) -> None:
    example = tmp_path / "quickstart"
    shutil.copytree(QUICKSTART, example)
    code = example / "10-code.yaml"
    code.write_text(code.read_text().replace('"words": len(words)', '"words": 1 // 0'))
    queue = example / "00-queue.yaml"
    queue.write_text(queue.read_text().replace("initialSeconds: 1", "initialSeconds: 0.01"))
    done = run("dev", example, "--port", "0", "--", sys.executable, example / "demo.py")
    assert done.code == 1
    assert "ZeroDivisionError" in done.out
    assert "30 of 2030 results are not right" in done.out


def test_the_demo_without_a_server_says_how_to_run_it(run: Run, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(QUICKSTART / "demo.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "set KUBEAGENTS_SERVER or use --server" in done.stderr
