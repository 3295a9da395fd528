# SPDX-License-Identifier: Apache-2.0
"""Log files of a local session: their last lines, and what is added to them."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from agent_runtime.cli.session import LogEntry, running_sessions

_LOOK_SECONDS = 0.2


def show_files(entries: Sequence[LogEntry], *, tail: int | None, follow: bool) -> None:
    """Print the logs, one process after the other; then, if following, new lines until the session ends."""
    names = {entry.path: f"{entry.process} │ " if len(entries) > 1 else "" for entry in entries}
    files: list[tuple[str, BinaryIO]] = []
    try:
        for entry in entries:
            if entry.path.exists():
                file: BinaryIO = entry.path.open("rb")
                files.append((names[entry.path], file))
                lines: Iterable[bytes] = file if tail is None else deque(file, maxlen=tail)
                for line in lines:
                    _print(names[entry.path], line)
        while follow and _any_running(entries):
            if not any([_print_new(prefix, file) for prefix, file in files]):
                time.sleep(_LOOK_SECONDS)
    finally:
        for _, file in files:
            file.close()


def _any_running(entries: Sequence[LogEntry]) -> bool:
    paths = {entry.path for entry in entries}
    return any(entry.path in paths for running in running_sessions() for entry in running.logs)


def _print_new(prefix: str, file: BinaryIO) -> bool:
    start = file.tell()
    line = file.readline()
    if not line.endswith(b"\n"):
        file.seek(start)  # half a line: its rest comes later
        return False
    _print(prefix, line)
    return True


def _print(prefix: str, line: bytes) -> None:
    print(prefix + line.decode(errors="replace").rstrip("\n"), flush=True)
