# SPDX-License-Identifier: Apache-2.0
"""What a `dev` session prints: notes, the processes' lines with coloured prefixes, and the overview of what runs."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_runtime.cli.dev.plan import HOST, Plan, Ports, ProcessPlan
from agent_runtime.cli.output import PIPE_WIDTH, print_table
from agent_runtime.cli.session import CentralEntry
from kubeagents_api.endpoints import Endpoint

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")

_LEVEL = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (DEBUG|WARNING|ERROR)")
"""How the runtime's text log lines begin."""
_LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red"}


class Terminal:
    """Prints to stdout, so that a pipe gets everything in order."""

    def __init__(self, processes: Sequence[ProcessPlan], *, quiet: bool) -> None:
        """`quiet`: the lines of the processes are not shown; they are in the log files all the same."""
        self.console = Console(
            highlight=False,
            soft_wrap=True,
            emoji=False,
            markup=False,
            width=None if sys.stdout.isatty() else PIPE_WIDTH,
        )
        self.quiet = quiet
        owners = dict.fromkeys(process.owner for process in processes)
        self._colours = dict(zip(owners, cycle(_COLOURS), strict=False))
        self._styles = {process.name: self._colours[process.owner] for process in processes}
        self._width = max((len(process.name) for process in processes), default=0)

    def say(self, text: str) -> None:
        """Something about the session."""
        self.console.print(Text.assemble(("kubeagents ", "bold"), text))

    def warn(self, text: str) -> None:
        """Something the user should look at."""
        self.console.print(Text.assemble(("kubeagents ", "bold"), (text, "yellow")))

    def line(self, process: str, text: str) -> None:
        """A line that a process printed."""
        if not self.quiet:
            line = Text.from_ansi(text)
            if level := _LEVEL.match(line.plain):
                line.stylize(_LEVEL_STYLES[level[1]])
            prefix = (f"{process:<{self._width}} │ ", self._styles.get(process, ""))
            self.console.print(Text.assemble(prefix, line))

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Shows that something goes on; only on a terminal."""
        return self.console.status(text) if self.console.is_terminal else nullcontext()

    def overview(
        self,
        plan: Plan,
        *,
        centrals: Sequence[CentralEntry],
        ports: Mapping[str, Ports],
        redis: str,
        log_folder: Path,
        data_folder: Path | None,
    ) -> None:
        """What runs, and where to reach it."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for header in ("KIND", "NAME", "PROCESSES", "DOES"):
            table.add_column(header, justify="right" if header == "PROCESSES" else "left", overflow="fold")
        for (kind, _, owner), group in _grouped(plan.processes):
            does = group[0].does
            text = f"serves {does}" if kind == "CentralAgent" else f"{does} on {group[0].queues[0][1]}"
            table.add_row(kind, Text(owner, style=self._colours[owner]), str(len(group)), text)
        for (_, name), queue in plan.queues.items():
            table.add_row("TaskQueue", name, "", "external Redis" if queue.external_url is not None else redis)
        facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column(overflow="fold")
        for central in centrals:
            suffix = f" of {central.name}" if len(centrals) > 1 else ""
            facts.add_row(f"Status page{suffix}", f"{central.url}/")
            facts.add_row(f"HTTP API{suffix}", f"{central.url}/docs")
        served = [(process, ports[process.name]) for process in plan.processes if process.name in ports]
        for process, at in served:
            suffix = f" of {process.name}" if len(served) > 1 else ""
            for protocol in process.endpoints:
                if protocol != "http" or process.kind == "Agent":
                    facts.add_row(f"{_PROTOCOLS[protocol][0]}{suffix}", _where(protocol, at))
        facts.add_row("Logs", str(log_folder))
        facts.add_row("Data", str(data_folder) if data_folder else "in memory, gone at the end (--data-dir keeps it)")
        agent = next((process for process in plan.processes if process.kind == "Agent"), None)
        if agent is not None and centrals:
            facts.add_row("Try", f'kubeagents submit --agent {agent.owner} --wait \'{{"text": "hello"}}\'')
        facts.add_row("Stop", "Ctrl-C")
        self.console.print()
        print_table(table, console=self.console)
        self.console.print()
        print_table(facts, console=self.console)
        self.console.print()


_PROTOCOLS: dict[Endpoint, tuple[str, str]] = {
    "a2a": ("A2A", "http://{host}/.well-known/agent-card.json"),
    "grpc": ("gRPC", "{host}"),
    "http": ("HTTP", "http://{host}/docs"),
    "mcp": ("MCP", "http://{host}/mcp"),
    "websocket": ("WebSocket", "ws://{host}/v1/ws"),
    "zeromq": ("ZeroMQ", "tcp://{host}"),
}
"""What people call the protocols, and where they are."""


def _where(protocol: Endpoint, ports: Ports) -> str:
    return _PROTOCOLS[protocol][1].format(host=f"{HOST}:{ports.own.get(protocol, ports.http)}")


def _grouped(
    processes: Iterable[ProcessPlan],
) -> Iterable[tuple[tuple[str, str, str], list[ProcessPlan]]]:
    groups: dict[tuple[str, str, str], list[ProcessPlan]] = {}
    for process in processes:
        groups.setdefault((process.kind, process.namespace, process.owner), []).append(process)
    return groups.items()
