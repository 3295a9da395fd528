# SPDX-License-Identifier: Apache-2.0
"""All contenders, in turns."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.queue import ratios
from benchmarks.queue.contenders import CONTENDERS, Contender
from benchmarks.queue.environments import ROOT, ContenderError, Environment, prepare
from benchmarks.queue.processes import Program, server
from benchmarks.queue.rounds import Extent, measure


def compare(extent: Extent, *, rounds: int, names: Sequence[str] = (), append_only: bool = False) -> dict[str, Any]:
    """Measure, and return `contenders`, `ratios` and the server's version."""
    chosen = [contender for contender in CONTENDERS if not names or contender.name in names]
    environments, reports = _environments(chosen)
    with server(append_only=append_only) as running:
        with running.client() as client:
            info = client.info("server")
        for number in range(rounds):
            # Every second time the other way round: nobody always comes after the same one.
            for contender in chosen if number % 2 == 0 else reversed(chosen):
                if contender.name not in environments:
                    continue
                report, begun_at = reports[contender.name], time.monotonic()
                say(f"round {number + 1} of {rounds}: {contender.title}")
                try:
                    program = Program(contender, environments[contender.name], running)
                    report["rounds"].append(measure(program, extent, idle=number == 0))
                except ContenderError as error:
                    report["failures"].append(_portable(error))
                    say(f"  FAILED: {error}")
                else:
                    say(f"  {_line(report['rounds'][-1])} ({time.monotonic() - begun_at:.0f} s)")
    contenders = {name: report | ratios.median(report["rounds"]) for name, report in reports.items()}
    found = ratios.verdicts(contenders)
    return {
        "server": {
            "version": f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}",
            "append_only": append_only,
        },
        "rounds": rounds,
        "contenders": contenders,
        "ratios": {verdict.key: verdict.value for verdict in found if verdict.unit == "×"},
        "ratios_against": {verdict.key: verdict.against for verdict in found if verdict.against},
        "targets": {
            verdict.key: {"value": verdict.value, "target": verdict.target, "reached": verdict.reached}
            for verdict in found
            if verdict.target is not None
        },
    }


def _environments(chosen: Sequence[Contender]) -> tuple[dict[str, Environment], dict[str, dict[str, Any]]]:
    environments: dict[str, Environment] = {}
    reports: dict[str, dict[str, Any]] = {}
    for contender in chosen:
        reports[contender.name] = {
            "title": contender.title,
            "kind": contender.kind.value,
            "bulk": contender.bulk,
            "failures": [],
            "rounds": [],
        }
        try:
            environments[contender.name] = prepare(contender)
        except ContenderError as error:
            reports[contender.name]["failures"].append(f"not installed: {_portable(error)}")
            say(f"{contender.title} CANNOT BE INSTALLED: {error}")
    return environments, reports


def _portable(error: ContenderError) -> str:
    """What went wrong, without the paths of this machine: it may be published."""
    return str(error).replace(f"{ROOT}/", "").replace(str(Path.home()), "~")


def _line(figures: dict[str, Any]) -> str:
    def number(name: str) -> str:
        return "-" if figures.get(name) is None else f"{figures[name]:,.0f}"

    return (
        f"each {number('each_per_s')}, bulk {number('bulk_per_s')}, drain {number('drain_per_s')} and "
        f"{number('drain_per_s_2_workers')}, end to end {number('end_to_end_per_s')} /s, "
        f"latency {figures['latency_p50_ms']:.2f} / {figures['latency_p99_ms']:.2f} ms"
    )


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)
