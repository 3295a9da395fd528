# SPDX-License-Identifier: Apache-2.0
"""`kubeagents result`: the results of tasks, waiting for them if asked to."""

from typing import Annotated

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import EXIT_FAILURE, EXIT_PENDING
from agent_runtime.cli.options import Format, Target


def result(
    task_ids: Annotated[list[str], typer.Argument(metavar="TASK-ID", help="The tasks.", show_default=False)],
    queue: options.Queue = None,
    wait: Annotated[
        float, typer.Option("--wait", "-w", min=0, metavar="SECONDS", help="Wait so long for tasks that still run.")
    ] = 0,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show the results of tasks.

    Exits 0 if all succeeded, 1 if one failed, 3 if one is not finished yet.

    Examples:

        {prog} result 0199f3a2 --wait 30
        {prog} result $({prog} submit --file tasks.jsonl) -o json
    """
    from agent_runtime.cli.api import Api, is_final
    from agent_runtime.cli.output import show_list, show_task, stderr, task_columns
    from agent_runtime.cli.server import find_server
    from agent_runtime.cli.waiting import wait_for

    with Api(find_server(target)) as api:
        queue = queue or api.default_queue()
        done = wait_for(api, queue, task_ids, seconds=wait) if wait else {}
        tasks = [done.get(task_id) or api.task(queue, task_id) for task_id in task_ids]
    if len(tasks) == 1:
        show_task(tasks[0], output=output)
    else:
        show_list(tasks, task_columns(), output=output, empty="no tasks")
    pending = sum(not is_final(task) for task in tasks)
    if any(is_final(task) and task["state"] != "succeeded" for task in tasks):
        raise typer.Exit(EXIT_FAILURE)
    if pending:
        stderr().print(f"{pending} of {len(tasks)} not finished yet: --wait SECONDS waits", style="yellow")
        raise typer.Exit(EXIT_PENDING)
