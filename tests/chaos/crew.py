# SPDX-License-Identifier: Apache-2.0
"""The processes of a round: started, killed, frozen, woken. None of them outlives the crew, whatever happens to it.

They are forked from a server that has everything imported, so that a killed worker is replaced within milliseconds.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, Self

_PR_SET_PDEATHSIG: Final = 1
END_SECONDS: Final = 120.0
"""Within this time a process has ended that was told to. It takes a second on an idle machine."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.chaos.worker", "tests.chaos.producer"])


@dataclass(slots=True)
class Member:
    """One process."""

    name: str
    process: ForkServerProcess
    frozen: bool = False

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def active(self) -> bool:
        """Alive and not frozen."""
        return self.alive and not self.frozen

    def kill(self) -> None:
        """SIGKILL: it has no last words."""
        self.process.kill()
        self.process.join(END_SECONDS)

    def freeze(self) -> None:
        """SIGSTOP: it holds what it holds, and knows nothing of the time that passes."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    def finish(self) -> None:
        """Ask it to end in order; does not wait."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive and self.process.pid is not None:
            os.kill(self.process.pid, number)


@dataclass
class Crew:
    """All processes of a round. Use it as a context manager: those that are left are killed at its end."""

    members: list[Member] = field(default_factory=list)

    def start(self, name: str, run: Callable[[Any], None], orders: Any, *, log: Path) -> Member:
        """Start a process. What it prints, such as warnings of the queue's client, goes to the log."""
        process = _CONTEXT.Process(target=_begin, args=(run, orders, log), name=name, daemon=True)
        process.start()
        member = Member(name, process)
        self.members.append(member)
        return member

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join(END_SECONDS)
            member.process.close()


def _begin(run: Callable[[Any], None], orders: Any, log: Path) -> None:
    """The first thing that a process does."""
    # Ctrl-C is for the harness, which ends us; and if it is killed itself, so are we, by way of the fork server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    run(orders)
