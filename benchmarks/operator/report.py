# SPDX-License-Identifier: Apache-2.0
"""The figures as ratios, targets and Markdown. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.queue.report import number, table

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of one size, and what it should be at most."""

    title: str
    agents: str
    value: float
    limit: float
    unit: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.limit


def ratios(figures: Report) -> dict[str, float]:
    """Ours beside the others."""
    ours, direct, kopf = figures["kubeagents"], figures["direct"], figures["plain_kopf"]
    return {
        "time_to_children_vs_direct": round(ours["children_seconds"] / direct["children_seconds"], 3),
        "time_to_children_vs_plain_kopf": round(ours["children_seconds"] / kopf["children_seconds"], 3),
        "cpu_vs_plain_kopf": round(ours["cpu_seconds"] / kopf["cpu_seconds"], 3),
        "writes_on_restart": sum(ours["restart"]["writes"].values()),
        "writes_per_agent": ours["writes_per_agent"],
    }


def goals(found: Report) -> list[Target]:
    """Everything that was aimed at, for the sizes that were measured."""
    made: list[Target] = []
    for agents, figures in found["sizes"].items():
        ours, ratio = figures["kubeagents"], figures["ratios"]
        made += [
            Target(
                "time until all children exist, to direct creation", agents, ratio["time_to_children_vs_direct"], 1.15
            ),
            Target("processor time, to plain kopf", agents, ratio["cpu_vs_plain_kopf"], 0.5),
            Target("API writes per Agent", agents, ratio["writes_per_agent"], 5),
            Target("status writes per Agent", agents, ours["status_writes_per_agent"], 2),
            Target("writes on a resync", agents, sum(ours["resync"]["writes"].values()), 0),
            Target("writes on a restart", agents, ratio["writes_on_restart"], 0),
            Target("change under load, p99", agents, ours["load"]["p99_seconds"], 1, "s"),
            Target("steady after a restart", agents, ours["restart"]["steady_seconds"], 10, "s"),
        ]
        if (limit := {"1000": 150, "5000": 400}.get(agents)) is not None:
            made.append(Target("peak memory", agents, ours["peak_megabytes"], limit, "MB"))
    return made


def targets(found: Report) -> str:
    """For the terminal."""
    return "\n".join(
        f"{one.agents:>6} Agents  {one.title:50} {number(one.value):>8} {one.unit:2} target {number(one.limit):>6}"
        f"{' reached' if one.reached else ' MISSED'}"
        for one in goals(found)
    )


def markdown(found: Report) -> str:
    """The page docs/benchmarks/operator.md."""
    parts = [_head(found), _targets(found), *(_size(agents, one) for agents, one in found["sizes"].items())]
    return "\n\n".join(parts) + "\n"


def _head(found: Report) -> str:
    machine = found["machine"]
    memory = int(machine["memory"].split()[0]) / 2**20
    return f"""# The operator, measured beside direct creation and a plain operator

Written by `make bench-operator` from [operator.json](operator.json); what is measured and how is said in
[benchmarks/operator](../../benchmarks/operator/__init__.py). Absolute numbers belong to this machine: what counts are
the ratios in one run.

Machine: {machine["cpu"]}, {machine["cores"]} cores for etcd, API server, controllers, scheduler, kwok, Redis, client
and operator together, {memory:.0f} GiB of memory, {machine["system"]}, Python {machine["python"]}; load average at the
beginning {machine["loadAverage"]}. Commit {machine["commit"]}, {machine["at"][:10]}."""


def _targets(found: Report) -> str:
    aimed = goals(found)
    missed = [one for one in aimed if not one.reached]
    said = f"{len(aimed) - len(missed)} of {len(aimed)} targets are reached in this run."
    rows = [
        (one.title, f"{int(one.agents):,}", _with_unit(one.value, one.unit), f"≤ {_with_unit(one.limit, one.unit)}",
         "reached" if one.reached else "**missed**")
        for one in aimed
    ]  # fmt: skip
    return f"## Targets\n\n{said}\n\n" + table(("Kubeagents", "Agents", "value", "target", ""), rows)


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def _size(agents: str, figures: Report) -> str:
    names = {"direct": "direct creation", "plain_kopf": "plain kopf operator", "kubeagents": "Kubeagents"}
    columns = ("children", "children_seconds", "agents_per_s", "cpu_seconds_per_1000", "peak_megabytes")
    compared = table(
        ("", "children", "s until they exist", "Agents/s", "CPU s per 1,000 Agents", "peak MB"),
        [(title, *(number(figures[key].get(column)) for column in columns)) for key, title in names.items()],
    )
    ours = figures["kubeagents"]
    rows = [
        ("all Agents Ready, s", number(ours["ready_seconds"])),
        ("reconciles/s until then", number(ours["reconciles_per_s"])),
        ("API writes per Agent", number(ours["writes_per_agent"])),
        ("of these, status", number(ours["status_writes_per_agent"])),
        ("Kubernetes Events per Agent, on top", number(ours["events_per_agent"])),
        ("API writes on a resync", number(sum(ours["resync"]["writes"].values()))),
        ("API writes for a change of one field, per Agent", number(ours["change"]["writes_per_agent"])),
        ("change to updated Deployment under load, p50 s", number(ours["load"]["p50_seconds"])),
        ("the same, p99 s", number(ours["load"]["p99_seconds"])),
        ("restart to steady state, s", number(ours["restart"]["steady_seconds"])),
        ("API writes on it", number(sum(ours["restart"]["writes"].values()))),
        ("CPU s for it", number(ours["restart"]["cpu_seconds"])),
        ("API server back to a change carried out, s", number(ours["api_server_restart"]["recovery_seconds"])),
    ]
    return f"## {int(agents):,} Agents\n\n{compared}\n\n" + table(("Kubeagents", ""), rows)
