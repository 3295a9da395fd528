# SPDX-License-Identifier: Apache-2.0
"""`kubeagents events`: what happens in a queue."""

import json
from collections import deque
from typing import Annotated, Any

import typer

from agent_runtime.cli import options
from agent_runtime.cli.options import Format, Target

_WIDTHS = (12, 14, 36, 8, 8)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    after: Annotated[
        str, typer.Option("--after", metavar="OFFSET", help="Only what came after this offset (-o json shows them).")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="The last ones, at most so many.")] = 100,
    task: Annotated[str | None, typer.Option("--task", metavar="ID", help="Only what concerns this task.")] = None,
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show what has happened in a queue, oldest first: the last 100 events, or more with --limit.

    TOOK is how long an attempt took; BY is the agent instance, or who cancelled, replayed or paused. With --follow,
    -o json prints one event per line.

    Examples:

        {prog} events --task 0199f3a2
        {prog} events -f --limit 0
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump, stderr
    from agent_runtime.cli.server import find_server

    def wanted(event: dict[str, Any]) -> bool:
        return task in (None, event.get("task"))

    last: deque[dict[str, Any]] = deque(maxlen=limit)
    with Api(find_server(target)) as api:
        name = queue or api.default_queue()
        for event in api.events(name, after=after):
            after = event["offset"]
            if wanted(event):
                last.append(event)
        if not follow and output is not Format.TABLE:
            dump(list(last), output)
            return
        if not follow and not last:
            stderr().print("nothing has happened", style="dim")
            return
        if output is Format.TABLE:
            _print_row(("TIME", "EVENT", "TASK", "ATTEMPT", "TOOK", "BY"), style="bold")
        for event in last:
            _print(event, output)
        if follow:
            for said in api.follow_events(name, after=after):
                if wanted(said.data):
                    _print(said.data, output)


def _print(event: dict[str, Any], output: Format) -> None:
    from agent_runtime.cli.output import clock_time, dump, span, state_style

    if output is Format.JSON:
        print(json.dumps(event, ensure_ascii=False), flush=True)
    elif output is Format.YAML:
        dump([event], output)
    else:
        took = span(event["seconds"]) if event.get("seconds") is not None else "-"
        kind = str(event["kind"])
        cells = (clock_time(event["at"]), kind, event.get("task"), event.get("attempt"), took, event.get("by"))
        _print_row(tuple("-" if cell is None else str(cell) for cell in cells), style=state_style(kind))


def _print_row(cells: tuple[str, ...], *, style: str) -> None:
    # Columns of fixed widths: what comes next is not known yet.
    from rich.text import Text

    from agent_runtime.cli.output import stdout

    *cut, last = cells
    text = "  ".join([*(cell.ljust(width) for cell, width in zip(cut, _WIDTHS, strict=True)), last])
    line = Text(text.rstrip(), style="bold" if style == "bold" else "")
    if style != "bold":
        line.stylize(style, _WIDTHS[0] + 2, _WIDTHS[0] + 2 + len(cells[1]))
    stdout().print(line, soft_wrap=True)
