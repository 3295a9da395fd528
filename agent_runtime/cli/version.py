# SPDX-License-Identifier: Apache-2.0
"""`kubeagents version`."""

from typing import Annotated

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Format, Target


def version(
    client: Annotated[bool, typer.Option("--client", help="Only this program's version; asks no server.")] = False,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Show the version of this program, and of the server if one can be reached."""
    import platform
    from importlib.metadata import version as distribution_version

    from agent_runtime.cli.output import dump, stderr

    found: dict[str, str] = {"client": distribution_version("kubeagents"), "python": platform.python_version()}
    if not client:
        from agent_runtime.cli.api import Api
        from agent_runtime.cli.server import find_server

        try:
            where = find_server(target, needs_key=False)
            with Api(where) as api:
                found |= {"server": api.version(), "url": where.url, "from": where.source}
        except CliError as error:
            # Not finding a server is fine here, unless one was named.
            if target != Target():
                raise
            stderr().print(f"no server: {error}", style="dim", markup=False)
    if output is Format.TABLE:
        for key, value in found.items():
            print(f"{key:<8}{value}")
    else:
        dump(found, output)
