# SPDX-License-Identifier: Apache-2.0
"""`kubeagents dev`: its options, and from manifests to a running session."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from agent_runtime.cli.errors import EXIT_USAGE, CliError

if TYPE_CHECKING:
    from agent_runtime.cli.dev.plan import Plan
    from agent_runtime.cli.dev.supervisor import Settings

_COMMAND = "kubeagents.command"


class DevCommand(TyperCommand):
    """Everything after `--` is a command of the user's, not a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the command away before typer looks at the rest."""
        if "--" in args:
            cut = args.index("--")
            args, ctx.meta[_COMMAND] = args[:cut], args[cut + 1 :]
            if not ctx.meta[_COMMAND]:
                raise CliError("-- must be followed by a command to run", exit_code=EXIT_USAGE)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Show that there may be one."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def dev(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Manifest files, or folders with such files.", show_default=False),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port of the first CentralAgent; 0: any. [dim]Default: 8080 if free."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the queues here. [dim]Default: in memory, gone at the end."),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="For manifests that name none.")
    ] = "default",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not show what the processes print; log files have it anyway.")
    ] = False,
    keep_running: Annotated[
        bool,
        typer.Option(
            "--keep-running",
            help="Go on after COMMAND has succeeded, until Ctrl-C. Not where stdout is no terminal or CI is set.",
        ),
    ] = False,
) -> None:
    """Run manifests on this machine: one process per replica, and a private Redis.

    The same Agents, CentralAgents and TaskQueues run here and in a cluster. ConfigMaps with code and Secrets are read
    from the manifests too. Everything is checked before anything starts; Ctrl-C ends it in order.

    [bold]COMMAND[/bold] runs once all is ready, with KUBEAGENTS_SERVER set; the session ends with it and exits with its
    code. Handy for tests.

    Examples:

        {prog} dev examples/01-quickstart
        {prog} dev agents.yaml --data-dir ./data
        {prog} dev agents.yaml -- pytest tests/
    """
    command = tuple(context.meta.get(_COMMAND, ()))
    if keep_running and not command:
        raise CliError("--keep-running goes with a COMMAND after --", exit_code=EXIT_USAGE)
    from agent_runtime.cli.dev.supervisor import Settings

    settings = Settings(
        paths=tuple(paths),
        port=port,
        data_dir=data_dir,
        command=_resolved(command),
        keep_running=keep_running and _attended(),
    )
    code = asyncio.run(_supervise(_plan(paths, namespace), settings, quiet=quiet or bool(command)))
    if code:
        raise typer.Exit(code)


def _attended() -> bool:
    """Whether somebody sits there who can press Ctrl-C."""
    return sys.stdout.isatty() and os.environ.get("CI", "").lower() not in ("1", "true")


def _resolved(command: tuple[str, ...]) -> tuple[str, ...]:
    import shutil

    if command and shutil.which(command[0]) is None:
        raise CliError(f"there is no program {command[0]!r} to run", exit_code=EXIT_USAGE)
    return command


def _plan(paths: list[Path], namespace: str) -> "Plan":
    from agent_runtime.cli.dev.manifests import ManifestsError, load
    from agent_runtime.cli.dev.plan import make_plan

    try:
        return make_plan(load(paths, namespace=namespace))
    except ManifestsError as error:
        if len(error.problems) == 1:
            raise CliError(error.problems[0]) from error
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise CliError(f"{len(error.problems)} problems in the manifests; nothing was started\n{listed}") from error


async def _supervise(plan: "Plan", settings: "Settings", *, quiet: bool) -> int:
    from agent_runtime.cli.dev.supervisor import Supervisor
    from agent_runtime.cli.dev.terminal import Terminal

    return await Supervisor(plan, settings, Terminal(plan.processes, quiet=quiet)).run()
