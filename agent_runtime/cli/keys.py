# SPDX-License-Identifier: Apache-2.0
"""Make, list and revoke API keys. Needs the key of an admin."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from agent_runtime.cli import options
from agent_runtime.cli.options import Format, Target


class Role(StrEnum):
    """What a key allows."""

    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    AGENT = "agent"


_Principal = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="Whose key it is: a person, program or team.", show_default=False)
]
_Id = Annotated[
    list[str], typer.Argument(metavar="ID", help="The keys; `keys list` shows their ids.", show_default=False)
]
_Role = Annotated[Role, typer.Option("--role", help="What it allows.")]
_Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", metavar="NAME", help="For this TaskQueue only; may be repeated."),
]
_Agents = Annotated[
    list[str] | None,
    typer.Option("--agent", metavar="NAME", help="For tasks of this Agent only; may be repeated."),
]
_Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When it ends: 2027-01-01, or 90d from now. [dim]Default: never."),
]
_Rate = Annotated[
    int | None, typer.Option("--rate", metavar="N", min=1, help="At most so many calls per second. [dim]Default: any.")
]


def create(
    principal: _Principal,
    role: _Role,
    queue: _Queues = None,
    agent: _Agents = None,
    expires: _Expires = None,
    rate: _Rate = None,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Make an API key and print it. It is not kept anywhere, so this is the only time that it can be seen.

    Examples:

        {prog} keys create nightly-import --role developer --queue orders --expires 90d
        export KUBEAGENTS_KEY=$({prog} keys create maria --role viewer)
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import dump, stderr
    from agent_runtime.cli.server import find_server
    from agent_runtime.cli.times import moment

    wanted: dict[str, Any] = {"principal": principal, "role": role.value}
    if queue:
        wanted["queues"] = queue
    if agent:
        wanted["agents"] = agent
    if expires is not None:
        wanted["expiresAt"] = moment("--expires", expires)
    if rate is not None:
        wanted["rateLimit"] = {"requests": rate}
    with Api(find_server(target)) as api:
        made = api.make_key(wanted)
    if output is not Format.TABLE:
        dump(made, output)
        return
    stderr().print(f"key {made['id']} of {principal}: it is shown this once", style="dim", soft_wrap=True)
    print(made["key"])


def list_keys(output: options.Output = Format.TABLE, *, target: Target) -> None:
    """List the API keys that were made. Those of Secrets, which the CentralAgent's manifest names, are not among them.

    Example:

        {prog} keys list
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.output import Column, age, show_list
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        keys = api.keys()
    columns = (
        Column("ID", lambda key: key["id"]),
        Column("PRINCIPAL", lambda key: key["principal"]),
        Column("ROLE", lambda key: key["role"]),
        Column("QUEUES", lambda key: ", ".join(key.get("queues") or ["all"])),
        Column("AGENTS", lambda key: ", ".join(key.get("agents") or ["all"])),
        Column("AGE", lambda key: age(key["createdAt"])),
        Column("EXPIRES", lambda key: _end(key.get("expiresAt"))),
        Column("MADE BY", lambda key: key["createdBy"]),
    )
    show_list(keys, columns, output=output, empty="no keys were made")


def _end(expires_at: str | None) -> str:
    from agent_runtime.cli.output import until

    if expires_at is None:
        return "never"
    return until(expires_at) if datetime.fromisoformat(expires_at) > datetime.now(UTC) else "expired"


def revoke(ids: _Id, *, target: Target) -> None:
    """End API keys. Within seconds nobody gets in with them any more.

    Example:

        {prog} keys revoke 3k9x0a7m2c5q
    """
    from agent_runtime.cli.api import Api
    from agent_runtime.cli.server import find_server

    with Api(find_server(target)) as api:
        for key in ids:
            api.revoke_key(key)
            print(f"key {key} is revoked")


COMMANDS: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = (
    (("create",), create),
    (("list", "ls"), list_keys),
    (("revoke",), revoke),
)
