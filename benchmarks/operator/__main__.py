# SPDX-License-Identifier: Apache-2.0
"""`make bench-operator`: measure, print the ratios, write JSON and Markdown.

    python -m benchmarks.operator                 100, 1,000 and 5,000 Agents; also writes docs/benchmarks/operator.*
    python -m benchmarks.operator --agents 1000   the short form; docs stay
    python -m benchmarks.operator --only kubeagents --agents 1000

The machine should have nothing else to do meanwhile.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.operator import report, scenes

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "bench"
DOCS = ROOT / "docs" / "benchmarks"
SIZES = (100, 1000, 5000)
CONTENDERS = {"direct": scenes.direct, "plain_kopf": scenes.plain_kopf, "kubeagents": scenes.kubeagents}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = parser.parse_args()
    begun = time.monotonic()
    found: dict[str, Any] = {"machine": machine.describe(), "sizes": {}}
    for agents in arguments.agents:
        figures = found["sizes"][str(agents)] = {}
        for name in arguments.only:
            print(f"{agents} Agents, {name}: ", end="", flush=True)
            started = time.monotonic()
            figures[name] = asyncio.run(CONTENDERS[name](agents))
            took = time.monotonic() - started
            print(f"{figures[name]['children_seconds']} s until all children exist ({took:.0f} s in all)", flush=True)
    found["seconds"] = round(time.monotonic() - begun)
    whole = set(arguments.only) == set(CONTENDERS)
    if whole:
        largest = found["sizes"][str(max(arguments.agents))]
        found["ratios"] = report.ratios(largest)
        for figures in found["sizes"].values():
            figures["ratios"] = report.ratios(figures)
    _write(found, BUILT)
    if whole and set(SIZES) <= set(arguments.agents):
        _write(found, DOCS)
    if whole:
        print(report.targets(found))
    print(f"written: {(BUILT / 'operator.json').relative_to(ROOT)} ({found['seconds']} s)")


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "operator.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if "ratios" in found:
        (folder / "operator.md").write_text(report.markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
