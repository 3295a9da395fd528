# SPDX-License-Identifier: Apache-2.0
"""The figures as Markdown. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.queue.ratios import Verdict, verdicts

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """The page docs/benchmarks/queue.md."""
    parts = [_head(report)]
    if "contenders" in report:
        parts += [_targets(report), _rates(report), _costs(report), _field(report)]
    if "growth" in report:
        parts.append(_growth(report["growth"]))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, *, digits: int | None = None) -> str:
    """For people: three digits that count, thousands apart; a dash for what was not measured."""
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _head(report: Report) -> str:
    machine, server = report["machine"], report.get("server", {})
    durable = "with an append-only file" if server.get("append_only") else "without persistence"
    return f"""# The queue, measured beside others

Written by `make bench-queue` from [queue.json](queue.json); what is measured and how is said in
[benchmarks/queue](../../benchmarks/queue/__init__.py), the settings of each contender in its program under
[peers](../../benchmarks/queue/peers). Absolute numbers belong to this machine: what counts are the ratios in one run.

Machine: {machine["cpu"]}, {machine["cores"]} cores for server, producer and workers together, {_memory(machine)},
{machine["system"]}, Python {machine["python"]}; load average at the beginning {machine["loadAverage"]}.{_busy(machine)}
Server: {server.get("version", "redis")} {durable}, on the loopback device. Commit {machine["commit"]},
{machine["at"][:10]}. The task does nothing, its payload is 100 bytes. It is acknowledged after the handler, and results
are stored."""


def _memory(machine: Report) -> str:
    amount, _, unit = (machine["memory"] or "").partition(" ")
    return f"{int(amount) / 2**20:.0f} GiB of memory" if unit == "kB" else "memory unknown"


def _busy(machine: Report) -> str:
    if machine["loadAverage"] <= machine["cores"] / 2:
        return ""
    return " **The machine had other work: these numbers say little.**"


def _targets(report: Report) -> str:
    found = verdicts(report["contenders"])
    titles = {name: figures["title"] for name, figures in report["contenders"].items()}
    aimed = [verdict for verdict in found if verdict.target is not None]
    missed = [verdict for verdict in aimed if verdict.reached is False]
    open_ = [verdict for verdict in aimed if verdict.reached is None]
    reached = sum(verdict.reached is True for verdict in aimed)
    said = f"{reached} of {len(aimed)} targets are reached in this run."
    if missed:
        said += " Missed: " + "; ".join(_missed(verdict) for verdict in missed) + "."
    if open_:
        said += " Not measured: " + "; ".join(verdict.title for verdict in open_) + "."
    rows = [
        (
            verdict.title,
            _with_unit(verdict.value, verdict.unit),
            titles.get(verdict.against, verdict.against),
            "" if verdict.target is None else f"{'≥' if verdict.better == 'higher' else '≤'} {_target(verdict)}",
            {True: "reached", False: "**missed**", None: ""}[verdict.reached],
        )
        for verdict in found
    ]
    turns = f"Medians of {report.get('rounds', 1)} rounds, in which the contenders took turns."
    picture = "![Bars for each contender](queue.svg)"
    return f"{turns}\n\n{picture}\n\n## Targets\n\n{said}\n\n" + table(
        ("Kubeagents", "value", "against", "target", ""), rows
    )


def _missed(verdict: Verdict) -> str:
    return f"{verdict.title} ({_with_unit(verdict.value, verdict.unit)} instead of {_target(verdict)})"


def _target(verdict: Verdict) -> str:
    return f"{verdict.target:,g} {verdict.unit}"


def _with_unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{number(value)} {unit}"


def _rates(report: Report) -> str:
    columns = ("each_per_s", "bulk_per_s", "drain_per_s", "drain_per_s_2_workers", "end_to_end_per_s")
    head = ("tasks per second", "one by one", "in bulk", "drain, 1 worker", "drain, 2 workers", "end to end")
    return "## Rates\n\n" + table(head, _rows(report, columns))


def _costs(report: Report) -> str:
    columns = (
        "latency_p50_ms",
        "latency_p95_ms",
        "latency_p99_ms",
        "commands_per_10k",
        "cpu_s_per_10k",
        "steady_commands_per_task",
        "idle_commands_per_s",
    )
    head = (
        "latency at 500/s in ms, and cost",
        "p50",
        "p95",
        "p99",
        "Redis commands per 10,000 tasks",
        "Redis CPU s per 10,000 tasks",
        "commands per task at 500/s",
        "commands/s of a waiting worker",
    )
    note = (
        "Latency is from the call that submits to the begin of the handler. Commands count those inside of scripts; "
        "they and the processor time are for submitting in bulk and draining with one worker."
    )
    return f"## Latency and cost\n\n{note}\n\n" + table(head, _rows(report, columns))


def _rows(report: Report, columns: Sequence[str]) -> Iterable[Sequence[str]]:
    for figures in report["contenders"].values():
        yield figures["title"], *(number(figures.get(column)) for column in columns)


def _field(report: Report) -> str:
    rows = []
    for figures in report["contenders"].values():
        versions = ", ".join(f"{name} {value}" for name, value in (figures.get("versions") or {}).items())
        failures = "; ".join(" ".join(failure.split()) for failure in figures["failures"])
        rows.append((figures["title"], versions or "–", figures["bulk"], failures.replace("|", "\\|") or "none"))
    lines = [("who", "versions", "submitting in bulk", "failed rounds, and why"), ("---",) * 4, *rows]
    return "## Who took part\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _growth(growth: Report) -> str:
    depth = table(
        (
            "queued tasks",
            "claim of 100, p50 ms",
            "p95 ms",
            "settling 100, p50 ms",
            "submit /s",
            "memory per task, bytes",
        ),
        (
            (
                number(row["tasks"]),
                number(row["claim_100_p50_ms"]),
                number(row["claim_100_p95_ms"]),
                number(row["settle_100_p50_ms"]),
                number(row["submit_per_s"]),
                number(row["bytes_per_task"]),
            )
            for row in growth["depth"]
        ),
    )
    workers = table(
        ("workers", "append-only file", "submit /s", "drain /s"),
        (
            (
                str(row["workers"]),
                "on" if row["append_only"] else "off",
                number(row["submit_per_s"]),
                number(row["drain_per_s"]),
            )
            for row in growth["workers"]
        ),
    )
    payload = table(
        ("payload, bytes", "submit /s", "drain /s", "drain MB/s", "memory per queued task, bytes"),
        (
            (
                number(row["payload_bytes"]),
                number(row["submit_per_s"]),
                number(row["drain_per_s"]),
                number(row["drain_mb_per_s"]),
                number(row["queued_bytes_per_task"]),
            )
            for row in growth["payload"]
        ),
    )
    return f"## How cost grows\n\nKubeagents alone.\n\n{depth}\n\n{workers}\n\n{payload}"
