# SPDX-License-Identifier: Apache-2.0
"""How commands print what they read: a table for people, or JSON or YAML with everything, for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.options import Format

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = dict[str, Any]

PIPE_WIDTH = 100_000
"""Nothing is cut or wrapped where the output is read by a program."""
_STATE_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "dead": "red",
    "expired": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "started": "cyan",
    "retrying": "yellow",
    "lease_expired": "yellow",
    "paused": "yellow",
    "closed": "yellow",
    "suspended": "yellow",
    "faulty": "red",
    "no": "red",
    "yes": "green",
}
_SPINNER_SECONDS = 1.0


@dataclass(frozen=True)
class Column:
    """One column of a table: its header, and how a row's cell is made."""

    header: str
    cell: Callable[[Json], Any]
    right: bool = False
    flexible: bool = False
    """Cut with an ellipsis where the terminal is too narrow; all others keep their width."""
    optional: bool = False
    """Left out where no row has anything in it."""


def stdout() -> "Console":
    """Console for results."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def stderr() -> "Console":
    """Console for everything said about results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_list(rows: Sequence[Json], columns: Sequence[Column], *, output: Format, empty: str) -> None:
    """Print rows; `empty` is said (on stderr) when a person would see nothing at all."""
    if output is not Format.TABLE:
        dump(list(rows), output)
    elif not rows:
        stderr().print(empty, style="dim")
    else:
        _table(rows, columns)


def show_task(task: Json, *, output: Format) -> None:
    """Print one task: all fields that are set, the result or the last failure last."""
    if output is not Format.TABLE:
        dump(task, output)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in _task_fields(task):
        grid.add_row(label, Text(value, style=_STATE_STYLES.get(value, "")))
    print_table(grid, console=stdout())


def _task_fields(task: Json) -> Iterator[tuple[str, str]]:
    yield "id", task["id"]
    yield "state", task["state"]
    yield "queue", task["queue"]
    for key in ("agent", "capability", "instance", "type", "tenant"):
        if task.get(key):
            yield key, task[key]
    if task.get("idempotencyKey"):
        yield "key", task["idempotencyKey"]
    yield "priority", str(task.get("priority"))
    yield "attempts", f"{task.get('attempts')} of {task.get('maxAttempts')}"
    yield "submitted", f"{age(task.get('createdAt'))} ago"
    if task.get("dependsOn"):
        waits = f" ({task['waitsFor']} not ended yet)" if task.get("waitsFor") else ""
        yield "depends on", f"{', '.join(task['dependsOn'])}{waits}"
    if task.get("dueAt"):
        yield "next attempt", f"{task['dueAt']} ({until(task['dueAt'])})"
    if task.get("deadline"):
        left = "" if task.get("finishedAt") else f" ({until(task['deadline'])})"
        yield "deadline", f"{task['deadline']}{left}"
    if progress := task.get("progress"):
        share = f"{progress['fraction']:.0%} " if progress.get("fraction") is not None else ""
        yield "progress", f"{share}{progress.get('message') or ''}".strip()
    if task.get("replays"):
        yield "replayed", f"{task['replays']} times" if task["replays"] > 1 else "once"
    if task.get("worker"):
        yield "worker", task["worker"]
    if duration(task):
        yield "took", duration(task)
    yield "payload", json.dumps(task.get("payload"), ensure_ascii=False)
    for failure in task.get("failures") or ():
        label = f"failure {failure['attempt']}" if failure.get("attempt") else "ended"
        yield label, f"{failure['code']}: {failure['message']}"
    if task["state"] == "succeeded":
        yield "result", json.dumps(task.get("result"), ensure_ascii=False, indent=2)


def task_columns() -> tuple[Column, ...]:
    """A table of tasks."""
    return (
        Column("ID", lambda t: t["id"]),
        Column("STATE", lambda t: t["state"]),
        Column("ATTEMPTS", lambda t: f"{t.get('attempts')}/{t.get('maxAttempts')}", right=True),
        Column("TOOK", duration, right=True),
        Column("RESULT", outcome, flexible=True),
    )


def outcome(task: Json) -> str:
    """The result, or why there is none, in one line."""
    if task["state"] == "succeeded":
        return json.dumps(task.get("result"), ensure_ascii=False)
    failures = task.get("failures") or []
    return f"{failures[-1]['code']}: {failures[-1]['message']}" if failures else ""


def duration(task: Json) -> str:
    """How long the last attempt took; empty if it has not ended."""
    if not (task.get("startedAt") and task.get("finishedAt")):
        return ""
    return span((_time(task["finishedAt"]) - _time(task["startedAt"])).total_seconds())


def span(seconds: float) -> str:
    """A time that something took."""
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def age(timestamp: str | None) -> str:
    """How long ago that was, as kubectl writes it."""
    if not timestamp:
        return ""
    return _short((datetime.now(UTC) - _time(timestamp)).total_seconds())


def until(timestamp: str | None) -> str:
    """How long it is until then."""
    return f"in {_short((_time(timestamp) - datetime.now(UTC)).total_seconds())}" if timestamp else ""


def clock_time(timestamp: str) -> str:
    """The time of day here, to the millisecond."""
    return _time(timestamp).astimezone().strftime("%H:%M:%S.%f")[:-3]


def state_style(state: str) -> str:
    """How a state or an event is coloured."""
    return _STATE_STYLES.get(state, "")


def _short(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def dump(data: Any, output: Format) -> None:
    """Print data as JSON or YAML."""
    if output is Format.JSON:
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml

    print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")


def _table(rows: Sequence[Json], columns: Sequence[Column]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    columns = [column for column in columns if not column.optional or any(column.cell(row) for row in rows)]
    for column in columns:
        # A fixed minimum keeps rich from squeezing the columns that must stay readable.
        width = max(len(column.header), *(len(_cell(column, row)) for row in rows))
        table.add_column(
            column.header,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if column.flexible else width,
        )
    for row in rows:
        table.add_row(*(Text(text, style=_STATE_STYLES.get(text, "")) for text in (_cell(c, row) for c in columns)))
    print_table(table, console=stdout())


def print_table(table: "Table", *, console: "Console") -> None:
    """Print without the blanks that fill up the last column."""
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def _cell(column: Column, row: Json) -> str:
    value = column.cell(row)
    return "-" if value in (None, "") else str(value)


class Counter:
    """Counts what is done of what is to be done; drawn only on a terminal, and only when it takes over a second."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def add(self, count: int) -> None:
        """So many more are done."""
        self._advance(count)


@contextmanager
def counting(what: str, *, total: int) -> Iterator[Counter]:
    """A progress bar on stderr, with the rate and the time left."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
    )
    bar = progress.add_task(what, total=total, rate="")
    begun = time.monotonic()
    done = 0
    drawn = False

    def advance(count: int) -> None:
        nonlocal done, drawn
        done += count
        seconds = time.monotonic() - begun
        if not drawn and seconds > _SPINNER_SECONDS and progress.console.is_terminal:
            progress.start()
            drawn = True
        progress.update(bar, advance=count, rate=f"{done / seconds:,.0f}/s" if seconds > 0 else "")

    try:
        yield Counter(advance)
    finally:
        if drawn:
            progress.stop()
