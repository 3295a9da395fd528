# SPDX-License-Identifier: Apache-2.0
"""The judge: what the evidence of a round says about the queue's promises. Pure; knows no Redis and no process.

It holds nothing against the queue that has an innocent explanation. An answer that was never written down may have been
given; an attempt counts as older than another one only where the clock or the attempts' numbers prove it. So every
finding is a broken promise, however unlikely the way to it was.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from tests.chaos.errands import Errand
from tests.chaos.evidence import Evidence, Final, Settlement, Start

FINAL_STATES = frozenset(("succeeded", "failed", "cancelled", "expired", "dead"))
ENDING_EVENTS = FINAL_STATES
"""Events that say that a task has ended have the states' names."""
CLOCKS_SECONDS = 0.1
"""By how much the server's clock may seem to run ahead of ours, over the delays of a round."""


class Breach(StrEnum):
    """Which promise is broken."""

    LOST = "lost"
    """A task that was acknowledged, or that a worker was given, is unknown or has not ended."""
    DOUBLE_TERMINAL = "double_terminal"
    """A task has ended more than once, or not in the way that somebody was told."""
    STALE_ACK = "stale_acks_accepted"
    """An outcome was accepted although a newer attempt had begun, or the attempt had been given up."""
    ORDER = "order_violations"
    """Strict priority, or first in, first out inside one, was broken."""
    RESTARTED = "started_after_end"
    """An attempt began after the task had ended."""
    REUSED = "attempts_reused"
    """Two attempts have the same number, though the first one was not given back."""
    UNFOUNDED = "unfounded_results"
    """The queue has a result that no worker ever sent."""
    HALF_BATCH = "half_batches"
    """Of a batch some tasks are in the queue, and some are not."""
    EARLY = "early_starts"
    """An attempt began before its time, or before the tasks that it depends on had ended."""
    PARENTS = "wrong_after_parents"
    """A task did not end as it should after what became of the tasks that it depends on."""
    FIGURES = "wrong_figures"
    """The queue's own figures or events do not fit what happened."""
    IDLE = "not_taken_over"
    """Work of a dead worker did not go on, though another worker was idle."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    breach: Breach
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.breach}: task {self.task}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """What is to be said about a round."""

    tasks: int = 0
    """Acknowledged ones."""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How much happened of what the round is there for: redeliveries, refused outcomes …"""


def check(evidence: Evidence) -> Verdict:
    """Judge a round."""
    case = _Case(evidence)
    findings = [
        *case.lost(),
        *case.ended_twice(),
        *case.stale(),
        *case.restarted(),
        *case.reused(),
        *case.unfounded(),
        *case.halves(),
        *case.order_inside_claims(),
        *case.early(),
        *case.parents(),
        *case.figures(),
        *case.events(),
    ]
    return Verdict(tasks=len(case.acknowledged), findings=findings, counts=case.counts())


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


class _Case:
    """The evidence, sorted by task."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.acknowledged: dict[str, Errand] = {}
        self._sent: dict[str, float] = {}
        """When a task was submitted first. Only where its id is known."""
        self._places: dict[str, tuple[str, int, int]] = {}
        """Producer, batch, place in the batch."""
        for submission in evidence.submissions:
            for index, errand in enumerate(submission.errands):
                task = submission.ids[index] if submission.ids is not None else errand.id
                if task is None:
                    continue
                if submission.ids is not None:
                    self.acknowledged[task] = errand
                self._sent[task] = min(submission.sent, self._sent.get(task, submission.sent))
                self._places[task] = (submission.producer, submission.batch, index)
        self._starts: dict[str, list[Start]] = defaultdict(list)
        for start in evidence.starts:
            self._starts[start.task].append(start)
        self._settlements: dict[str, list[Settlement]] = defaultdict(list)
        for settlement in evidence.settlements:
            self._settlements[settlement.task].append(settlement)

    def _final(self, task: str) -> Final | None:
        return self._evidence.finals.get(task)

    def _replays(self, task: str) -> int:
        final = self._final(task)
        return 0 if final is None else final.replays

    def _accepted(self, task: str) -> dict[str, Settlement]:
        """The first accepted settlement of each token. A second one of the same token is a repeat: it does nothing."""
        accepted: dict[str, Settlement] = {}
        for settlement in self._settlements.get(task, ()):
            if settlement.accepted:
                earlier = accepted.setdefault(settlement.token, settlement)
                if settlement.sent < earlier.sent:
                    accepted[settlement.token] = settlement
        return accepted

    def _was_sent_before(self, settlement: Settlement) -> bool:
        """Whether the same outcome had been sent before: then this one is its repeat, however it was answered."""
        return any(
            other.token == settlement.token and other.sent < settlement.sent
            for other in self._settlements[settlement.task]
        )

    def lost(self) -> Iterator[Finding]:
        for task in self.acknowledged.keys() | self._starts.keys():
            final = self._final(task)
            how = "was acknowledged" if task in self.acknowledged else "was given to a worker"
            if final is None:
                yield Finding(Breach.LOST, task, f"{how}, but the queue does not know it; {self._story(task)}")
            elif final.state not in FINAL_STATES:
                yield Finding(Breach.LOST, task, f"{how}, but is still {final.state}; {self._story(task)}")

    def ended_twice(self) -> Iterator[Finding]:
        for task in self._settlements:
            endings = [each for each in self._accepted(task).values() if each.final]
            final = self._final(task)
            if final is None or not endings:
                continue
            ends = len(endings) + (final.state in ("cancelled", "expired"))
            if ends > 1 + final.replays:
                yield Finding(
                    Breach.DOUBLE_TERMINAL, task, f"has ended {ends} times, and is {final.state}; {self._story(task)}"
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
                        f"but it is {final.state} by {final.token or 'nobody'}; {self._story(task)}",
                    )
        yield from self._cancelled_twice()

    def _cancelled_twice(self) -> Iterator[Finding]:
        for cancellation in self._evidence.cancellations:
            for task, state in zip(cancellation.tasks, cancellation.states or (), strict=False):
                final = self._final(task)
                if final is None or (state == "dead" and final.replays):
                    continue
                if state != final.state:
                    yield Finding(
                        Breach.DOUBLE_TERMINAL,
                        task,
                        f"was said to be {state} when it was cancelled, but is {final.state}; {self._story(task)}",
                    )

    def stale(self) -> Iterator[Finding]:
        for task in self._settlements:
            for settlement in self._accepted(task).values():
                if settlement.hopeless and not self._was_sent_before(settlement):
                    yield Finding(
                        Breach.STALE_ACK,
                        task,
                        f"attempt {settlement.attempt} of {settlement.worker} was accepted after "
                        f"{settlement.hopeless}; {self._story(task)}",
                    )
                    continue
                newer = self._newer_start(settlement)
                if newer is not None:
                    yield Finding(
                        Breach.STALE_ACK,
                        task,
                        f"attempt {settlement.attempt} of {settlement.worker} was accepted, "
                        f"{settlement.sent - newer.told:.3f} s after attempt {newer.attempt} had begun at "
                        f"{newer.worker}; {self._story(task)}",
                    )

        yield from self._overtaken()

    def _overtaken(self) -> Iterator[Finding]:
        """Tasks that have the result of an attempt, though a later one was begun: before, or after the end."""
        for task, starts in self._starts.items():
            final = self._final(task)
            if len(starts) < 2 or final is None or final.state != "succeeded" or final.replays:
                continue
            own = next((start for start in starts if start.token == final.token), None)
            last = max(starts, key=lambda start: start.attempt)
            if own is not None and last.attempt > own.attempt:
                yield Finding(
                    Breach.STALE_ACK,
                    task,
                    f"has the result of attempt {own.attempt} of {own.worker}, though there is an attempt "
                    f"{last.attempt}; {self._story(task)}",
                )

    def _newer_start(self, settlement: Settlement) -> Start | None:
        """An attempt that began after the settled one, and before its outcome was sent, as far as that is sure."""
        own = next((s for s in self._starts.get(settlement.task, ()) if s.token == settlement.token), None)
        if own is None:
            return None
        for start in self._starts[settlement.task]:
            if start.token == own.token or start.told >= settlement.sent:
                continue
            # Attempts are counted anew from a replay on.
            by_number = start.attempt > own.attempt and not self._replays(settlement.task)
            if by_number or start.asked > own.told:
                return start
        return None

    def restarted(self) -> Iterator[Finding]:
        ends: dict[str, float] = {}
        for cancellation in self._evidence.cancellations:
            for task, state in zip(cancellation.tasks, cancellation.states or (), strict=False):
                if state == "cancelled" and cancellation.answered is not None:
                    ends[task] = cancellation.answered
        for task, starts in self._starts.items():
            if self._replays(task):
                continue
            told = [each.answered for each in self._accepted(task).values() if each.final and each.answered]
            end = min((*told, ends.get(task, float("inf"))))
            for start in starts:
                if start.asked > end:
                    yield Finding(
                        Breach.RESTARTED,
                        task,
                        f"attempt {start.attempt} began at {start.worker} {start.asked - end:.3f} s or more after "
                        f"the task had ended; {self._story(task)}",
                    )

    def reused(self) -> Iterator[Finding]:
        for task, starts in self._starts.items():
            if len(starts) < 2 or self._replays(task):
                continue
            tokens: dict[int, set[str]] = defaultdict(set)
            for start in starts:
                if start.fenced:
                    tokens[start.attempt].add(start.token)
            for attempt, same in tokens.items():
                kept = [token for token in same if (task, token) not in self._evidence.releases]
                if len(kept) > 1:
                    yield Finding(Breach.REUSED, task, f"there are {len(kept)} attempts {attempt}; {self._story(task)}")

    def unfounded(self) -> Iterator[Finding]:
        for task, final in self._evidence.finals.items():
            if final.state == "succeeded":
                sent = any(
                    each.token == final.token and each.ending == "succeeded" for each in self._settlements.get(task, ())
                )
                if not sent:
                    yield Finding(
                        Breach.UNFOUNDED, task, f"succeeded by {final.token}, who never said so; {self._story(task)}"
                    )

    def halves(self) -> Iterator[Finding]:
        for submission in self._evidence.submissions:
            ids = [errand.id for errand in submission.errands if errand.id is not None]
            missing = [task for task in ids if task not in self._evidence.finals]
            if submission.ids is None and 0 < len(missing) < len(ids):
                yield Finding(
                    Breach.HALF_BATCH,
                    missing[0],
                    f"and {len(missing) - 1} more of the {len(ids)} tasks of batch {submission.batch} of "
                    f"{submission.producer} are not in the queue, the others are",
                )

    def order_inside_claims(self) -> Iterator[Finding]:
        """Inside what one claim brought: by priority, then by place. Tenants take turns, so theirs is by tenant."""
        if not self._evidence.one_order:
            return
        for claim in self._evidence.claims:
            if len(claim) < 2:
                continue
            known = [
                (self.acknowledged[task].priority, task)
                for task in claim
                if task in self.acknowledged and not self._replays(task)
            ]
            newest: dict[tuple[int, str, str | None], tuple[tuple[int, int], str]] = {}
            for (above, _), (below, task) in pairwise(known):
                if below > above:
                    yield Finding(
                        Breach.ORDER, task, f"of priority {below} came after one of priority {above} in one claim"
                    )
            for priority, task in known:
                producer, batch, index = self._places[task]
                line = (priority, producer, self.acknowledged[task].tenant)
                place, before = newest.get(line, ((-1, -1), ""))
                if (batch, index) < place:
                    yield Finding(
                        Breach.ORDER,
                        task,
                        f"of priority {priority} came after {before} in one claim, which was submitted later",
                    )
                newest[line] = ((batch, index), task)

    def early(self) -> Iterator[Finding]:
        for task, errand in self.acknowledged.items():
            starts = self._starts.get(task)
            if not starts or not (errand.delay or errand.parents):
                continue
            first = min(start.told for start in starts)
            wait = first - self._sent[task]
            if wait < errand.delay - CLOCKS_SECONDS:
                yield Finding(Breach.EARLY, task, f"began after {wait:.3f} s, and was delayed by {errand.delay:g} s")
            for parent in errand.parents:
                begun = self._earliest_end(parent)
                if begun is not None and first < begun:
                    yield Finding(
                        Breach.EARLY,
                        task,
                        f"began {begun - first:.3f} s or more before its parent {parent} ended; {self._story(parent)}",
                    )

    def _earliest_end(self, task: str) -> float | None:
        """When a task can have ended at the earliest; None if that is not known."""
        final = self._final(task)
        if final is None or final.state not in ("succeeded", "failed") or "PARENT_FAILED" in final.failures:
            return None
        sent = [each.sent for each in self._settlements.get(task, ()) if each.final and each.accepted is not False]
        return min(sent, default=None)

    def parents(self) -> Iterator[Finding]:
        for task, errand in self.acknowledged.items():
            final = self._final(task)
            if not errand.parents or final is None or errand.on_parent_failure == "Run":
                continue
            finals = [self._final(parent) for parent in errand.parents]
            bad = [each.state for each in finals if each is not None and each.state != "succeeded" and not each.replays]
            if not bad:
                continue
            wanted = "failed" if errand.on_parent_failure == "Fail" else "cancelled"
            if final.state not in (wanted, "cancelled"):
                yield Finding(Breach.PARENTS, task, f"is {final.state}, but had to be {wanted}: a parent is {bad[0]}")
            elif task in self._starts:
                yield Finding(Breach.PARENTS, task, f"was begun, although a parent is {bad[0]}; {self._story(task)}")

    def figures(self) -> Iterator[Finding]:
        totals = self._evidence.totals
        if totals is None:
            return
        for name in ("queued", "running", "scheduled", "blocked"):
            if totals.get(name):
                yield Finding(Breach.LOST, "(unknown)", f"{totals[name]} tasks are {name}, when all should have ended")
        succeeded = sum(final.state == "succeeded" for final in self._evidence.finals.values())
        if totals["succeeded_total"] != succeeded:
            yield Finding(
                Breach.FIGURES,
                "(all)",
                f"the queue counts {totals['succeeded_total']} successes, but has {succeeded} tasks that succeeded",
            )

    def events(self) -> Iterator[Finding]:
        if self._evidence.happenings is None:
            return
        endings: Counter[str] = Counter()
        for happening in self._evidence.happenings:
            if happening.kind in ENDING_EVENTS and happening.task is not None:
                endings[happening.task] += 1
        for task, final in self._evidence.finals.items():
            if final.state not in FINAL_STATES:
                continue
            said = endings[task]
            if said > 1 + final.replays:
                yield Finding(
                    Breach.DOUBLE_TERMINAL, task, f"has ended {said} times by the queue's events; {self._story(task)}"
                )
            elif said < 1 + final.replays:
                yield Finding(
                    Breach.FIGURES,
                    task,
                    f"has ended, and {said} of {1 + final.replays} events say so; {self._story(task)}",
                )

    def counts(self) -> Counter[str]:
        """How much happened of what a round is there for."""
        finals = self._evidence.finals.values()
        settlements = self._evidence.settlements
        return Counter(
            {
                "attempts": len(self._evidence.starts),
                "redeliveries": sum(final.failures.count("LEASE_EXPIRED") for final in finals),
                "given_back": len(self._evidence.releases),
                "late_outcomes_refused": sum(each.accepted is False and not each.hopeless for each in settlements),
                "forbidden_outcomes_refused": sum(
                    each.accepted is False and bool(each.hopeless) for each in settlements
                ),
                "replayed": sum(final.replays for final in finals),
                "submissions_repeated": sum(submission.ids is None for submission in self._evidence.submissions),
                **{state: sum(final.state == state for final in finals) for state in sorted(FINAL_STATES)},
            }
        )

    def _story(self, task: str) -> str:
        """All that is known of a task, in the order of time."""
        told = [
            (start.told, f"attempt {start.attempt} began at {start.worker} ({start.token})")
            for start in self._starts.get(task, ())
        ]
        answers = {None: "unanswered", True: "accepted", False: "refused"}
        told += [
            (
                each.sent,
                f"{each.worker} sent {each.ending} for attempt {each.attempt} ({each.token}): {answers[each.accepted]}",
            )
            for each in self._settlements.get(task, ())
        ]
        told += [
            (each.sent, "cancelled" if each.states is None else f"cancelled: {each.states[each.tasks.index(task)]}")
            for each in self._evidence.cancellations
            if task in each.tasks
        ]
        begun = self._sent.get(task, min((at for at, _ in told), default=0.0))
        return "; ".join(f"{at - begun:+.3f} s {what}" for at, what in sorted(told)) or "nobody ever worked on it"
