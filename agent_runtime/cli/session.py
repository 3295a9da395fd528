# SPDX-License-Identifier: Apache-2.0
"""State files of running `kubeagents dev` sessions: how other commands find them.

A session holds a lock on its file for as long as it lives, and the kernel drops the lock with the process, however it
ends. So a file without a lock is stale, whatever is in it, and a reused process id cannot fool anybody.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent_runtime.cli.errors import CliError

KEPT_LOG_FOLDERS = 5
"""Log folders of ended sessions that are kept, newest first."""


@dataclass(frozen=True)
class CentralEntry:
    """A CentralAgent of a session."""

    name: str
    namespace: str
    url: str


@dataclass(frozen=True)
class LogEntry:
    """The log file of one process. It lasts longer than the process: restarts append."""

    owner: str
    """The Agent or CentralAgent."""
    process: str
    path: Path


@dataclass(frozen=True)
class Session:
    """A running `kubeagents dev`."""

    id: str
    pid: int
    paths: tuple[str, ...]
    """The manifests it was started with."""
    centrals: tuple[CentralEntry, ...]
    logs: tuple[LogEntry, ...]


def state_folder() -> Path:
    """`$XDG_STATE_HOME/kubeagents/dev`, by default under ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "kubeagents" / "dev"


def log_folder(session_id: str) -> Path:
    """Where a session keeps the logs of its processes."""
    return state_folder() / session_id


class SessionFile:
    """The state file of this process's own session; only this user can read it."""

    def __init__(self, session: Session) -> None:
        """Write and lock it. Raises CliError if the state folder cannot be written."""
        self._path = state_folder() / f"{session.id}.json"
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.write(self._file, json.dumps(asdict(session), indent=2, default=str).encode())
            temporary.rename(self._path)  # the lock is on the file, not on its name
        except OSError as error:
            raise CliError(
                f"cannot write the state file {self._path}: {error.strerror}; set XDG_STATE_HOME to a folder of yours"
            ) from error

    def remove(self) -> None:
        """The session is over."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def running_sessions() -> list[Session]:
    """The sessions that run now, newest first. Stale files are removed on the way."""
    return [session for path in _newest_first(state_folder().glob("*.json")) if (session := _read(path)) is not None]


def prune_logs(*, keep: str) -> None:
    """Remove the log folders of ended sessions, except for the newest few and that of the session `keep`."""
    live = {keep, *(session.id for session in running_sessions())}
    ended = [f for f in _newest_first(state_folder().glob("*")) if f.is_dir() and f.name not in live]
    for folder in ended[KEPT_LOG_FOLDERS:]:
        shutil.rmtree(folder, ignore_errors=True)


def _newest_first(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.name, reverse=True)


def _read(path: Path) -> Session | None:
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _parse(file.read(), path)
        path.unlink(missing_ok=True)  # nobody holds it: its session was killed
    except FileNotFoundError:
        pass  # ended while we looked
    except OSError as error:
        raise CliError(f"cannot read the state file {path}: {error.strerror}; remove it if it is not yours") from error
    return None


def _parse(text: bytes, path: Path) -> Session:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Session).validate_json(text)
    except ValidationError as error:
        raise CliError(
            f"{path} was written by another version of kubeagents: stop that `kubeagents dev`, or use --server"
        ) from error
