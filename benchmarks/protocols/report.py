# SPDX-License-Identifier: Apache-2.0
"""The figures as ratios, targets and Markdown. No I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.queue.report import number, table

Report = Mapping[str, Any]

RATIO = 0.7
P99_MS = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """One figure, and what was aimed at."""

    protocol: str
    title: str
    value: float
    limit: float
    at_least: bool

    @property
    def reached(self) -> bool:
        """Whether it is as good as that."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def summary(protocols: Report) -> dict[str, Any]:
    """What the JSON says first."""
    submits = {name: found["submit"] for name, found in protocols.items()}
    return {
        "ratios": {name: _peak_ratio(found) for name, found in submits.items()},
        "ratios_by_connections": {
            name: {count: _ratio(pair["ours"], pair["bare"]) for count, pair in found.items()}
            for name, found in submits.items()
        },
        "submit_to_result_p99_ms_at_200_per_s": {
            name: found["result"]["at_200_per_s"]["p99_ms"] for name, found in protocols.items()
        },
    }


def _peak_ratio(found: Report) -> float:
    """The most that ours takes, whatever the number of connections, to the most that the bare one takes."""
    best = {side: max(pair[side]["per_second"] for pair in found.values()) for side in ("ours", "bare")}
    return float(round(best["ours"] / best["bare"], 3))


def _ratio(ours: Report, theirs: Report) -> float:
    return float(round(ours["per_second"] / theirs["per_second"], 3))


def goals(report: Report) -> list[Target]:
    """Everything that was aimed at."""
    made = [
        Target(name, "submit rate, to the bare server's", value, RATIO, at_least=True)
        for name, value in report["ratios"].items()
    ]
    return made + [
        Target(name, "submit to result at 200/s, p99 in ms", value, P99_MS, at_least=False)
        for name, value in report["submit_to_result_p99_ms_at_200_per_s"].items()
    ]


def targets(report: Report) -> str:
    """For the terminal."""
    return "\n".join(
        f"{one.protocol:10} {one.title:40} {number(one.value):>8} target {'≥' if one.at_least else '≤'} "
        f"{number(one.limit)}{' reached' if one.reached else ' MISSED'}"
        for one in goals(report)
    )


def markdown(report: Report) -> str:
    """The page docs/benchmarks/protocols.md."""
    return "\n\n".join([_head(report), _targets(report), *_submits(report), _results(report), _keys(report)]) + "\n"


def _head(report: Report) -> str:
    machine = report["machine"]
    memory = int(machine["memory"].split()[0]) / 2**20
    return f"""# The protocols, measured beside bare servers

Written by `make bench-protocols` from [protocols.json](protocols.json); what is measured and how is said in
[benchmarks/protocols](../../benchmarks/protocols/__init__.py). Absolute numbers belong to this machine: what counts are
the ratios in one run.

Machine: {machine["cpu"]}, {machine["cores"]} cores for server, Redis, Agent and client together, {memory:.0f} GiB of
memory, {machine["system"]}, Python {machine["python"]}; load average at the beginning {machine["loadAverage"]}. Commit
{machine["commit"]}, {machine["at"][:10]}."""


def _targets(report: Report) -> str:
    aimed = goals(report)
    reached = sum(one.reached for one in aimed)
    rows = [
        (f"`{one.protocol}`", one.title, number(one.value), f"{'≥' if one.at_least else '≤'} {number(one.limit)}",
         "reached" if one.reached else "**missed**")
        for one in aimed
    ]  # fmt: skip
    said = f"{reached} of {len(aimed)} targets are reached in this run."
    return f"## Targets\n\n{said}\n\n" + table(("protocol", "figure", "value", "target", ""), rows)


def _submits(report: Report) -> Iterator[str]:
    yield (
        "## Submit\n\nOurs checks the task, writes it to Redis and answers with its id; the bare server checks the "
        "same body (that of websockets: nothing) and keeps nothing. MCP and A2A are held against FastAPI, as they ride "
        "on HTTP. `core` is the client's share of a core, µs are the server's processor time for one submission, "
        "without Redis'."
    )
    head = ("connections", "ours/s", "bare/s", "ratio", "ours p50 ms", "p99 ms", "bare p50 ms", "p99 ms",
            "ours µs", "bare µs", "core ours", "core bare")  # fmt: skip
    for name, found in report["protocols"].items():
        rows = [
            (count, number(pair["ours"]["per_second"]), number(pair["bare"]["per_second"]),
             number(_ratio(pair["ours"], pair["bare"])),
             number(pair["ours"]["p50_ms"]), number(pair["ours"]["p99_ms"]),
             number(pair["bare"]["p50_ms"]), number(pair["bare"]["p99_ms"]),
             number(pair["ours"]["server_us"]), number(pair["bare"]["server_us"]),
             number(pair["ours"]["client_core_share"]), number(pair["bare"]["client_core_share"]))
            for count, pair in found["submit"].items()
        ]  # fmt: skip
        yield f"### `{name}` beside bare {found['bare']}\n\n" + table(head, rows)


def _results(report: Report) -> str:
    rows = [
        (f"`{name}`", "200/s, steady" if count == "at_200_per_s" else f"{count} connections",
         number(found["per_second"]), number(found["p50_ms"]), number(found["p99_ms"]))
        for name, protocol in report["protocols"].items()
        for count, found in protocol["result"].items()
    ]  # fmt: skip
    return "## Submit to result\n\nWith one Agent that echoes.\n\n" + table(
        ("protocol", "load", "tasks/s", "p50 ms", "p99 ms"), rows
    )


def _keys(report: Report) -> str:
    found = report["protocols"].get("http", {}).get("guarded")
    if found is None:
        return ""
    rows = [
        (count, number(pair["with a key"]["per_second"]), number(pair["without"]["per_second"]),
         number(_ratio(pair["with a key"], pair["without"])),
         number(pair["with a key"]["server_us"] - pair["without"]["server_us"]))
        for count, pair in found.items()
    ]  # fmt: skip
    return (
        "## What a key costs\n\nSubmissions over HTTP with an API key, with permissions checked and each one written "
        "to the audit log, beside the same without.\n\n"
    ) + table(("connections", "with a key/s", "without/s", "ratio", "µs more"), rows)
