# SPDX-License-Identifier: Apache-2.0
"""The judge of the chaos rounds is given journals in which a promise is broken, and finds each one; and no other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.chaos.checker import check
from tests.chaos.errands import Errand
from tests.chaos.evidence import Evidence, Final, Happening, Journal, held, is_submitting
from tests.chaos.findings import Breach, Finding
from tests.chaos.turns import check_order

OLD, NEW = "a" * 16, "b" * 16
"""Tokens of an attempt and of the one that follows it."""


class Forger:
    """Writes journals as the processes of a round would, at times of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = 0

    def write(self, author: str, at: float, kind: str, **entry: Any) -> None:
        with (self._folder / f"{author}.journal").open("ab") as file:
            file.write(orjson.dumps({"kind": kind, "at": at, **entry}) + b"\n")

    def submitted(
        self, *errands: Errand, at: float = 0.0, ids: Iterable[str] | None = None, answered: bool = True, batch: int = 0
    ) -> None:
        self._calls += 1
        wire = [errand.to_wire() for errand in errands]
        self.write("producer", at, "submitting", call=self._calls, producer="p", batch=batch, errands=wire)
        if answered:
            names = list(ids or [str(errand.id) for errand in errands])
            self.write("producer", at + 0.1, "submitted", call=self._calls, batch=batch, ids=names)

    def claimed(self, worker: str, *tasks: str, at: float, token: str = OLD, attempt: int = 1) -> None:
        entry = [(task, attempt, token) for task in tasks]
        self.write(worker, at, "claimed", asked=at - 0.1, tasks=entry)

    def settled(
        self,
        worker: str,
        task: str = "t",
        *,
        at: float,
        token: str = OLD,
        attempt: int = 1,
        ending: str = "succeeded",
        accepted: bool | None = True,
        hopeless: str = "",
    ) -> None:
        self._calls += 1
        outcome = (task, attempt, token, ending)
        self.write(worker, at, "settling", call=self._calls, outcomes=[outcome], hopeless=hopeless)
        if accepted is not None:
            self.write(worker, at + 0.1, "settled", call=self._calls, accepted=[accepted])

    def cancelled(self, task: str, state: str, *, at: float) -> None:
        self._calls += 1
        self.write("producer", at, "cancelling", call=self._calls, tasks=[task])
        self.write("producer", at + 0.1, "cancelled", call=self._calls, states=[state])

    def evidence(self, **finals: Final) -> Evidence:
        evidence = Evidence(finals=finals)
        evidence.read(self._folder)
        return evidence


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    return Forger(tmp_path)


def breaches(evidence: Evidence) -> set[Breach]:
    return {finding.breach for finding in check(evidence).findings}


def done(token: str = OLD, **fields: Any) -> Final:
    return Final("succeeded", token=token, **fields)


def test_a_round_in_which_all_went_well_has_no_findings(forger: Forger) -> None:
    forger.submitted(Errand("t", priority=9), Errand("u"))
    forger.claimed("w", "t", "u", at=1)
    forger.settled("w", "t", at=2)
    forger.settled("w", "u", at=2)
    verdict = check(forger.evidence(t=done(), u=done()))
    assert (verdict.findings, verdict.tasks, verdict.counts["succeeded"]) == ([], 2, 2)


def test_a_task_that_a_frozen_worker_settles_too_late_and_in_vain_is_no_finding(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("frozen", "t", at=1)
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("other", at=4, token=NEW, attempt=2)
    forger.settled("frozen", at=5, accepted=False)
    verdict = check(forger.evidence(t=done(NEW, failures=("LEASE_EXPIRED",))))
    assert (verdict.findings, verdict.counts["late_outcomes_refused"], verdict.counts["redeliveries"]) == ([], 1, 1)


def test_a_repeated_settlement_that_is_accepted_again_is_no_finding(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.settled("w", at=2, ending="retry")
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("w", at=4, ending="retry")
    forger.settled("other", at=5, token=NEW, attempt=2)
    assert breaches(forger.evidence(t=done(NEW, failures=("FAILED",)))) == set()


def test_a_task_that_the_queue_has_forgotten_is_lost(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    assert breaches(forger.evidence()) == {Breach.LOST}


def test_a_task_whose_id_the_queue_made_up_is_missed_too(forger: Forger) -> None:
    forger.submitted(Errand(None), ids=["made-up"])
    (finding,) = check(forger.evidence()).findings
    assert (finding.breach, finding.task) == (Breach.LOST, "made-up")


@pytest.mark.parametrize("state", ["queued", "running", "scheduled", "blocked"])
def test_a_task_that_never_ends_is_lost(forger: Forger, state: str) -> None:
    forger.submitted(Errand("t"))
    assert breaches(forger.evidence(t=Final(state))) == {Breach.LOST}


def test_a_task_that_was_not_acknowledged_may_be_missing(forger: Forger) -> None:
    forger.submitted(Errand("t"), answered=False)
    assert breaches(forger.evidence()) == set()


def test_a_task_that_was_not_acknowledged_but_given_to_a_worker_may_not(forger: Forger) -> None:
    forger.submitted(Errand("t"), answered=False)
    forger.claimed("w", "t", at=1)
    assert breaches(forger.evidence()) == {Breach.LOST}


def test_two_accepted_endings_of_one_task_are_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("one", "t", at=1)
    forger.claimed("two", "t", at=1, token=NEW)
    forger.settled("one", at=2)
    forger.settled("two", at=2, token=NEW)
    assert Breach.DOUBLE_TERMINAL in breaches(forger.evidence(t=done()))


def test_an_accepted_ending_that_another_one_has_replaced_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.settled("w", at=2)
    assert breaches(forger.evidence(t=Final("dead", failures=("LEASE_EXPIRED",)))) == {Breach.DOUBLE_TERMINAL}


def test_an_end_of_a_cancelled_task_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.cancelled("t", "cancelled", at=2)
    forger.settled("w", at=3)
    assert Breach.DOUBLE_TERMINAL in breaches(forger.evidence(t=done()))
    assert Breach.DOUBLE_TERMINAL in breaches(forger.evidence(t=Final("cancelled")))


def test_two_events_that_say_that_a_task_has_ended_are_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.settled("w", at=2)
    evidence = forger.evidence(t=done())
    evidence.happenings = [Happening("succeeded", "t"), Happening("dead", "t")]
    assert breaches(evidence) == {Breach.DOUBLE_TERMINAL}
    evidence.happenings = [Happening("started", "t")]
    assert breaches(evidence) == {Breach.FIGURES}


def test_a_replayed_task_ends_once_more_for_each_replay(forger: Forger) -> None:
    forger.submitted(Errand("t", max_attempts=1))
    forger.claimed("w", "t", at=1)
    forger.settled("w", at=2, ending="dead")
    forger.claimed("w", "t", at=5, token=NEW)
    forger.settled("w", at=6, token=NEW)
    assert breaches(forger.evidence(t=done(NEW, replays=1))) == set()
    assert Breach.DOUBLE_TERMINAL in breaches(forger.evidence(t=done(NEW)))


def test_an_outcome_that_is_accepted_after_a_newer_attempt_began_is_stale(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("frozen", "t", at=1)
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("frozen", at=4)
    forger.settled("other", at=5, token=NEW, attempt=2, accepted=False)
    assert Breach.STALE_ACK in breaches(forger.evidence(t=done()))


def test_a_stale_failure_that_is_accepted_is_found_too(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("frozen", "t", at=1)
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("frozen", at=4, ending="retry")
    forger.settled("other", at=5, token=NEW, attempt=2)
    assert breaches(forger.evidence(t=done(NEW))) == {Breach.STALE_ACK}


def test_a_stale_result_is_found_even_if_its_worker_died_before_it_heard(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("frozen", "t", at=1)
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("frozen", at=4, accepted=None)
    assert breaches(forger.evidence(t=done())) == {Breach.STALE_ACK}


def test_an_outcome_of_what_was_given_back_is_stale_if_accepted(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.write("w", 2, "releasing", tasks=[("t", 1, OLD)])
    forger.settled("w", at=3, hopeless="it had been given back")
    assert breaches(forger.evidence(t=done())) == {Breach.STALE_ACK}


def test_the_older_of_two_attempts_with_one_number_is_stale(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("one", "t", at=1)
    forger.write("one", 2, "releasing", tasks=[("t", 1, OLD)])
    forger.claimed("two", "t", at=3, token=NEW)
    forger.settled("one", at=4, ending="retry")
    assert Breach.STALE_ACK in breaches(forger.evidence(t=Final("dead")))


def test_an_attempt_after_the_end_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.settled("w", at=2)
    forger.claimed("other", "t", at=4, token=NEW, attempt=2)
    assert Breach.RESTARTED in breaches(forger.evidence(t=done()))


def test_an_attempt_of_a_cancelled_task_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.cancelled("t", "cancelled", at=1)
    forger.claimed("w", "t", at=3)
    assert breaches(forger.evidence(t=Final("cancelled"))) == {Breach.RESTARTED}


def test_an_attempt_that_two_workers_have_is_found_unless_the_first_one_gave_it_back(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("one", "t", at=1)
    forger.claimed("two", "t", at=2, token=NEW)
    forger.settled("two", at=3, token=NEW)
    assert breaches(forger.evidence(t=done(NEW))) == {Breach.REUSED}
    forger.write("one", 1.5, "releasing", tasks=[("t", 1, OLD)])
    assert breaches(forger.evidence(t=done(NEW))) == set()


def test_a_result_that_nobody_sent_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    assert breaches(forger.evidence(t=done())) == {Breach.UNFOUNDED}


def test_a_payload_that_is_no_json_any_more_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("w", "t", at=1)
    forger.write("w", 2, "garbled", task="t", payload="b'{'")
    assert breaches(forger.evidence(t=Final("cancelled"))) == {Breach.GARBLED}


def test_half_a_batch_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"), Errand("u"), answered=False)
    assert breaches(forger.evidence(t=Final("cancelled"))) == {Breach.HALF_BATCH}


def test_a_lower_priority_before_a_higher_one_in_one_claim_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t", priority=1), Errand("u", priority=2))
    forger.claimed("w", "t", "u", at=1)
    assert breaches(forger.evidence(t=Final("cancelled"), u=Final("cancelled"))) == {Breach.ORDER}


def test_a_later_task_before_an_earlier_one_in_one_claim_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"), Errand("v", priority=7))
    forger.submitted(Errand("u"), batch=1)
    forger.claimed("w", "v", "u", "t", at=1)
    assert breaches(forger.evidence(**dict.fromkeys("tuv", Final("cancelled")))) == {Breach.ORDER}


def test_tenants_take_turns_so_only_the_order_of_each_counts(forger: Forger) -> None:
    forger.submitted(Errand("t", tenant="a"), Errand("u", tenant="a"), Errand("v", tenant="b"))
    forger.claimed("w", "t", "v", "u", at=1)
    assert breaches(forger.evidence(**dict.fromkeys("tuv", Final("cancelled")))) == set()


def test_a_start_before_the_delay_is_over_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t", delay=5.0))
    forger.claimed("w", "t", at=4)
    assert breaches(forger.evidence(t=Final("cancelled"))) == {Breach.EARLY}


def test_a_child_that_begins_before_its_parent_has_ended_is_found(forger: Forger) -> None:
    forger.submitted(Errand("t"), Errand("u", parents=("t",)))
    forger.claimed("w", "t", at=1)
    forger.claimed("other", "u", at=2)
    forger.settled("w", at=3)
    assert breaches(forger.evidence(t=done(), u=Final("cancelled"))) == {Breach.EARLY}


def test_a_child_may_begin_between_the_death_of_its_parent_and_its_replay(forger: Forger) -> None:
    forger.submitted(Errand("t", max_attempts=1), Errand("u", parents=("t",), on_parent_failure="Run"))
    forger.claimed("w", "t", at=1)
    forger.claimed("other", "u", at=3)
    forger.claimed("w", "t", at=5, token=NEW)
    forger.settled("w", at=6, token=NEW)
    assert breaches(forger.evidence(t=done(NEW, replays=1), u=Final("cancelled"))) == set()


@pytest.mark.parametrize(("choice", "right"), [("Fail", "failed"), ("Skip", "cancelled")])
def test_a_child_that_does_not_end_as_chosen_when_a_parent_fails_is_found(
    forger: Forger, choice: str, right: str
) -> None:
    forger.submitted(Errand("t"), Errand("u", parents=("t",), on_parent_failure=choice))
    failed = Final("dead", failures=("LEASE_EXPIRED",))
    assert breaches(forger.evidence(t=failed, u=Final(right))) == set()
    assert breaches(forger.evidence(t=failed, u=Final("expired"))) == {Breach.PARENTS}
    forger.claimed("w", "u", at=1)
    assert breaches(forger.evidence(t=failed, u=Final(right))) == {Breach.PARENTS}


def test_figures_that_do_not_add_up_are_found(forger: Forger) -> None:
    evidence = forger.evidence()
    evidence.totals = {"queued": 0, "running": 0, "scheduled": 0, "blocked": 0, "succeeded_total": 1}
    assert breaches(evidence) == {Breach.FIGURES}
    evidence.totals = {"queued": 0, "running": 1, "scheduled": 0, "blocked": 0, "succeeded_total": 0}
    assert breaches(evidence) == {Breach.LOST}


WAITING = [("low", Errand("low", priority=1)), ("one", Errand("one")), ("two", Errand("two"))]


def test_one_consumer_gets_what_waits_by_priority_and_first_in_first_out() -> None:
    assert list(check_order(WAITING, ["one", "two", "low"])) == []


@pytest.mark.parametrize(
    ("claimed", "breach", "task"),
    [
        (["low", "one", "two"], Breach.ORDER, "low"),
        (["two", "one", "low"], Breach.ORDER, "two"),
        (["one", "two"], Breach.LOST, "low"),
        (["one", "two", "low", "low"], Breach.DOUBLE_TERMINAL, "low"),
    ],
    ids=["priority", "first in first out", "missing", "twice"],
)
def test_one_consumer_that_gets_something_else_is_found(claimed: list[str], breach: Breach, task: str) -> None:
    (finding,) = check_order(WAITING, claimed)
    assert (finding.breach, finding.task) == (breach, task)


def test_a_finding_tells_the_whole_story(forger: Forger) -> None:
    forger.submitted(Errand("t"))
    forger.claimed("frozen", "t", at=1)
    forger.claimed("other", "t", at=3, token=NEW, attempt=2)
    forger.settled("frozen", at=4, ending="retry")
    forger.settled("other", at=5, token=NEW, attempt=2)
    (finding,) = check(forger.evidence(t=done(NEW))).findings
    assert str(finding) == (
        "stale_acks_accepted: task t: attempt 1 of frozen was accepted, 1.000 s after attempt 2 had begun at other; "
        f"+1.000 s attempt 1 began at frozen ({OLD}); +3.000 s attempt 2 began at other ({NEW}); "
        f"+4.000 s frozen sent retry for attempt 1 ({OLD}): accepted; "
        f"+5.000 s other sent succeeded for attempt 2 ({NEW}): accepted"
    )
    assert isinstance(finding, Finding)


def test_a_journal_survives_the_death_of_its_writer_in_the_midst_of_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w.journal")
    journal.write("claimed", asked=1.0, tasks=[("t", 1, OLD)])
    with (tmp_path / "w.journal").open("ab") as file:
        file.write(b'{"kind":"settled","ha')
    evidence = Evidence()
    evidence.read(tmp_path)
    assert [start.task for start in evidence.starts] == ["t"]


def test_a_journal_shows_what_its_writer_is_in_the_midst_of(tmp_path: Path) -> None:
    journal, path = Journal(tmp_path / "w.journal"), tmp_path / "w.journal"
    assert not held(path)
    journal.write("claimed", asked=1.0, tasks=[("t", 1, OLD), ("u", 1, OLD)])
    journal.call("settling", outcomes=[("t", 1, OLD, "succeeded")])
    assert held(path) == {"u"}
    journal.call("settling", outcomes=[("u", 1, OLD, "retry")])
    assert not held(path)
    journal.call("submitting", producer="p", batch=0, errands=[])
    assert is_submitting(path)
    journal.write("submitted", call=3, batch=0, ids=[])
    assert not is_submitting(path)


def test_an_errand_is_read_back_as_it_was_written() -> None:
    errands = [Errand("t"), Errand(None, priority=9), Errand("u", parents=("t",), tenant="a", agent="b", delay=0.5)]
    assert [Errand.from_wire(orjson.loads(orjson.dumps(errand.to_wire()))) for errand in errands] == errands
