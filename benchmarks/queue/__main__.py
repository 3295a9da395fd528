# SPDX-License-Identifier: Apache-2.0
"""`make bench-queue`: measure, print the ratios, write JSON, Markdown and a picture.

    python -m benchmarks.queue             all of it, about ten minutes; also writes docs/benchmarks/queue.*
    python -m benchmarks.queue --quick     the same with few tasks and one round, about two minutes; docs stay
    python -m benchmarks.queue compare     without growth; `--only taskiq bullmq` without the others
    python -m benchmarks.queue growth      only how our cost grows
    python -m benchmarks.queue report      only the page and the picture, from the JSON of before

The machine should have nothing else to do meanwhile.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.queue import plot, report
from benchmarks.queue.comparison import compare, say
from benchmarks.queue.contenders import CONTENDERS
from benchmarks.queue.environments import ROOT
from benchmarks.queue.growth import grow
from benchmarks.queue.ratios import verdicts
from benchmarks.queue.rounds import Extent

BUILT = ROOT / "build" / "bench"
DOCS = ROOT / "docs" / "benchmarks"
QUICK = Extent(each_tasks=500, drained_share=0.3, latency_seconds=1.0, idle_seconds=2.0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["all", "compare", "growth", "report"], default="all")
    parser.add_argument("--quick", action="store_true", help="few tasks, one round: to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], choices=[contender.name for contender in CONTENDERS])
    parser.add_argument(
        "--append-only", action="store_true", help="the server keeps an append-only file, for all alike"
    )
    arguments = parser.parse_args()
    begun_at = time.monotonic()
    path = BUILT / "queue.json"
    if arguments.part == "report":
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = {"machine": machine.describe(), "quick": arguments.quick}
        if arguments.part != "growth":
            extent, rounds = (QUICK, 1) if arguments.quick else (Extent(), arguments.rounds)
            found |= compare(extent, rounds=rounds, names=arguments.only, append_only=arguments.append_only)
        if arguments.part != "compare":
            found["growth"] = _grow(quick=arguments.quick)
        found["seconds"] = round(time.monotonic() - begun_at)
    # Only a full run of all, under the conditions that the page names, is worth publishing.
    whole = {"contenders", "growth"} <= found.keys() and len(found["contenders"]) == len(CONTENDERS)
    _write(found, BUILT)
    if whole and not found["quick"]:
        _write(found, DOCS)
    _tell(found)


def _grow(*, quick: bool) -> dict[str, Any]:
    if quick:
        return grow(depths=(10_000, 100_000), sizes=(100, 10_000), tasks=20_000)
    return grow(depths=(10_000, 100_000, 1_000_000), sizes=(100, 1_000, 10_000, 100_000), tasks=60_000)


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "queue.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (folder / "queue.md").write_text(report.markdown(found), encoding="utf-8")
    if "contenders" in found:
        (folder / "queue.svg").write_text(plot.svg(found["contenders"]), encoding="utf-8")


def _tell(found: dict[str, Any]) -> None:
    for verdict in verdicts(found.get("contenders", {})) if "contenders" in found else []:
        value = report.number(verdict.value)
        aim = "" if verdict.target is None else f", target {verdict.target:g}"
        said = {True: " reached", False: " MISSED", None: ""}[verdict.reached]
        best = f" ({verdict.against})" if verdict.against else ""
        print(f"{verdict.key:32} {value:>9} {verdict.unit}{aim}{said}{best}")
    say(f"written: {(BUILT / 'queue.json').relative_to(ROOT)}, queue.md, queue.svg ({found.get('seconds', 0)} s)")


if __name__ == "__main__":
    main()
