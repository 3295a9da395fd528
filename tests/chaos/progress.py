# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run: a line for each round, and while it runs what it does just now."""

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from tests.chaos.campaign import Campaign
from tests.chaos.findings import Breach
from tests.chaos.round import Result, Say
from tests.chaos.scenes import Part

SHOWN_FINDINGS: Final = 3
"""Of each kind."""
WIDTH: Final = 110
_HEAD: Final = (
    f"{'round':>5}  {'part':<11}{'tasks':>8}{'faults':>8}{'redelivered':>13}{'refused':>9}"
    f"{'lost':>7}{'double':>8}{'stale':>7}{'order':>7}{'other':>7}{'s':>7}{'total':>12}"
)
_COLUMNS: Final = (Breach.LOST, Breach.DOUBLE_TERMINAL, Breach.STALE_ACK, Breach.ORDER)


class Progress:
    """Prints. On a terminal the last line says what is happening; elsewhere only what is over is said."""

    def __init__(self, campaign: Campaign, *, stream: TextIO) -> None:
        self._campaign = campaign
        self._stream = stream
        self._live = stream.isatty()
        part = f" PART={campaign.parts[0].name}" if len(campaign.parts) == 1 else ""
        self._same_rounds = f"TASKS={campaign.tasks} SEED={campaign.seed}{part}"

    def opening(self, *, server: str) -> None:
        """Before the first round."""
        campaign = self._campaign
        self._line(f"At least {campaign.tasks:,} tasks on {server}, append-only file, appendfsync always.")
        self._line(f"Seed {campaign.seed}: `make chaos {self._same_rounds}` plays the same rounds.")
        self._line("")
        width = max(len(part.name) for part in campaign.parts)
        for part in campaign.parts:
            self._line(f"  {part.name:<{width}}  {part.about}")
        self._line("")
        self._line(_HEAD)

    def begins(self, number: int, part: Part, *, tasks: int) -> Say:
        """See Audience."""
        begun = time.monotonic()

        def say(what: str) -> None:
            if self._live:
                so_far = f"{tasks:,} of {self._campaign.tasks:,} tasks so far"
                text = f"{number:>5}  {part.name:<11}{what} … {time.monotonic() - begun:.0f} s ({so_far})"
                self._stream.write(f"\r\x1b[2K{text}")
                self._stream.flush()

        say("starting")
        return say

    def ended(self, number: int, part: Part, result: Result, *, tasks: int) -> None:
        """See Audience."""
        counts = result.verdict.counts
        findings = result.verdict.findings
        broken = [sum(finding.breach is breach for finding in findings) for breach in _COLUMNS]
        refused = counts["late_outcomes_refused"] + counts["forbidden_outcomes_refused"]
        self._line(
            f"{number:>5}  {part.name:<11}{result.verdict.tasks:>8,}{sum(result.faults.values()):>8,}"
            f"{counts['redeliveries']:>13,}{refused:>9,}"
            f"{broken[0]:>7,}{broken[1]:>8,}{broken[2]:>7,}{broken[3]:>7,}{len(findings) - sum(broken):>7,}"
            f"{result.seconds:>7.1f}{tasks:>12,}"
        )
        for breach in Breach:
            same = [finding for finding in findings if finding.breach is breach]
            for finding in same[:SHOWN_FINDINGS]:
                self._line(f"       {finding}")
            if len(same) > SHOWN_FINDINGS:
                self._line(f"       {breach}: and {len(same) - SHOWN_FINDINGS:,} more tasks")
        if findings:
            again = f"make chaos {self._same_rounds} ROUND={number}"
            self._line(f"       journals: {result.folder}; this round again: {again}")

    def closing(self, *, output: Path, interrupted: bool, missing: Sequence[str]) -> None:
        """After the last round."""
        campaign = self._campaign
        counts, faults = campaign.counts, campaign.faults
        self._line("")
        self._paragraph(
            f"{campaign.total:,} tasks in {len(campaign.results)} rounds and {campaign.seconds:,.0f} s. "
            f"{counts['attempts']:,} attempts: {counts['redeliveries']:,} tasks were given away as their lease was "
            f"over, {counts['given_back']:,} given back, {counts['replayed']:,} replayed. "
            f"{counts['late_outcomes_refused']:,} late outcomes were refused, {counts['places_checked']:,} places "
            f"checked; the slowest takeover by an idle worker took {counts['slowest_takeover_ms'] / 1000:.1f} s."
        )
        self._paragraph(
            f"{sum(faults.values()):,} faults: "
            + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(faults.items()))
        )
        broken = {breach.value: count for breach, count in campaign.breaches.items()}
        if broken:
            self._line("BROKEN: " + ", ".join(f"{name} {count:,}" for name, count in sorted(broken.items())))
        elif interrupted:
            self._line("Cut short. Until then: nothing lost, nothing ended twice, no stale outcome accepted.")
        elif missing:
            self._line(f"PROVES TOO LITTLE: no {', no '.join(missing)}. Take more tasks or another seed.")
        else:
            self._line("Nothing lost, nothing ended twice, no stale outcome accepted, all in order.")
        self._line(f"Written to {output}")

    def _paragraph(self, text: str) -> None:
        for line in textwrap.wrap(text, WIDTH):
            self._line(line)

    def _line(self, text: str) -> None:
        self._stream.write(f"\r\x1b[2K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()
