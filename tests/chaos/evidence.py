# SPDX-License-Identifier: Apache-2.0
"""What the processes of a round write down themselves, while it happens: the evidence that the checker judges by.

Every process appends to a journal of its own, one JSON object in a line, one `write` for each, nothing buffered: what
was written survives the process' death. What a process is about to do (settle, release, submit, cancel) is written
before the call, the answer after it. So a missing answer means "not known", and never "not done"; only the last line of
a journal may be torn, by a SIGKILL in the midst of writing.

Times are of the machine's monotonic clock, in seconds: the same for all processes, and never set back.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agent_runtime.queue.base import Claim
from tests.chaos.errands import Errand

now = time.monotonic
_TAIL_BYTES = 200_000


class Journal:
    """Where a process writes. Opens its file anew, so each process must have a name of its own."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._calls = 0

    def write(self, kind: str, **entry: Any) -> None:
        """Append one entry."""
        os.write(self._file, orjson.dumps({"kind": kind, "at": now(), **entry}) + b"\n")

    def call(self, kind: str, **entry: Any) -> int:
        """Append what is about to be asked for; the number ties the answer to it."""
        self._calls += 1
        self.write(kind, call=self._calls, **entry)
        return self._calls


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a journal. Raises ValueError if any line but a torn last one is not an entry."""
    *lines, _torn = path.read_bytes().split(b"\n")
    return map(orjson.loads, lines)


def held(path: Path) -> set[str]:
    """The tasks that a worker has got and not sent an outcome for, by the end of its journal."""
    tasks: set[str] = set()
    for entry in _tail(path):
        if entry["kind"] == "claimed":
            tasks.update(task for task, *_ in entry["tasks"])
        elif entry["kind"] == "settling":
            tasks.difference_update(task for task, *_ in entry["outcomes"])
    return tasks


def is_submitting(path: Path) -> bool:
    """Whether a producer waits for an answer now."""
    kinds = [entry["kind"] for entry in _tail(path)]
    return bool(kinds) and kinds[-1] == "submitting"


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    """The last entries of a journal that is being written; none if there is none yet."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        for line in file.read().split(b"\n"):
            with contextlib.suppress(ValueError):  # cut off by where we began to read, or not yet written to its end
                yield orjson.loads(line)


class Followed:
    """The journals of a round while they are being written."""

    def __init__(self, folder: Path, *, but: Path) -> None:
        """Follow all that are there, or come, but one."""
        self._folder = folder
        self._but = but
        self._read = {path: path.stat().st_size for path in folder.glob("*.journal")}

    def claimed_since(self) -> set[str]:
        """The tasks that were claimed since the last look."""
        tasks: set[str] = set()
        for path in self._folder.glob("*.journal"):
            if path == self._but:
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(text) + len(newline)
            for line in text.split(b"\n"):
                with contextlib.suppress(ValueError):  # cut off by where we began to read
                    entry = orjson.loads(line)
                    if entry["kind"] == "claimed":
                        tasks.update(task for task, *_ in entry["tasks"])
        return tasks


def names(claims: Sequence[Claim]) -> list[tuple[str, int, str]]:
    """What tells attempts apart: task, number, token."""
    return [(claim.id, claim.attempt, claim.token) for claim in claims]


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt that a worker was given."""

    task: str
    attempt: int
    token: str
    worker: str
    asked: float
    """When the worker asked for work: the attempt is not older than this."""
    told: float
    """When it got it: the attempt is not younger."""
    fenced: bool = True
    """Whether the token is the queue's own. Handlers of agents do not see it: their starts have a made-up one."""


@dataclass(slots=True)
class Settlement:
    """An outcome that a worker sent, and whether it was told that it counts."""

    task: str
    attempt: int
    token: str
    ending: str
    """`succeeded`, `failed`, `dead` or `retry`."""
    worker: str
    sent: float
    accepted: bool | None = None
    """None: the answer is not known."""
    answered: float | None = None
    hopeless: str = ""
    """Why it had to be refused, as the worker knew by then: it had released the task, or `extend` had refused it."""

    @property
    def final(self) -> bool:
        """Whether the task would have ended with it."""
        return self.ending != "retry"


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that a producer sent. The same batch appears again if the producer repeated it."""

    producer: str
    """The same for all processes that stand in for one another."""
    batch: int
    sent: float
    errands: tuple[Errand, ...]
    ids: tuple[str, ...] | None = None
    """What the queue acknowledged, None if the answer is not known."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A call of `cancel`."""

    sent: float
    tasks: tuple[str, ...]
    states: tuple[str, ...] | None = None
    """What the queue said, None if the answer is not known."""
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """What the queue says about a task when all is over."""

    state: str
    attempts: int = 0
    max_attempts: int = 1
    replays: int = 0
    token: str | None = None
    """Of the attempt that succeeded: workers put it into the result."""
    failures: tuple[str, ...] = ()
    """Codes."""


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of the queue."""

    kind: str
    task: str | None
    attempt: int | None = None


@dataclass(slots=True)
class Evidence:
    """All that is known of a round."""

    starts: list[Start] = field(default_factory=list)
    claims: list[tuple[str, ...]] = field(default_factory=list)
    """Ids of each claim that brought something, in the order in which they came."""
    settlements: list[Settlement] = field(default_factory=list)
    releases: set[tuple[str, str]] = field(default_factory=set)
    """Task and token of each attempt that a worker was about to give back."""
    garbled: dict[str, str] = field(default_factory=dict)
    """The beginning of what a worker was given as the payload of a task, where that was not JSON."""
    submissions: list[Submission] = field(default_factory=list)
    cancellations: list[Cancellation] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    """By task; those that the queue does not know are missing."""
    happenings: list[Happening] | None = None
    """The queue's events, oldest first; None if not all of them are there."""
    totals: dict[str, int] | None = None
    """The queue's figures when all is over."""
    one_order: bool = True
    """Whether priority and order hold over the whole queue: not with shards."""

    def read(self, folder: Path) -> None:
        """Add what the journals in a folder say."""
        for path in sorted(folder.glob("*.journal")):
            self.read_one(path)

    def read_one(self, path: Path) -> None:
        """Add what one journal says."""
        author = path.stem
        settling: dict[int, list[Settlement]] = {}
        submitting: dict[int, Submission] = {}
        cancelling: dict[int, Cancellation] = {}
        for entry in entries(path):
            match entry["kind"]:
                case "claimed":
                    self.claims.append(tuple(task for task, *_ in entry["tasks"]))
                    self.starts += [
                        Start(task, attempt, token, author, entry["asked"], entry["at"], entry.get("fenced", True))
                        for task, attempt, token in entry["tasks"]
                    ]
                case "settling":
                    settling[entry["call"]] = batch = [
                        Settlement(
                            task, attempt, token, ending, author, entry["at"], hopeless=entry.get("hopeless", "")
                        )
                        for task, attempt, token, ending in entry["outcomes"]
                    ]
                    self.settlements += batch
                case "settled":
                    for settlement, accepted in zip(settling[entry["call"]], entry["accepted"], strict=True):
                        settlement.accepted = accepted
                        settlement.answered = entry["at"]
                case "garbled":
                    self.garbled[entry["task"]] = entry["payload"]
                case "releasing":
                    self.releases.update((task, token) for task, _, token in entry["tasks"])
                case "submitting":
                    errands = tuple(Errand.from_wire(errand) for errand in entry["errands"])
                    submission = Submission(entry["producer"], entry["batch"], entry["at"], errands)
                    submitting[entry["call"]] = submission
                case "submitted":
                    sent = submitting.pop(entry["call"])
                    ids = tuple(entry["ids"])
                    self.submissions.append(Submission(sent.producer, sent.batch, sent.sent, sent.errands, ids))
                case "cancelling":
                    cancelling[entry["call"]] = Cancellation(entry["at"], tuple(entry["tasks"]))
                case "cancelled":
                    asked = cancelling.pop(entry["call"])
                    self.cancellations.append(
                        Cancellation(asked.sent, asked.tasks, tuple(entry["states"]), entry["at"])
                    )
                case _:
                    pass  # for people who look for what happened
        self.submissions += submitting.values()
        self.cancellations += cancelling.values()
