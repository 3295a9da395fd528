# SPDX-License-Identifier: Apache-2.0
"""Judges whether tasks came in their turn: by priority and place, not before their time, not before their parents."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.case import Case
from tests.chaos.errands import Errand
from tests.chaos.findings import Breach, Finding

CLOCKS_SECONDS = 0.1
"""By how much the server's clock may seem to run ahead of ours, over the delays of a round."""


def check_order(waiting: Sequence[tuple[str, Errand]], claimed: Sequence[str]) -> Iterator[Finding]:
    """What one consumer was given at a quiet moment, against what waited, in the order of its submission."""
    expected = [task for task, errand in sorted(waiting, key=lambda entry: -entry[1].priority)]  # stable: FIFO
    priorities = {task: errand.priority for task, errand in waiting}
    for place, (want, got) in enumerate(zip(expected, claimed, strict=False)):
        if want != got:
            yield Finding(
                Breach.ORDER,
                got,
                f"came at place {place} of {len(expected)} (priority {priorities.get(got, 'unknown')}), where {want} "
                f"(priority {priorities[want]}) had to come; the next ones were {', '.join(claimed[place + 1 :][:3])}",
            )
            return  # all that follow are out of place too
    for task in expected[len(claimed) :]:
        yield Finding(Breach.LOST, task, f"waited at a quiet moment and never came; {len(claimed)} others did")
    for task in claimed[len(expected) :]:
        yield Finding(Breach.DOUBLE_TERMINAL, task, "came though nothing waited any more")


def order_inside_claims(case: Case) -> Iterator[Finding]:
    """Inside what one claim brought: by priority, then by place. Tenants take turns, so theirs is by tenant."""
    if not case.evidence.one_order:
        return
    for claim in case.evidence.claims:
        if len(claim) < 2:
            continue
        known = [
            (case.acknowledged[task].priority, task)
            for task in claim
            if task in case.acknowledged and not case.replays(task)
        ]
        newest: dict[tuple[int, str, str | None], tuple[tuple[int, int], str]] = {}
        for (above, _), (below, task) in pairwise(known):
            if below > above:
                yield Finding(
                    Breach.ORDER, task, f"of priority {below} came after one of priority {above} in one claim"
                )
        for priority, task in known:
            producer, batch, index = case.places[task]
            line = (priority, producer, case.acknowledged[task].tenant)
            place, before = newest.get(line, ((-1, -1), ""))
            if (batch, index) < place:
                yield Finding(
                    Breach.ORDER,
                    task,
                    f"of priority {priority} came after {before} in one claim, which was submitted later",
                )
            newest[line] = ((batch, index), task)


def early(case: Case) -> Iterator[Finding]:
    """Tasks that began before their delay was over, or before their parents had ended."""
    for task, errand in case.acknowledged.items():
        starts = case.starts.get(task)
        if not starts or not (errand.delay or errand.parents):
            continue
        first = min(start.told for start in starts)
        wait = first - case.sent[task]
        if wait < errand.delay - CLOCKS_SECONDS:
            yield Finding(Breach.EARLY, task, f"began after {wait:.3f} s, and was delayed by {errand.delay:g} s")
        for parent in errand.parents:
            begun = _earliest_end(case, parent)
            if begun is not None and first < begun:
                yield Finding(
                    Breach.EARLY,
                    task,
                    f"began {begun - first:.3f} s or more before its parent {parent} ended; {case.story(parent)}",
                )


def _earliest_end(case: Case, task: str) -> float | None:
    """When a task can have ended at the earliest; None if that is not known."""
    final = case.final(task)
    if final is None or final.replays or final.state not in ("succeeded", "failed"):
        return None
    if "PARENT_FAILED" in final.failures:
        return None
    sent = [each.sent for each in case.settlements.get(task, ()) if each.final and each.accepted is not False]
    return min(sent, default=None)


def parents(case: Case) -> Iterator[Finding]:
    """Tasks that did not end as they chose for the case that a parent fails."""
    for task, errand in case.acknowledged.items():
        final = case.final(task)
        if not errand.parents or final is None or errand.on_parent_failure == "Run":
            continue
        finals = [case.final(parent) for parent in errand.parents]
        bad = [each.state for each in finals if each is not None and each.state != "succeeded" and not each.replays]
        if not bad:
            continue
        wanted = "failed" if errand.on_parent_failure == "Fail" else "cancelled"
        if final.state not in (wanted, "cancelled"):
            yield Finding(Breach.PARENTS, task, f"is {final.state}, but had to be {wanted}: a parent is {bad[0]}")
        elif task in case.starts:
            yield Finding(Breach.PARENTS, task, f"was begun, although a parent is {bad[0]}; {case.story(task)}")
