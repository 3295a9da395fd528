# SPDX-License-Identifier: Apache-2.0
"""`make bench-protocols`: measure, print the targets, write JSON and Markdown.

    python -m benchmarks.protocols                 all of it, about ten minutes; also writes docs/benchmarks/protocols.*
    python -m benchmarks.protocols --quick         one short round, about a minute and a half; docs stay
    python -m benchmarks.protocols --only http     without the others

The machine should have nothing else to do meanwhile.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.protocols import report
from benchmarks.protocols.rounds import ROWS, Extent, measure
from benchmarks.protocols.stage import stage

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "bench"
DOCS = ROOT / "docs" / "benchmarks"
QUICK = Extent(rounds=1, seconds=1.0, steady_seconds=2.0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    arguments = parser.parse_args()
    begun = time.monotonic()
    found: dict[str, Any] = {"machine": machine.describe(), "quick": arguments.quick}
    extent = QUICK if arguments.quick else Extent(rounds=arguments.rounds)
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as made:
        protocols = measure(made, extent, names=arguments.only, say=say)
    found |= report.summary(protocols)
    found |= {"protocols": protocols, "seconds": round(time.monotonic() - begun)}
    _write(found, BUILT)
    # Only a full run of all, under the conditions that the page names, is worth publishing.
    if not arguments.quick and len(protocols) == len(ROWS):
        _write(found, DOCS)
    print(report.targets(found))
    say(f"written: {(BUILT / 'protocols.json').relative_to(ROOT)}, protocols.md ({found['seconds']} s)")


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "protocols.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (folder / "protocols.md").write_text(report.markdown(found), encoding="utf-8")


def say(text: str) -> None:
    """To whoever watches."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
