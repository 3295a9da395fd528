# SPDX-License-Identifier: Apache-2.0
"""The judge: what the evidence of a round says about the queue's promises. Pure; knows no Redis and no process.

It holds nothing against the queue that has an innocent explanation. An answer that was never written down may have been
given; an attempt counts as older than another one only where the clock or the attempts' numbers prove it. So every
finding is a broken promise, however unlikely the way to it was.
"""

from collections import Counter
from collections.abc import Iterator

from tests.chaos import fencing, turns
from tests.chaos.case import Case
from tests.chaos.evidence import Evidence
from tests.chaos.findings import ENDING_EVENTS, FINAL_STATES, Breach, Finding, Verdict


def check(evidence: Evidence) -> Verdict:
    """Judge a round."""
    case = Case(evidence)
    findings = [
        *lost(case),
        *ended_twice(case),
        *fencing.stale(case),
        *restarted(case),
        *fencing.reused(case),
        *unfounded(case),
        *garbled(case),
        *halves(case),
        *turns.order_inside_claims(case),
        *turns.early(case),
        *turns.parents(case),
        *figures(case),
        *events(case),
    ]
    return Verdict(tasks=len(case.acknowledged), findings=findings, counts=counts(case))


def lost(case: Case) -> Iterator[Finding]:
    """Tasks that are unknown or have not ended, though they were acknowledged or given to a worker."""
    for task in case.acknowledged.keys() | case.starts.keys():
        final = case.final(task)
        how = "was acknowledged" if task in case.acknowledged else "was given to a worker"
        if final is None:
            yield Finding(Breach.LOST, task, f"{how}, but the queue does not know it; {case.story(task)}")
        elif final.state not in FINAL_STATES:
            yield Finding(Breach.LOST, task, f"{how}, but is still {final.state}; {case.story(task)}")


def ended_twice(case: Case) -> Iterator[Finding]:
    """Tasks that have ended more often than they may, or not as a worker or a canceller was told."""
    for task in case.settlements:
        endings = [each for each in case.accepted(task).values() if each.final]
        final = case.final(task)
        if final is None or not endings:
            continue
        ends = len(endings) + (final.state in ("cancelled", "expired"))
        if ends > 1 + final.replays:
            yield Finding(
                Breach.DOUBLE_TERMINAL, task, f"has ended {ends} times, and is {final.state}; {case.story(task)}"
            )
            continue
        for ending in endings:
            if ending.ending == "dead" and final.replays:
                continue
            if ending.ending != final.state or (final.state == "succeeded" and final.token != ending.token):
                yield Finding(
                    Breach.DOUBLE_TERMINAL,
                    task,
                    f"attempt {ending.attempt} of {ending.worker} was told that the task has {ending.ending}, "
                    f"but it is {final.state} by {final.token or 'nobody'}; {case.story(task)}",
                )
    yield from _cancelled_twice(case)


def _cancelled_twice(case: Case) -> Iterator[Finding]:
    for cancellation in case.evidence.cancellations:
        for task, state in zip(cancellation.tasks, cancellation.states or (), strict=False):
            final = case.final(task)
            if final is None or (state == "dead" and final.replays):
                continue
            if state != final.state:
                yield Finding(
                    Breach.DOUBLE_TERMINAL,
                    task,
                    f"was said to be {state} when it was cancelled, but is {final.state}; {case.story(task)}",
                )


def restarted(case: Case) -> Iterator[Finding]:
    """Attempts that a worker was given after the task had ended."""
    ends: dict[str, float] = {}
    for cancellation in case.evidence.cancellations:
        for task, state in zip(cancellation.tasks, cancellation.states or (), strict=False):
            if state == "cancelled" and cancellation.answered is not None:
                ends[task] = cancellation.answered
    for task, starts in case.starts.items():
        if case.replays(task):
            continue
        told = [each.answered for each in case.accepted(task).values() if each.final and each.answered]
        end = min((*told, ends.get(task, float("inf"))))
        for start in starts:
            if start.asked > end:
                yield Finding(
                    Breach.RESTARTED,
                    task,
                    f"attempt {start.attempt} began at {start.worker} {start.asked - end:.3f} s or more after "
                    f"the task had ended; {case.story(task)}",
                )


def unfounded(case: Case) -> Iterator[Finding]:
    """Results that no worker sent."""
    for task, final in case.evidence.finals.items():
        if final.state == "succeeded":
            sent = any(
                each.token == final.token and each.ending == "succeeded" for each in case.settlements.get(task, ())
            )
            if not sent:
                yield Finding(
                    Breach.UNFOUNDED, task, f"succeeded by {final.token}, who never said so; {case.story(task)}"
                )


def garbled(case: Case) -> Iterator[Finding]:
    """Payloads that are no JSON any more."""
    for task, payload in case.evidence.garbled.items():
        yield Finding(Breach.GARBLED, task, f"came with the payload {payload}; {case.story(task)}")


def halves(case: Case) -> Iterator[Finding]:
    """Batches of which only a part is in the queue. Their ids are known only if the producer chose them."""
    for submission in case.evidence.submissions:
        ids = [errand.id for errand in submission.errands if errand.id is not None]
        missing = [task for task in ids if task not in case.evidence.finals]
        if submission.ids is None and 0 < len(missing) < len(ids):
            yield Finding(
                Breach.HALF_BATCH,
                missing[0],
                f"and {len(missing) - 1} more of the {len(ids)} tasks of batch {submission.batch} of "
                f"{submission.producer} are not in the queue, the others are",
            )


def figures(case: Case) -> Iterator[Finding]:
    """What the queue counts, against what there is."""
    totals = case.evidence.totals
    if totals is None:
        return
    for name in ("queued", "running", "scheduled", "blocked"):
        if totals.get(name):
            yield Finding(Breach.LOST, "(unknown)", f"{totals[name]} tasks are {name}, when all should have ended")
    succeeded = sum(final.state == "succeeded" for final in case.evidence.finals.values())
    if totals["succeeded_total"] != succeeded:
        yield Finding(
            Breach.FIGURES,
            "(all)",
            f"the queue counts {totals['succeeded_total']} successes, but has {succeeded} tasks that succeeded",
        )


def events(case: Case) -> Iterator[Finding]:
    """Whether the events tell of as many endings as there were."""
    if case.evidence.happenings is None:
        return
    endings: Counter[str] = Counter()
    for happening in case.evidence.happenings:
        if happening.kind in ENDING_EVENTS and happening.task is not None:
            endings[happening.task] += 1
    for task, final in case.evidence.finals.items():
        if final.state not in FINAL_STATES:
            continue
        said = endings[task]
        if said > 1 + final.replays:
            yield Finding(
                Breach.DOUBLE_TERMINAL, task, f"has ended {said} times by the queue's events; {case.story(task)}"
            )
        elif said < 1 + final.replays:
            yield Finding(
                Breach.FIGURES,
                task,
                f"has ended, and {said} of {1 + final.replays} events say so; {case.story(task)}",
            )


def counts(case: Case) -> Counter[str]:
    """How much happened of what a round is there for."""
    finals = case.evidence.finals.values()
    settlements = case.evidence.settlements
    return Counter(
        {
            "attempts": len(case.evidence.starts),
            "redeliveries": sum(final.failures.count("LEASE_EXPIRED") for final in finals),
            "given_back": len(case.evidence.releases),
            "late_outcomes_refused": sum(each.accepted is False and not each.hopeless for each in settlements),
            "forbidden_outcomes_refused": sum(each.accepted is False and bool(each.hopeless) for each in settlements),
            "replayed": sum(final.replays for final in finals),
            "submissions_repeated": sum(submission.ids is None for submission in case.evidence.submissions),
            **{state: sum(final.state == state for final in finals) for state in sorted(FINAL_STATES)},
        }
    )
