# SPDX-License-Identifier: Apache-2.0
"""`kubeagents dev` as a real process, and the other commands against it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "examples" / "01-quickstart"
CLI = (sys.executable, "-m", "agent_runtime.cli.main")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Dev:
    """A running `kubeagents dev`."""

    def __init__(self, arguments: list[str], *, environment: dict[str, str], folder: Path) -> None:
        self._lines: list[str] = []
        self._temporary = Path(environment["TMPDIR"])
        self.state_home = Path(environment["XDG_STATE_HOME"])
        self.process = subprocess.Popen(
            [*CLI, "dev", *arguments],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    def printed(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches."""

        def look() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            if ended:
                self._reader.join(10)
            found = re.search(pattern, self.output)
            if ended and found is None:
                pytest.fail(f"it ended with {self.process.returncode} without printing {pattern!r}:\n{self.output}")
            return found

        found = eventually(look, what=f"{pattern!r} in the output", timeout=60)
        assert found is not None
        return found

    def ready(self) -> str:
        """Wait until all is ready; returns the URL of the first CentralAgent."""
        return self.printed(r"HTTP API\s+(http://\S+)/docs[\s\S]*Stop\s+Ctrl-C")[1]

    def processes(self) -> list[int]:
        """Ids of its children."""
        return [pid for pid, parent in _processes() if parent == self.process.pid]

    def child(self, *words: str) -> int:
        """Id of the child whose command line has these words."""
        for pid in self.processes():
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            if all(word in line for word in words):
                return pid
        raise AssertionError(f"no child with {words}")

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def ended(self, *, within: float = 30.0) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(within)
        self._reader.join(10)
        return code

    def temporary_files(self) -> list[str]:
        """What it has left behind."""
        return [path.name for path in self._temporary.iterdir()]

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _processes() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                yield int(entry.name), int(parent)


def gone(pids: list[int]) -> bool:
    """Whether none of the processes exists."""
    left = {pid for pid, _ in _processes()} & set(pids)
    assert not left, f"still there: {left}"
    return True


def own_environment(folder: Path) -> dict[str, str]:
    """An environment in which no session, kubeconfig or setting of anybody else can be seen."""
    for name in ("home", "tmp", "state"):
        (folder / name).mkdir()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "CI"))}
    return {
        **inherited,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_STATE_HOME": str(folder / "state"),
        "COLUMNS": "300",
        # For `python -m` in any folder.
        "PYTHONPATH": f"{ROOT / 'crds'}{os.pathsep}{ROOT}",
    }


def run_command(
    arguments: tuple[object, ...], *, environment: dict[str, str], folder: Path, stdin: str = "", **more: str
) -> Finished:
    """Run a command of the CLI to its end; `more` are further environment variables."""
    done = subprocess.run(
        [*CLI, *map(str, arguments)],
        env={**environment, **more},
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment of its own for each test."""
    return own_environment(tmp_path)


@pytest.fixture
def dev(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    """Starts `kubeagents dev` with arguments, on any port."""
    started: list[Dev] = []

    def start(*arguments: str | Path) -> Dev:
        session = Dev(["--port", "0", *map(str, arguments)], environment=environment, folder=tmp_path)
        started.append(session)
        return session

    yield start
    for session in started:
        session.close()


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., Finished]:
    """Runs a command of the CLI to its end."""
    return lambda *arguments, **more: run_command(arguments, environment=environment, folder=tmp_path, **more)
