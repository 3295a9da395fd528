# SPDX-License-Identifier: Apache-2.0
"""Look at dead tasks, queue them again, or remove them. Dead are tasks that have used up their attempts."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from agent_runtime.cli import options, times
from agent_runtime.cli.errors import EXIT_USAGE, CliError
from agent_runtime.cli.options import Format, Target

_WHICH = "Which dead tasks"
_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="These tasks.", show_default=False)]
_Type = Annotated[
    str | None, typer.Option("--type", "-t", metavar="WORD", help="Of this type.", rich_help_panel=_WHICH)
]
_Agent = Annotated[
    str | None, typer.Option("--agent", "-a", metavar="NAME", help="For this Agent.", rich_help_panel=_WHICH)
]
_Tenant = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Of this tenant.", rich_help_panel=_WHICH)
]
_Code = Annotated[
    str | None,
    typer.Option(
        "--code", metavar="CODE", help="Whose last failure is this, for example TIMEOUT.", rich_help_panel=_WHICH
    ),
]
_Worker = Annotated[
    str | None,
    typer.Option("--worker", metavar="NAME", help="Which this agent instance ran last.", rich_help_panel=_WHICH),
]
_Before = Annotated[
    str | None,
    typer.Option("--before", metavar="TIME", help="That died before, for example 2h ago.", rich_help_panel=_WHICH),
]
_After = Annotated[
    str | None,
    typer.Option("--after", metavar="TIME", help="That died then or later.", rich_help_panel=_WHICH),
]
_All = Annotated[bool, typer.Option("--all", help="All of the queue.", rich_help_panel=_WHICH)]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True)
class _Chosen:
    """What the user said about which dead tasks are meant."""

    kind: _Type = None
    agent: _Agent = None
    tenant: _Tenant = None
    code: _Code = None
    worker: _Worker = None
    before: _Before = None
    after: _After = None

    def filter(self) -> dict[str, Any]:
        """As the API wants it; empty if nothing was said. Raises CliError for a time that is none."""
        given = {
            "type": self.kind,
            "agent": self.agent,
            "tenant": self.tenant,
            "code": self.code,
            "worker": self.worker,
            "before": None if self.before is None else times.moment("--before", self.before, past=True),
            "after": None if self.after is None else times.moment("--after", self.after, past=True),
        }
        return {key: value for key, value in given.items() if value is not None}


def list_(
    queue: options.Queue = None,
    *,
    chosen: _Chosen,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, at most.")] = 100,
    output: options.Output = Format.TABLE,
    target: Target,
) -> None:
    """Show dead tasks, newest first: their attempts are used up, and they are kept for inspection.

    `dead show ID` has every failed attempt; `logs AGENT` has what the agent printed. Times are like 2026-05-01T18:00,
    or like 2h for two hours ago.

    Examples:

        {prog} dead list --queue tasks
        {prog} dead list --agent billing --code TIMEOUT --after 1d
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import Column, age, outcome, show_list
    from agent_runtime.cli.server import find_server

    which = chosen.filter()
    with Api(find_server(target)) as api:
        rows = api.dead(queue or api.default_queue(), which=which, limit=limit)
    columns = (
        Column("ID", lambda r: r["id"]),
        Column("AGENT", lambda r: r.get("agent")),
        Column("TENANT", lambda r: r.get("tenant"), optional=True),
        Column("ATTEMPTS", lambda r: f"{r['attempts']}/{r['maxAttempts']}", right=True),
        Column("REPLAYS", lambda r: r.get("replays"), right=True, optional=True),
        Column("DIED", lambda r: age(r.get("finishedAt")), right=True),
        Column("LAST FAILURE", outcome, flexible=True),
    )
    show_list(
        rows, columns, output=output, empty="there are no such dead tasks" if which else "there are no dead tasks"
    )


def show(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The tasks.", show_default=False)],
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show dead tasks with every failed attempt.

    Example:

        {prog} dead show 0199f3a2
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump, show_task
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        name = queue or api.default_queue()
        tasks = [api.task(name, task_id) for task_id in task_ids]
    for task in tasks:
        if task["state"] != "dead":
            raise CliError(f"the task {task['id']!r} is not dead, it is {task['state']}: see `get task {task['id']}`")
    if output is not Format.TABLE:
        dump(tasks[0] if len(tasks) == 1 else tasks, output)
        return
    for position, task in enumerate(tasks):
        if position:
            print()
        show_task(task, output=output)


def replay(
    task_ids: _Ids = None,
    everything: _All = False,
    *,
    chosen: _Chosen,
    yes: _Yes = False,
    by: options.By = None,
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    target: Target,
) -> None:
    """Queue dead tasks again, with all their attempts: those named, those that fit, or all.

    What is not dead is left alone. Prints the ids of those that were queued.

    Examples:

        {prog} dead replay 0199f3a2
        {prog} dead replay --agent billing --code TIMEOUT
        {prog} dead replay --all --yes
    """
    which = chosen.filter()
    ask = everything and not yes
    _change("replay", task_ids, which, everything=everything, ask=ask, by=by, queue=queue, target=target, output=output)


def purge(
    task_ids: _Ids = None,
    everything: _All = False,
    *,
    chosen: _Chosen,
    yes: _Yes = False,
    by: options.By = None,
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    target: Target,
) -> None:
    """Remove dead tasks for good: those named, those that fit, or all.

    What is not dead is left alone. Asks before, unless --yes is given. Prints the ids of those that are gone.

    Examples:

        {prog} dead purge 0199f3a2 --yes
        {prog} dead purge --before 30d
        {prog} dead purge --all --yes
    """
    which = chosen.filter()
    _change(
        "purge", task_ids, which, everything=everything, ask=not yes, by=by, queue=queue, target=target, output=output
    )


def _change(
    change: str,
    task_ids: list[str] | None,
    which: dict[str, Any],
    *,
    everything: bool,
    ask: bool,
    by: str | None,
    queue: str | None,
    target: Target,
    output: Format,
) -> None:
    if sum(map(bool, (task_ids, which, everything))) != 1:
        raise CliError(f"say what to {change}: either ids, or options that choose, or --all", exit_code=EXIT_USAGE)
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump, stderr
    from agent_runtime.cli.server import find_server

    selection: dict[str, Any] = {"all": True} if everything else {"ids": task_ids} if task_ids else {"filter": which}
    with Api(find_server(target)) as api:
        name = queue or api.default_queue()
        if ask:
            many = f"{len(task_ids)} of the" if task_ids else "all" if everything else "the chosen"
            _confirm(f"{change} {many} dead tasks of queue {name}")
        call = api.replay if change == "replay" else api.purge
        ids = call(name, {**selection, "by": options.author(by)})
    if output is Format.TABLE:
        if ids:
            print("\n".join(ids))
        done = "queued again" if change == "replay" else "removed"
        stderr().print(f"{len(ids)} dead tasks {done}" if len(ids) != 1 else f"1 dead task {done}", style="dim")
    else:
        dump({"queue": name, "ids": ids}, output)


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise CliError(f"this would {what}, and there is nobody to ask: say --yes if it is meant", exit_code=EXIT_USAGE)
    if not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        raise typer.Exit(1)


COMMANDS: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = (
    (("list",), list_),
    (("show",), show),
    (("replay",), replay),
    (("purge",), purge),
)
"""What can be done with dead tasks."""
