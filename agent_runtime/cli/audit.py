# SPDX-License-Identifier: Apache-2.0
"""Who has changed what, and who was refused."""

from collections import deque
from typing import Annotated, Any

import typer

from agent_runtime.cli import options
from agent_runtime.cli.options import Format, Target

_Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest so many.")]
_Principal = Annotated[str | None, typer.Option("--principal", metavar="NAME", help="Only what this one did.")]
_Denied = Annotated[bool, typer.Option("--denied", help="Only what was denied.")]


def audit(
    principal: _Principal = None,
    denied: _Denied = False,
    limit: _Limit = 50,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show who has changed what at a CentralAgent, and who was refused. Needs the key of an admin.

    Examples:

        {prog} audit
        {prog} audit --denied --limit 10
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import Column, clock_time, show_list
    from agent_runtime.cli.server import find_server

    def wanted(entry: dict[str, Any]) -> bool:
        return principal in (None, entry.get("principal")) and (not denied or entry["outcome"] == "denied")

    with Api(find_server(target)) as api:
        found = deque((entry for entry in api.audit() if wanted(entry)), maxlen=limit)
    columns = (
        Column("TIME", lambda entry: clock_time(entry["at"])),
        Column("PRINCIPAL", lambda entry: entry.get("principal") or "-"),
        Column("DID", lambda entry: entry["verb"]),
        Column("QUEUE", lambda entry: entry.get("queue") or "-"),
        Column("TARGET", lambda entry: entry.get("target") or "-"),
        Column("OUTCOME", lambda entry: entry["outcome"]),
        Column("CODE", lambda entry: entry.get("code") or "-"),
        Column("FROM", lambda entry: entry.get("address") or "-"),
    )
    show_list(list(found), columns, output=output, empty="nobody has changed anything or was refused")
