# SPDX-License-Identifier: Apache-2.0
"""From figures of the protocols to ratios, targets and a page."""

from typing import Any

from benchmarks.protocols import report


def side(rate: float) -> dict[str, float]:
    return {"per_second": rate, "p50_ms": 1.0, "p99_ms": 2.0, "server_us": 100.0, "client_core_share": 0.2}


def found(ours: tuple[float, float], bare: tuple[float, float], *, p99_ms: float) -> dict[str, Any]:
    counts = ("1", "16")
    submit = {
        count: {"ours": side(mine), "bare": side(theirs)}
        for count, mine, theirs in zip(counts, ours, bare, strict=True)
    }
    return {"bare": "fastapi", "submit": submit, "result": {"at_200_per_s": {**side(200), "p99_ms": p99_ms}}}


PROTOCOLS = {
    "http": found((1000, 3000), (2000, 4000), p99_ms=12.5),
    "mcp": found((500, 800), (2000, 1600), p99_ms=31),
}
MACHINE = {
    "at": "2026-11-21T22:00:00", "cpu": "x", "cores": 2, "memory": "1048576 kB", "loadAverage": 0.1, "system": "Linux",
    "python": "3.11", "commit": "abc",
}  # fmt: skip


def test_the_ratio_is_that_of_the_best_rates() -> None:
    summary = report.summary(PROTOCOLS)
    assert summary["ratios"] == {"http": 0.75, "mcp": 0.4}
    assert summary["ratios_by_connections"]["http"] == {"1": 0.5, "16": 0.75}
    assert summary["submit_to_result_p99_ms_at_200_per_s"] == {"http": 12.5, "mcp": 31}


def test_each_protocol_has_two_targets() -> None:
    goals = report.goals(report.summary(PROTOCOLS))
    assert [(one.protocol, one.reached) for one in goals] == [
        ("http", True), ("mcp", False), ("http", True), ("mcp", False),
    ]  # fmt: skip


def test_the_page_says_what_was_missed() -> None:
    whole = {"machine": MACHINE, "protocols": PROTOCOLS, **report.summary(PROTOCOLS)}
    page = report.markdown(whole)
    assert "2 of 4 targets are reached in this run." in page
    assert page.count("**missed**") == 2
    assert "### `mcp` beside bare fastapi" in page
