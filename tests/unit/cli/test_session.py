# SPDX-License-Identifier: Apache-2.0
import fcntl
import stat
from pathlib import Path

import pytest

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.session import (
    KEPT_LOG_FOLDERS,
    CentralEntry,
    LogEntry,
    Session,
    SessionFile,
    log_folder,
    prune_logs,
    running_sessions,
    state_folder,
)


def session(name: str = "20260101-000000-1") -> Session:
    return Session(
        id=name,
        pid=1,
        paths=("agents.yaml",),
        centrals=(CentralEntry("central", "default", "http://127.0.0.1:8080"),),
        logs=(LogEntry("echo", "echo-0", Path("/logs/echo-0.log")),),
    )


def test_a_running_session_is_found_as_it_was_written() -> None:
    file = SessionFile(session())
    assert running_sessions() == [session()]
    file.remove()
    assert running_sessions() == []


def test_the_state_file_is_for_its_user_only() -> None:
    file = SessionFile(session())
    [path] = state_folder().glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.remove()


def test_a_file_whose_session_was_killed_is_stale_and_removed() -> None:
    SessionFile(session()).remove()
    stale = state_folder() / "20260101-000000-1.json"
    stale.write_text("{}")
    assert running_sessions() == []
    assert not stale.exists()


def test_a_session_of_another_version_is_an_error_that_says_what_to_do() -> None:
    state_folder().mkdir(parents=True)
    path = state_folder() / "20260101-000000-1.json"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write('{"id": "x"}')
        file.flush()
        with pytest.raises(CliError, match="written by another version of kubeagents: stop that `kubeagents dev`"):
            running_sessions()


def test_a_state_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(CliError, match="set XDG_STATE_HOME to a folder of yours"):
        SessionFile(session())


def test_old_log_folders_go_and_those_of_running_sessions_stay() -> None:
    names = [f"2026010{day}-000000-1" for day in range(1, 9)]
    for name in names:
        log_folder(name).mkdir(parents=True)
    file = SessionFile(session(names[0]))
    prune_logs(keep=names[1])
    left = sorted(path.name for path in state_folder().iterdir() if path.is_dir())
    assert left == [*names[:2], *names[-KEPT_LOG_FOLDERS:]]
    file.remove()
