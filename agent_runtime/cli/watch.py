# SPDX-License-Identifier: Apache-2.0
"""`kubeagents watch`: what a task says while it runs."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import EXIT_FAILURE
from agent_runtime.cli.options import Format, Target

if TYPE_CHECKING:
    from agent_runtime.cli.api import Said


def watch(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task.", show_default=False)],
    after: Annotated[
        str, typer.Option("--after", metavar="OFFSET", help="Only what came after this offset (-o json shows them).")
    ] = "",
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Watch a task until it has ended: how far it is, and the parts of its result as they come.

    Parts are printed on stdout, one JSON value per line (text as it is), progress on stderr, and at the end the task.
    -o json prints each thing that was said as one line. Exits 0 if the task succeeded, 1 if not.

    Example:

        {prog} watch $({prog} submit --agent writer '{"topic": "queues"}')
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import show_task, stderr
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        name = queue or api.default_queue()
        said = api.follow_task(name, task_id, after=after)
        if output is Format.TABLE:
            _show(said)
        else:
            for one in said:
                _dump(one.data, output)
        task = api.task(name, task_id)
    if output is Format.TABLE:
        stderr().print()
        show_task(task, output=output)
    if task["state"] != "succeeded":
        raise typer.Exit(EXIT_FAILURE)


def _dump(data: dict[str, Any], output: Format) -> None:
    from agent_runtime.cli.output import dump

    if output is Format.JSON:
        print(json.dumps(data, ensure_ascii=False), flush=True)
    else:
        dump([data], output)


def _show(stream: "Iterable[Said]") -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from agent_runtime.cli.output import stderr

    say = stderr()
    progress = Progress(
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        console=say,
        transient=True,
    )
    bar = progress.add_task("waiting", total=None)
    attempt = 0
    if say.is_terminal:
        progress.start()
    try:
        for said in stream:
            item = said.data
            if item.get("attempt", attempt) != attempt:
                if attempt:
                    say.print(f"attempt {item['attempt']} begins anew", style="yellow")
                attempt = item["attempt"]
                progress.reset(bar, description="running", total=None)
            match item["kind"]:
                case "gap":
                    say.print("… what was said before is not kept any more", style="dim")
                case "partial":
                    _print_part(item.get("data"), progress)
                case "progress":
                    data = item.get("data") or {}
                    fraction, message = data.get("fraction"), str(data.get("message") or "")
                    if fraction is None:
                        progress.update(bar, description=message, total=None)
                    else:
                        progress.update(bar, description=message, total=1.0, completed=float(fraction))
                    if not say.is_terminal:
                        share = "" if fraction is None else f"{float(fraction):.0%} "
                        say.print(f"{share}{message}", style="dim", markup=False)
    finally:
        if say.is_terminal:
            progress.stop()


def _print_part(part: Any, progress: Any) -> None:
    import sys

    text = part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)
    if sys.stdout.isatty() and progress.console.is_terminal:
        progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, flush=True)
