# SPDX-License-Identifier: Apache-2.0
"""Round after round until there are enough tasks, and what is to be said about all of them together."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tests.chaos.findings import Breach
from tests.chaos.round import Result, Say
from tests.chaos.scenes import PARTS, Part, programme

LARGEST_ROUND: Final = 30_000
"""Tasks. What a round knows is held in memory."""
SMALLEST_ROUND: Final = 300
TASKS_PER_SECOND: Final = 5000
"""How fast producers submit, together. On a slower machine the backlog grows, and is worked off at the end."""
SHORTEST_ROUND_SECONDS: Final = 2.0

PROOFS: Final = ("redeliveries", "late_outcomes_refused", "places_checked", "submissions_repeated")
"""What must have happened at least once: a run in which nobody lost a lease has shown nothing about leases."""


class Audience(Protocol):
    """Who is told how it goes."""

    def begins(self, number: int, part: Part, *, tasks: int) -> Say:
        """A round begins; the answer takes what happens in it."""
        ...

    def ended(self, number: int, part: Part, result: Result, *, tasks: int) -> None:
        """A round has ended. `tasks` are those of all rounds so far."""
        ...


@dataclass
class Campaign:
    """All rounds of one seed."""

    tasks: int
    """At least so many."""
    seed: str
    binary: Path
    keep: Path
    """Where the journals of rounds with findings are left."""
    parts: Sequence[Part] = PARTS
    """What is played, each part at least once."""
    only: int | None = None
    """Play this round alone."""
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    async def run(self, audience: Audience) -> None:
        """Play the rounds. What has been played so far is in `results`, also if it is cut short."""
        begun = time.monotonic()
        size = max(SMALLEST_ROUND, min(LARGEST_ROUND, self.tasks // max(1, len(self.parts) - 2)))
        for number, part in enumerate(programme(self.seed, self.parts), start=1):
            if self.only is not None and number != self.only:
                continue
            if self.only is None and number > len(self.parts) and self.total >= self.tasks:
                return
            say = audience.begins(number, part, tasks=self.total)
            folder = Path(tempfile.mkdtemp(prefix="kubeagents-chaos-"))
            try:
                result = await part.play(
                    tasks=size,
                    seconds=max(SHORTEST_ROUND_SECONDS, size / TASKS_PER_SECOND),
                    seed=f"{self.seed}/{number}",
                    folder=folder,
                    binary=self.binary,
                    say=say,
                )
                if result.verdict.findings:
                    result.folder = self._preserve(folder, number)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self.results.append(result)
            self.seconds = time.monotonic() - begun
            audience.ended(number, part, result, tasks=self.total)
            if self.only is not None:
                return

    def _preserve(self, folder: Path, number: int) -> Path:
        kept = self.keep / f"{self.seed}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        return kept

    @property
    def total(self) -> int:
        """Tasks that were acknowledged so far."""
        return sum(result.verdict.tasks for result in self.results)

    @property
    def breaches(self) -> Counter[Breach]:
        """How often each promise was broken."""
        return Counter(finding.breach for result in self.results for finding in result.verdict.findings)

    @property
    def counts(self) -> Counter[str]:
        """How much happened."""
        counts: Counter[str] = Counter()
        for result in self.results:
            counts.update(result.verdict.counts)
        if self.results:
            counts["slowest_takeover_ms"] = max(each.verdict.counts["slowest_takeover_ms"] for each in self.results)
        return counts

    @property
    def faults(self) -> Counter[str]:
        """How often each fault was injected."""
        faults: Counter[str] = Counter()
        for result in self.results:
            faults.update(result.faults)
        return faults

    def missing(self) -> Sequence[str]:
        """What should have happened and did not: without it, the run proves too little."""
        if self.only is not None or len(self.parts) < len(PARTS):
            return []
        counts = self.counts
        return [proof for proof in PROOFS if not counts[proof]]

    def report(self) -> dict[str, Any]:
        """For build/bench/chaos.json."""
        breaches = self.breaches
        return {
            "tasks": self.total,
            **{breach.value: breaches[breach] for breach in Breach},
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "rounds": len(self.results),
            "faults_injected": sum(self.faults.values()),
            "faults": dict(sorted(self.faults.items())),
            "counts": dict(sorted(self.counts.items())),
            "parts": [
                {
                    "part": result.scene,
                    "seed": result.seed,
                    "tasks": result.verdict.tasks,
                    "seconds": round(result.seconds, 1),
                    "faults": dict(sorted(result.faults.items())),
                    "counts": {name: count for name, count in sorted(result.verdict.counts.items()) if count},
                    "findings": [str(finding) for finding in result.verdict.findings[:20]],
                }
                for result in self.results
            ],
        }
