# SPDX-License-Identifier: Apache-2.0
"""From figures to ratios: ours to the best of the others in the same run, beside what was aimed at. No I/O."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Figures = Mapping[str, Any]
"""Of one contender: medians by name, and what it is (`kind`)."""
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by the best of some others."""

    key: str
    title: str
    figure: str
    better: Better
    kinds: tuple[str, ...]
    """The best of which contenders."""
    target: float | None = None


PEERS = ("python", "node")
RATIOS = (
    Ratio("drain_vs_best_python", "drain, 1 worker, to the best in Python", "drain_per_s", "higher", ("python",), 12),
    Ratio(
        "drain_2_workers_vs_best_python",
        "drain, 2 workers, to the best in Python",
        "drain_per_s_2_workers",
        "higher",
        ("python",),
        12,
    ),
    Ratio("drain_vs_bullmq", "drain, 1 worker, to BullMQ", "drain_per_s", "higher", ("node",), 3),
    Ratio("drain_2_workers_vs_bullmq", "drain, 2 workers, to BullMQ", "drain_per_s_2_workers", "higher", ("node",), 3),
    Ratio(
        "end_to_end_vs_best_python", "end to end, to the best in Python", "end_to_end_per_s", "higher", ("python",), 10
    ),
    Ratio("end_to_end_vs_bullmq", "end to end, to BullMQ", "end_to_end_per_s", "higher", ("node",), 3),
    Ratio("bulk_enqueue_vs_best", "submitting in bulk, to the best of all", "bulk_per_s", "higher", PEERS, 4),
    Ratio("each_enqueue_vs_best", "submitting one by one, to the best of all", "each_per_s", "higher", PEERS),
    Ratio("p50_vs_best", "latency p50, to the best of all", "latency_p50_ms", "lower", PEERS),
    Ratio("p99_vs_best", "latency p99, to the best of all", "latency_p99_ms", "lower", PEERS, 1),
    Ratio("redis_cpu_vs_best", "Redis CPU per task, to the best of all", "cpu_s_per_10k", "lower", PEERS, 0.5),
    Ratio("drain_vs_prototype", "drain, 1 worker, to the prototype", "drain_per_s", "higher", ("prototype",), 0.6),
    Ratio(
        "drain_2_workers_vs_prototype",
        "drain, 2 workers, to the prototype",
        "drain_per_s_2_workers",
        "higher",
        ("prototype",),
        0.6,
    ),
    Ratio("submit_vs_prototype", "submitting in bulk, to the prototype", "bulk_per_s", "higher", ("prototype",), 0.6),
    Ratio("end_to_end_vs_prototype", "end to end, to the prototype", "end_to_end_per_s", "higher", ("prototype",), 0.6),
)


@dataclass(frozen=True, slots=True)
class Absolute:
    """One of our figures by itself."""

    figure: str
    title: str
    unit: str
    better: Better
    target: float


ABSOLUTES = (
    Absolute("concurrent_per_s", "single submits, 256 at the same time", "/s", "higher", 60_000),
    Absolute("latency_p50_ms", "latency p50 at 500/s", "ms", "lower", 0.5),
    Absolute("latency_p99_ms", "latency p99 at 500/s", "ms", "lower", 1.0),
    Absolute("idle_commands_per_s", "Redis commands of a waiting worker", "/s", "lower", 2.0),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and what was reached."""

    key: str
    title: str
    value: float | None
    """None if it was not measured."""
    against: str
    """Who was best; empty for a figure by itself."""
    target: float | None
    better: Better
    unit: str = "×"

    @property
    def reached(self) -> bool | None:
        """None: there was no target, or no figure."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def median(rounds: Sequence[Figures]) -> dict[str, Any]:
    """The median of each figure over the rounds that have it; what is not a number is taken from the last round."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for figures in rounds for name in figures):
        values = [figures[name] for figures in rounds if figures.get(name) is not None]
        numbers = [value for value in values if isinstance(value, int | float)]
        found[name] = statistics.median(numbers) if numbers else values[-1] if values else None
    return found


def verdicts(contenders: Mapping[str, Figures], *, ours: str = "kubeagents") -> list[Verdict]:
    """All ratios and figures that there are targets for, and the ratios without one."""
    mine = contenders.get(ours, {})
    found = []
    for ratio in RATIOS:
        best = _best(contenders, ratio)
        value = mine.get(ratio.figure)
        if best is None or not best[1] or value is None:
            found.append(Verdict(ratio.key, ratio.title, None, "", ratio.target, ratio.better))
        else:
            found.append(Verdict(ratio.key, ratio.title, value / best[1], best[0], ratio.target, ratio.better))
    for one in ABSOLUTES:
        found.append(Verdict(one.figure, one.title, mine.get(one.figure), "", one.target, one.better, one.unit))
    return found


def _best(contenders: Mapping[str, Figures], ratio: Ratio) -> tuple[str, float] | None:
    """Name and figure of the best of those that the ratio is about."""
    candidates: Iterable[tuple[str, float]] = [
        (name, figures[ratio.figure])
        for name, figures in contenders.items()
        if figures.get("kind") in ratio.kinds and figures.get(ratio.figure) is not None
    ]
    choose = max if ratio.better == "higher" else min
    return choose(candidates, key=lambda candidate: candidate[1], default=None)
