# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, declared once so that they read and behave the same everywhere."""

import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from agent_runtime.cli.errors import EXIT_USAGE, CliError

SERVER_ENV = "KUBEAGENTS_SERVER"
KEY_ENV = "KUBEAGENTS_KEY"
_KEY = re.compile(r"[!-~]+")

_WHERE = "Which server"
_ENCRYPTION = "Encryption"


class Format(StrEnum):
    """How a command prints what it read."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print: a table for people, or all of it.")]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help=f"URL of a CentralAgent's HTTP API. [dim]Default: ${SERVER_ENV}, a running `dev`, or the kubeconfig.",
        rich_help_panel=_WHERE,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace of the CentralAgent. [dim]Default: the context's.",
        rich_help_panel=_WHERE,
    ),
]
Central = Annotated[
    str | None,
    typer.Option("--central", metavar="NAME", help="The CentralAgent, if there are several.", rich_help_panel=_WHERE),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig to use.", rich_help_panel=_WHERE),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="The kubeconfig. [dim]Default: $KUBECONFIG, else ~/.kube/config.",
        rich_help_panel=_WHERE,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help=f"File with the API key, where one is needed. [dim]Default: the key in ${KEY_ENV}.",
        rich_help_panel=_WHERE,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The authorities to trust, in PEM.", rich_help_panel=_ENCRYPTION),
]
CertFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Your own certificate, in PEM.", rich_help_panel=_ENCRYPTION),
]
CertKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The key of that, if it is in another file.", rich_help_panel=_ENCRYPTION),
]
Queue = Annotated[
    str | None, typer.Option("--queue", "-q", metavar="NAME", help="The TaskQueue. [dim]Default: the server's first.")
]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who does it; events show it. [dim]Default: your login name.")
]


def author(by: str | None) -> str:
    """Who does it: as said, or the user of this machine."""
    import getpass

    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container with a user id that has no name
        return f"uid-{os.getuid()}"


@dataclass(frozen=True)
class Target:
    """What the user said about the server."""

    server: ServerUrl = None
    namespace: Namespace = None
    central: Central = None
    context: Context = None
    kubeconfig: Kubeconfig = None
    key_file: KeyFile = None
    ca_file: CaFile = None
    cert_file: CertFile = None
    cert_key_file: CertKeyFile = None

    @property
    def shows_certificates(self) -> bool:
        """Whether the user said something about encryption."""
        return (self.ca_file, self.cert_file, self.cert_key_file) != (None, None, None)

    @property
    def names_a_cluster(self) -> bool:
        """Whether a cluster was asked for, so that nothing else must be taken instead."""
        return self.context is not None or self.kubeconfig is not None


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer shall see it: each parameter that is a dataclass of options stands for all of them."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    seen: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = groups.get(parameter.name)
        members = [parameter] if group is None else inspect.signature(group, eval_str=True).parameters.values()
        seen += [member.replace(kind=inspect.Parameter.KEYWORD_ONLY) for member in members]

    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{member.name: given.pop(member.name) for member in fields(group)})
        command(**given)

    call.__name__ = command.__name__
    call.__doc__ = command.__doc__
    call.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]  # what inspect documents
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return call


def is_kubectl_plugin() -> bool:
    """Whether this runs as `kubectl agents`."""
    return Path(sys.argv[0]).name.startswith("kubectl-")


def program_name() -> str:
    """What the user typed to get here, for texts that tell them what to type next."""
    return "kubectl agents" if is_kubectl_plugin() else "kubeagents"


def server_from_environment() -> str | None:
    """The URL in KUBEAGENTS_SERVER; an empty variable counts as unset."""
    return os.environ.get(SERVER_ENV) or None


def api_key(target: Target) -> str | None:
    """The API key to show, if the user has one. Raises CliError if there is something else in its place."""
    source, key = KEY_ENV, os.environ.get(KEY_ENV, "").strip()
    if target.key_file is not None:
        source = f"--key-file {target.key_file}"
        try:
            key = target.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"{source} cannot be read: {error}", exit_code=EXIT_USAGE) from error
    elif not key:
        return None
    if not _KEY.fullmatch(key):
        raise CliError(f"there is no API key in {source}: one is printable ASCII without spaces", exit_code=EXIT_USAGE)
    return key
