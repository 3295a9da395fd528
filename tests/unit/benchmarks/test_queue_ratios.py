# SPDX-License-Identifier: Apache-2.0
"""What `make bench-queue` makes of its figures: a wrong ratio would be believed."""

import json
import re
from typing import Any

import pytest

from benchmarks.queue import plot, ratios, report
from benchmarks.queue.environments import PEERS
from benchmarks.queue.ratios import Verdict

MACHINE = {
    **dict.fromkeys(("cpu", "system", "python", "commit", "at"), "?"),
    "cores": 2,
    "memory": "8388608 kB",
    "loadAverage": 0.4,
}


def contender(kind: str, **figures: float | None) -> dict[str, Any]:
    return {
        "title": kind.title(),
        "kind": kind,
        "bulk": "1,000 in a call",
        "failures": [],
        "rounds": [],
        "versions": {"it": "1.0"},
        **figures,
    }


def verdict(key: str, **contenders: dict[str, Any]) -> Verdict:
    return next(found for found in ratios.verdicts(contenders) if found.key == key)


def test_the_median_of_each_figure_is_taken_over_the_rounds_that_have_it() -> None:
    rounds: list[dict[str, Any]] = [
        {"a": 1.0, "idle": 2.0, "versions": {"x": "1"}},
        {"a": 5.0, "versions": {"x": "1"}},
        {"a": 3.0, "b": None},
    ]
    assert ratios.median(rounds) == {"a": 3.0, "idle": 2.0, "versions": {"x": "1"}, "b": None}


def test_drain_is_compared_with_the_fastest_peer_in_python_and_not_with_bullmq_or_the_prototype() -> None:
    found = verdict(
        "drain_vs_best_python",
        kubeagents=contender("ours", drain_per_s=60_000),
        slow=contender("python", drain_per_s=1_000),
        fast=contender("python", drain_per_s=4_000),
        bullmq=contender("node", drain_per_s=14_000),
        prototype=contender("prototype", drain_per_s=70_000),
    )
    assert (found.value, found.against, found.reached) == (15.0, "fast", True)


def test_latency_is_compared_with_the_lowest_and_may_not_be_higher() -> None:
    found = verdict(
        "p99_vs_best",
        kubeagents=contender("ours", latency_p99_ms=1.2),
        slow=contender("python", latency_p99_ms=11.0),
        fast=contender("node", latency_p99_ms=0.8),
    )
    assert found.value == pytest.approx(1.5)
    assert (found.against, found.reached) == ("fast", False)


def test_a_contender_that_failed_is_no_best_and_without_any_there_is_no_verdict() -> None:
    ours = contender("ours", drain_per_s=60_000)
    found = verdict("drain_vs_best_python", kubeagents=ours, failed=contender("python", drain_per_s=None))
    assert (found.value, found.reached) == (None, None)


def test_a_figure_of_ours_that_was_not_measured_reaches_nothing() -> None:
    found = verdict("concurrent_per_s", kubeagents=contender("ours"))
    assert (found.value, found.reached) == (None, None)


def test_the_page_names_missed_targets_and_those_who_failed_with_the_reason() -> None:
    failed = contender("python", drain_per_s=None) | {"title": "broken", "failures": ["not installed: no\nwheel"]}
    page = report.markdown(
        {
            "machine": MACHINE,
            "contenders": {
                "kubeagents": contender("ours", drain_per_s=20_000, concurrent_per_s=70_000),
                "bullmq": contender("node", drain_per_s=10_000),
                "broken": failed,
            },
        }
    )
    assert "drain, 1 worker, to BullMQ (2.00 × instead of 3 ×)" in page
    assert "| single submits, 256 at the same time | 70,000 /s |  | ≥ 60,000 /s | reached |" in page
    assert "Not measured: drain, 1 worker, to the best in Python" in page
    assert "| broken | it 1.0 | 1,000 in a call | not installed: no wheel |" in page


def test_the_picture_has_a_bar_for_each_contender_and_says_who_failed() -> None:
    picture = plot.svg({"kubeagents": contender("ours", drain_per_s=2.0), "broken": contender("python")})
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    assert texts.count("Ours") == len(plot.PANELS)
    assert texts.count("failed") == 2 * len(plot.PANELS) - 1


@pytest.mark.parametrize("pins", sorted(PEERS.glob("*/requirements.txt")), ids=lambda path: path.parent.name)
def test_every_pin_of_a_peer_is_exact_and_has_hashes(pins: Any) -> None:
    requirements = pins.read_text().replace("\\\n", "").splitlines()
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements), requirements


def test_every_package_of_the_node_peer_has_its_hash_and_names_no_host() -> None:
    lock = json.loads((PEERS / "bullmq" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all("integrity" in package and "resolved" not in package for package in packages.values()), packages


def test_the_page_says_so_when_the_machine_had_other_work() -> None:
    assert "8 GiB of memory" in report.markdown({"machine": MACHINE})
    assert "had other work" not in report.markdown({"machine": MACHINE})
    assert "had other work" in report.markdown({"machine": MACHINE | {"loadAverage": 1.1}})
