# SPDX-License-Identifier: Apache-2.0
"""`kubeagents cancel`: end tasks that have not ended."""

from typing import Annotated

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import EXIT_FAILURE
from agent_runtime.cli.options import Format, Target


def cancel(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The tasks.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the tasks.")] = "",
    by: options.By = None,
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Cancel tasks, whether they wait or run: all of them, or none if one is not known.

    Exits 1 if one had ended before.

    Examples:

        {prog} cancel 0199f3a2
        {prog} cancel invoice-1 invoice-2 --reason "wrong month"
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import Column, show_list, stderr
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        tasks = api.cancel(queue or api.default_queue(), task_ids, by=options.author(by), reason=reason)
    columns = (Column("ID", lambda t: t["id"]), Column("STATE", lambda t: t["state"]))
    show_list(tasks, columns, output=output, empty="no tasks")
    ended = sum(task["state"] != "cancelled" for task in tasks)
    if ended:
        stderr().print(f"{ended} of {len(tasks)} had ended before", style="yellow")
        raise typer.Exit(EXIT_FAILURE)
