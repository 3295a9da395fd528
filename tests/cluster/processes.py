# SPDX-License-Identifier: Apache-2.0
"""Daemons that outlive the command that started them, recorded so that a later one can stop exactly them."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Daemons:
    """The processes of one cluster; `folder` holds a record and a log for each."""

    folder: Path

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(
        self, name: str, command: Sequence[str | Path], *, path: str, mortal: bool = False, **environment: str
    ) -> None:
        """Start a daemon in a session of its own, with its output appended to a log file.

        A `mortal` one is killed by the kernel when we end, however that comes about.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # setpriv sets PR_SET_PDEATHSIG and then becomes the program, under the same pid.
        argv = [*(["/usr/bin/setpriv", "--pdeathsig", "KILL"] if mortal else []), *(str(part) for part in command)]
        # Not by subprocess: its objects want to be waited for, and this process is meant to outlive us.
        pid = os.posix_spawn(
            argv[0],
            argv,
            {"PATH": path, "HOME": "/root", **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        record = {"pid": pid, "command": argv[0], "started": _started(pid)}
        (self.folder / f"{name}.json").write_text(json.dumps(record))

    def pid(self, name: str) -> int | None:
        """The pid of a daemon, if that process is still the one we started, not another with a recycled number."""
        try:
            record = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return record["pid"] if _started(record["pid"]) == record["started"] is not None else None

    def runs_from(self, name: str, folder: str) -> bool:
        """Whether the daemon runs, and its program is in that folder."""
        if self.pid(name) is None:
            return False
        record = json.loads((self.folder / f"{name}.json").read_text())
        return bool(record["command"].startswith(f"{folder}/"))

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def stop(self, names: Sequence[str]) -> None:
        """TERM to all, then KILL to those that are left, and wait until they are gone."""
        self._end(names, (signal.SIGTERM, signal.SIGKILL))

    def kill(self, names: Sequence[str]) -> None:
        """KILL to all, as a crash of the machine would, and wait until they are gone."""
        self._end(names, (signal.SIGKILL,))

    def _end(self, names: Sequence[str], signals: Sequence[signal.Signals]) -> None:
        for deadly in signals:
            for name in names:
                pid = self.pid(name)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, deadly)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline and any(self.pid(name) for name in names):
                _reap()
                time.sleep(0.05)
        for name in names:
            (self.folder / f"{name}.json").unlink(missing_ok=True)

    def wait_for(self, what: str, probe: Callable[[], bool], *, daemon: str, seconds: float = 90) -> None:
        """Wait until `probe` is true. Raises ClusterError, with the end of the daemon's log, if it is not in time."""
        deadline = time.monotonic() + seconds
        while not probe():
            dead = self.pid(daemon) is None
            if dead or time.monotonic() > deadline:
                tail = "\n".join(self.log(daemon).read_text(errors="replace").splitlines()[-15:])
                happened = f"{daemon} has exited" if dead else f"not within {seconds:g} s"
                raise ClusterError(f"{what}: {happened}. The end of {self.log(daemon)}:\n{tail}")
            time.sleep(0.1)


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; with the pid it names a process for good. None: no process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    # The first thread of a killed process may be a zombie while others of it still hold its sockets.
    if fields[0] == "Z" and fields[17] == "1":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"


def _reap() -> None:
    """Collect children that have ended, if any are ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
