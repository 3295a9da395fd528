# SPDX-License-Identifier: Apache-2.0
"""Let instances of agents take nothing new, and let them take tasks again."""

from typing import Annotated, Any

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Format, Target

_Instances = Annotated[
    list[str], typer.Argument(metavar="INSTANCE", help="The processes; in a cluster the pods.", show_default=False)
]


def cordon(
    instances: _Instances,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Let instances of agents take no new tasks. What they run is finished, and they are not stopped.

    `get agents` shows when they have nothing to do any more: RUNNING is 0 then.

    Example:

        {prog} cordon billing-agent-5c9d
    """
    _change("cordon", instances, by, target, output)


def uncordon(
    instances: _Instances,
    by: options.By = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Take back one's own cordon. Instances take tasks again once everybody who had cordoned them has done so.

    Examples:

        {prog} uncordon billing-agent-5c9d
        {prog} uncordon billing-agent-5c9d --by maria
    """
    _change("uncordon", instances, by, target, output)


def _change(change: str, instances: list[str], by: str | None, target: Target, output: Format) -> None:
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump
    from agent_runtime.cli.server import find_server

    author = options.author(by)
    with Api(find_server(target)) as api:
        changed: list[dict[str, Any]] = []
        for queue, names in _by_queue(api.agents(), instances).items():
            changed += api.cordon(queue, change, names, by=author)
    if output is not Format.TABLE:
        dump(changed, output)
        return
    for instance in changed:
        holders = instance.get("cordonedBy") or []
        state = f"cordoned by {', '.join(holders)}, {instance['running']} running" if holders else "not cordoned"
        print(f"{instance['instance']} is {state}")


def _by_queue(known: list[dict[str, Any]], instances: list[str]) -> dict[str, list[str]]:
    """The instances by the queue that they take tasks from."""
    queues: dict[str, list[str]] = {}
    for name in instances:
        found = [instance["queue"] for instance in known if instance["instance"] == name]
        if not found:
            raise CliError(f'no instance "{name}" of an agent is known; nothing was changed')
        for queue in found:
            queues.setdefault(queue, []).append(name)
    return queues
