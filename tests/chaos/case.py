# SPDX-License-Identifier: Apache-2.0
"""The evidence of a round, sorted by task."""

from collections import defaultdict

from tests.chaos.errands import Errand
from tests.chaos.evidence import Evidence, Final, Settlement, Start


class Case:
    """What the judges look at."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.acknowledged: dict[str, Errand] = {}
        self.sent: dict[str, float] = {}
        """When a task was submitted first. Only where its id is known."""
        self.places: dict[str, tuple[str, int, int]] = {}
        """Producer, batch, place in the batch."""
        for submission in evidence.submissions:
            for index, errand in enumerate(submission.errands):
                task = submission.ids[index] if submission.ids is not None else errand.id
                if task is None:
                    continue
                if submission.ids is not None:
                    self.acknowledged[task] = errand
                self.sent[task] = min(submission.sent, self.sent.get(task, submission.sent))
                self.places[task] = (submission.producer, submission.batch, index)
        self.starts: dict[str, list[Start]] = defaultdict(list)
        for start in evidence.starts:
            self.starts[start.task].append(start)
        self.settlements: dict[str, list[Settlement]] = defaultdict(list)
        for settlement in evidence.settlements:
            self.settlements[settlement.task].append(settlement)

    def final(self, task: str) -> Final | None:
        return self.evidence.finals.get(task)

    def replays(self, task: str) -> int:
        final = self.final(task)
        return 0 if final is None else final.replays

    def accepted(self, task: str) -> dict[str, Settlement]:
        """The first accepted settlement of each token. A second one of the same token is a repeat: it does nothing."""
        accepted: dict[str, Settlement] = {}
        for settlement in self.settlements.get(task, ()):
            if settlement.accepted:
                earlier = accepted.setdefault(settlement.token, settlement)
                if settlement.sent < earlier.sent:
                    accepted[settlement.token] = settlement
        return accepted

    def story(self, task: str) -> str:
        """All that is known of a task, in the order of time."""
        told = [
            (start.told, f"attempt {start.attempt} began at {start.worker} ({start.token})")
            for start in self.starts.get(task, ())
        ]
        answers = {None: "unanswered", True: "accepted", False: "refused"}
        told += [
            (
                each.sent,
                f"{each.worker} sent {each.ending} for attempt {each.attempt} ({each.token}): {answers[each.accepted]}",
            )
            for each in self.settlements.get(task, ())
        ]
        told += [
            (each.sent, "cancelled" if each.states is None else f"cancelled: {each.states[each.tasks.index(task)]}")
            for each in self.evidence.cancellations
            if task in each.tasks
        ]
        begun = self.sent.get(task, min((at for at, _ in told), default=0.0))
        return "; ".join(f"{at - begun:+.3f} s {what}" for at, what in sorted(told)) or "nobody ever worked on it"
