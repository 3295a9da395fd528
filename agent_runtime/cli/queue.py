# SPDX-License-Identifier: Apache-2.0
"""Pause and resume queues, close and open them."""

from collections.abc import Callable
from typing import Annotated

import typer

from agent_runtime.cli import options
from agent_runtime.cli.options import Format, Target

_Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The TaskQueue. [dim]Default: the server's first.", show_default=False),
]


def pause(
    name: _Name = None,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Pause a queue: agents take no tasks from it. What runs is finished, new tasks wait.

    Example:

        {prog} queue pause tasks
    """
    _change("pause", name, by, target, output)


def resume(
    name: _Name = None,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Take back one's own pause of a queue. Tasks are taken again once everybody who had paused it has done so.

    Examples:

        {prog} queue resume tasks
        {prog} queue resume tasks --by maria
    """
    _change("resume", name, by, target, output)


def close(
    name: _Name = None,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Close a queue to new tasks. What is in it is worked off.

    Example:

        {prog} queue close tasks
    """
    _change("close", name, by, target, output)


def open_(
    name: _Name = None,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Take back one's own closing of a queue. It takes new tasks once everybody who had closed it has done so.

    Example:

        {prog} queue open tasks
    """
    _change("open", name, by, target, output)


def _change(change: str, name: str | None, by: str | None, target: Target, output: Format) -> None:
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump, stderr
    from agent_runtime.cli.server import find_server

    author = options.author(by)
    with Api(find_server(target)) as api:
        gates = api.gate(name or api.default_queue(), change, by=author)
    if output is not Format.TABLE:
        dump(gates, output)
        return
    done, holders = ("paused", gates["pausedBy"]) if change in ("pause", "resume") else ("closed", gates["closedBy"])
    if holders:
        print(f"queue {gates['queue']} is {done} by {', '.join(holders)}")
    else:
        print(f"queue {gates['queue']} is {'not paused' if done == 'paused' else 'open'}")
    if holders and change in ("resume", "open"):
        hint = (
            "change the TaskQueue's manifest"
            if holders == ["spec"]
            else f"they must {change} it, too, or use --by NAME"
        )
        stderr().print(f"still {done} by others: {hint}", style="yellow", markup=False)


COMMANDS: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = (
    (("pause",), pause),
    (("resume",), resume),
    (("close",), close),
    (("open",), open_),
)
"""What can be done to a queue."""
