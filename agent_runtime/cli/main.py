# SPDX-License-Identifier: Apache-2.0
"""Entry point: the list of commands, and what an error looks like."""

import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from agent_runtime.cli import agent, dead, get, keys, mcp, queue
from agent_runtime.cli.audit import audit
from agent_runtime.cli.cancel import cancel
from agent_runtime.cli.cordon import cordon, uncordon
from agent_runtime.cli.dev.command import DevCommand, dev
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.events import events
from agent_runtime.cli.logs import logs
from agent_runtime.cli.options import expanded, program_name
from agent_runtime.cli.result import result
from agent_runtime.cli.submit import submit
from agent_runtime.cli.version import version
from agent_runtime.cli.watch import watch

_OVERVIEW = """Run agents from manifests, here or on Kubernetes, and give them tasks.

Start with

    {prog} dev examples/01-quickstart

and in another terminal

    {prog} submit --agent echo --wait '{"hello": "world"}'

[dim]Exit codes: 0 done, 1 it did not work or a task failed, 2 wrong usage, 3 a task is not finished yet.[/dim]
"""

_COMMANDS: tuple[tuple[Callable[..., None], type[TyperCommand]], ...] = (
    (dev, DevCommand),
    (submit, TyperCommand),
    (result, TyperCommand),
    (watch, TyperCommand),
    (cancel, TyperCommand),
    (cordon, TyperCommand),
    (uncordon, TyperCommand),
    (events, TyperCommand),
    (audit, TyperCommand),
    (logs, TyperCommand),
    (version, TyperCommand),
)
_GROUPS = {"agent": agent, "get": get, "dead": dead, "queue": queue, "keys": keys, "mcp": mcp}


def build_app() -> typer.Typer:
    """The command line. Its help names the program as the user called it."""
    prog = program_name()

    def told(text: str | None) -> str:
        paragraphs = inspect.cleandoc(text or "").replace("{prog}", prog).split("\n\n")
        # Lines of prose are joined, to be wrapped at the terminal's width; indented examples stay as they are. The
        # markup that does nothing is no space: without it the indentation goes where only a heading is above it.
        return "\n\n".join(f"[none][/none]{p}" if p.startswith("    ") else " ".join(p.split("\n")) for p in paragraphs)

    settings: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        help=told(_OVERVIEW),
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings=settings,
    )
    for function, command_class in _COMMANDS:
        app.command(cls=command_class, help=told(function.__doc__), context_settings=settings)(expanded(function))
    for title, module in _GROUPS.items():
        group = typer.Typer(
            help=told(module.__doc__), no_args_is_help=True, rich_markup_mode="rich", context_settings=settings
        )
        for names, function in module.COMMANDS:
            for position, name in enumerate(names):
                hidden = position > 0
                group.command(name, help=told(function.__doc__), context_settings=settings, hidden=hidden)(
                    expanded(function)
                )
        app.add_typer(group, name=title)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    # Libraries that log (the kubeconfig loader does) must not add to what the command says itself.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        build_app()(args=arguments, prog_name=program_name())
    except CliError as error:
        print_error(str(error))
        return error.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    return 0


def print_error(message: str) -> None:
    """One error, for people, on stderr."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))


if __name__ == "__main__":
    sys.exit(main())
