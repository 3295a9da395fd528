# SPDX-License-Identifier: Apache-2.0
"""Judges whether attempts that are not the newest ones have changed nothing."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.case import Case
from tests.chaos.evidence import Settlement, Start
from tests.chaos.findings import Breach, Finding


def stale(case: Case) -> Iterator[Finding]:
    """Outcomes that were accepted from attempts that had been overtaken, or given up."""
    for task in case.settlements:
        for settlement in case.accepted(task).values():
            if settlement.hopeless and not _was_sent_before(case, settlement):
                yield Finding(
                    Breach.STALE_ACK,
                    task,
                    f"attempt {settlement.attempt} of {settlement.worker} was accepted after "
                    f"{settlement.hopeless}; {case.story(task)}",
                )
                continue
            newer = _newer_start(case, settlement)
            if newer is not None:
                yield Finding(
                    Breach.STALE_ACK,
                    task,
                    f"attempt {settlement.attempt} of {settlement.worker} was accepted, "
                    f"{settlement.sent - newer.told:.3f} s after attempt {newer.attempt} had begun at "
                    f"{newer.worker}; {case.story(task)}",
                )

    yield from _overtaken(case)


def _overtaken(case: Case) -> Iterator[Finding]:
    """Tasks that have the result of an attempt, though a later one was begun: before, or after the end."""
    for task, starts in case.starts.items():
        final = case.final(task)
        if len(starts) < 2 or final is None or final.state != "succeeded" or final.replays:
            continue
        own = next((start for start in starts if start.token == final.token), None)
        last = max(starts, key=lambda start: start.attempt)
        if own is not None and last.attempt > own.attempt:
            yield Finding(
                Breach.STALE_ACK,
                task,
                f"has the result of attempt {own.attempt} of {own.worker}, though there is an attempt "
                f"{last.attempt}; {case.story(task)}",
            )


def _newer_start(case: Case, settlement: Settlement) -> Start | None:
    """An attempt that began after the settled one, and before its outcome was sent, as far as that is sure."""
    own = next((s for s in case.starts.get(settlement.task, ()) if s.token == settlement.token), None)
    if own is None:
        return None
    for start in case.starts[settlement.task]:
        if start.token == own.token or start.told >= settlement.sent:
            continue
        # Attempts are counted anew from a replay on.
        by_number = start.attempt > own.attempt and not case.replays(settlement.task)
        if by_number or start.asked > own.told:
            return start
    return None


def _was_sent_before(case: Case, settlement: Settlement) -> bool:
    """Whether the same outcome had been sent before: then this one is its repeat, however it was answered."""
    return any(
        other.token == settlement.token and other.sent < settlement.sent for other in case.settlements[settlement.task]
    )


def reused(case: Case) -> Iterator[Finding]:
    """Attempts with the same number. Only what was given back does not count, so that its number is used again."""
    for task, starts in case.starts.items():
        if len(starts) < 2 or case.replays(task):
            continue
        tokens: dict[int, set[str]] = defaultdict(set)
        for start in starts:
            if start.fenced:
                tokens[start.attempt].add(start.token)
        for attempt, same in tokens.items():
            kept = [token for token in same if (task, token) not in case.evidence.releases]
            if len(kept) > 1:
                yield Finding(Breach.REUSED, task, f"there are {len(kept)} attempts {attempt}; {case.story(task)}")
