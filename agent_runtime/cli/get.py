# SPDX-License-Identifier: Apache-2.0
"""Show agents, queues, schedules, tasks and dead tasks."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from agent_runtime.cli import dead, options
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Format, Target

_Name = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Show only this one. [dim]Default: all.", show_default=False)
]


def agents(
    name: _Name = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only agents of this queue.")
    ] = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show the running instances of agents, as their heartbeats describe them.

    An instance is one process of an agent: a pod, or a local process of `dev`. RUNNING is tasks now / at most. One that
    is cordoned takes nothing new, as it was told to; one that is draining neither, because it stops.

    Examples:

        {prog} get agents
        {prog} get agents echo -o json
    """
    from agent_runtime.cli.output import Column, age, show_list

    rows = _read(target, lambda api: api.agents())
    rows = [row for row in rows if name in (None, row["agent"]) and queue in (None, row["queue"])]
    if name is not None and not rows:
        raise CliError(f'no instance of an agent "{name}" is known' + (f' on queue "{queue}"' if queue else ""))
    columns = (
        Column("AGENT", lambda r: r["agent"]),
        Column("INSTANCE", lambda r: r["instance"]),
        Column("QUEUE", lambda r: r["queue"]),
        Column("HEALTHY", lambda r: "yes" if r["healthy"] else "no"),
        Column("RUNNING", lambda r: f"{r['running']}/{r['concurrency']}", right=True),
        Column("STATE", _state),
        Column("BEAT", lambda r: age(r["lastBeatAt"]), right=True),
        Column("AGE", lambda r: age(r["startedAt"]), right=True),
        Column("VERSION", lambda r: r["version"], flexible=True),
    )
    show_list(rows, columns, output=output, empty="no agents are running")


def queues(
    name: _Name = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show queues: what waits, what runs, what is done.

    SCHEDULED tasks wait for their time, BLOCKED ones for other tasks; UNROUTABLE are queued ones that no agent process
    takes (-o json has their targets). DEAD ones have used up their attempts; FAILED counts the dead, too.

    Examples:

        {prog} get queues
        {prog} get queue tasks -o yaml
    """
    from agent_runtime.cli.output import Column, age, show_list

    rows = _read(
        target,
        lambda api: api.queues() if name is None else [api.queue(name)],
    )
    columns = (
        Column("QUEUE", lambda r: r["queue"]),
        Column("STATE", _gates),
        Column("QUEUED", lambda r: r["queued"], right=True),
        Column("RUNNING", lambda r: r["running"], right=True),
        Column("SCHEDULED", lambda r: r["scheduled"], right=True),
        Column("BLOCKED", lambda r: r.get("blocked"), right=True, optional=True),
        Column("UNROUTABLE", lambda r: r.get("unroutable"), right=True, optional=True),
        Column("DEAD", lambda r: r["dead"], right=True),
        Column("SUCCEEDED", lambda r: r["succeededTotal"], right=True),
        Column("FAILED", lambda r: r["failedTotal"], right=True),
        Column("OLDEST", lambda r: age(r.get("oldestAt")), right=True),
    )
    show_list(rows, columns, output=output, empty="there are no queues")


def task(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The tasks.", show_default=False)],
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show tasks and all that is known about them.

    Exits 0 whatever their state is; `result` tells by its exit code.

    Example:

        {prog} get task 0199f3a2
    """
    from agent_runtime.cli.output import show_list, show_task, task_columns

    def read(api: Any) -> list[dict[str, Any]]:
        name = queue or api.default_queue()
        return [api.task(name, task_id) for task_id in task_ids]

    rows = _read(target, read)
    if len(rows) == 1:
        show_task(rows[0], output=output)
    else:
        show_list(rows, task_columns(), output=output, empty="no tasks")


def schedules(
    queue: options.Queue = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show schedules: which tasks are submitted again and again, and when.

    LAST is how long ago the last due time was for which a task was submitted; `get task` shows that task.

    Example:

        {prog} get schedules --queue tasks
    """
    from agent_runtime.cli.output import Column, age, show_list, until

    def read(api: Any) -> list[dict[str, Any]]:
        names = [queue] if queue else [found["queue"] for found in api.queues()]
        return [found for name in names for found in api.schedules(name)]

    rows = _read(target, read)
    columns = (
        Column("QUEUE", lambda r: r["queue"]),
        Column("SCHEDULE", lambda r: r["name"]),
        Column("WHEN", _when),
        Column("STATE", lambda r: "faulty" if r.get("fault") else "suspended" if r.get("suspend") else "active"),
        Column("NEXT", lambda r: until(r.get("nextDueAt")), right=True),
        Column("LAST", lambda r: age(r.get("lastDueAt")), right=True),
        Column("LAST TASK", lambda r: r.get("lastTask"), flexible=True),
        Column("FAULT", lambda r: r.get("fault"), flexible=True, optional=True),
    )
    show_list(rows, columns, output=output, empty="there are no schedules")


def _when(schedule: dict[str, Any]) -> str:
    if schedule.get("cron"):
        zone = schedule.get("timeZone")
        return f"{schedule['cron']}" if zone in (None, "Etc/UTC", "UTC") else f"{schedule['cron']} ({zone})"
    return f"every {schedule.get('everySeconds')} s"


def _state(instance: dict[str, Any]) -> str:
    if instance.get("draining"):
        return "draining"
    if instance.get("cordonedBy"):
        return f"cordoned by {', '.join(instance['cordonedBy'])}"
    return "resuming" if instance.get("cordoned") else "taking tasks"


def _gates(queue: dict[str, Any]) -> str:
    shut = [name for name, holders in (("paused", "pausedBy"), ("closed", "closedBy")) if queue.get(holders)]
    return ", ".join(shut) or "open"


def _read(target: Target, read: Callable[[Any], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        return read(api)


COMMANDS: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = (
    (("agents", "agent"), agents),
    (("queues", "queue"), queues),
    (("task", "tasks"), task),
    (("schedules", "schedule"), schedules),
    (("dead",), dead.list_),
)
"""What can be shown, with the other names that people type."""
