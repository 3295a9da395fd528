# SPDX-License-Identifier: Apache-2.0
"""The state machine of a rollout, as tables: what is remembered and seen -> what is done."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeagents_api.agent import RolloutStatus, RolloutStrategy
from kubeagents_operator.rollout import shares
from kubeagents_operator.rollout.machine import Plan, Seen, Workload, advance
from kubeagents_operator.rollout.state import State, of_status, to_status

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STRATEGY = RolloutStrategy.model_validate(
    {"steps": [{"percent": 25, "pauseSeconds": 60}, {"percent": 50}], "minSuccessRate": 0.9, "minTasks": 10}
)
KNOWN = State(stable="old")
TRYING = State(stable="old", canary="new", step=1, steps=2)
STARTED = replace(TRYING, step_started_at=NOW - timedelta(seconds=61), succeeded=10)
SECOND = replace(STARTED, step=2, promoted="before")
PROMOTING = State(stable="new", canary="new", succeeded=10)
FAILED = State(stable="old", failed="new", failure="3 of 10 failed", succeeded=7, failed_attempts=3)


def workload(revision: str, wanted: int, *, complete: bool = True, works: bool = True) -> Workload:
    return Workload(revision, wanted, complete=complete, works=works)


def seen(**changes: Any) -> Seen:
    """Eight replicas of the old version, and the spec says the new one."""
    before = Seen(wanted="new", replicas=8, stable=workload("old", 8), canary=None, trouble=None, promote=None, now=NOW)
    return replace(before, **changes)


def done(plan: Plan) -> tuple[str | None, int, int | None]:
    """The version that the stable Deployment keeps, its replicas, and those of the canary."""
    return plan.keeps, plan.stable, plan.canary


TWO = workload("new", 2)
FOUR = workload("new", 4)


@pytest.mark.parametrize(
    ("name", "before", "what", "expected", "after"),
    [
        ("first creation", State(), seen(stable=None), (None, 8, None), State()),
        (
            "the first version is not ready yet",
            State(),
            seen(stable=workload("new", 8, complete=False, works=False)),
            (None, 8, None),
            State(),
        ),
        ("it works", State(), seen(stable=workload("new", 8)), (None, 8, None), State(stable="new")),
        (
            "it is known to work, whatever happens to its pods",
            State(stable="new"),
            seen(stable=workload("new", 8, complete=False, works=False)),
            (None, 8, None),
            State(stable="new"),
        ),
        (
            "the correction of a version that never worked",
            State(),
            seen(stable=workload("old", 8, complete=False, works=False)),
            (None, 8, None),
            State(),
        ),
        ("a new version", KNOWN, seen(), ("old", 8, 2), TRYING),
        ("a strategy and a new version at once", State(), seen(), ("old", 8, 2), TRYING),
        (
            "the pods of the step are not ready",
            TRYING,
            seen(canary=replace(TWO, complete=False)),
            ("old", 8, 2),
            TRYING,
        ),
        (
            "they are ready",
            TRYING,
            seen(canary=TWO),
            ("old", 6, 2),
            replace(TRYING, step_started_at=NOW),
        ),
        (
            "one of them is not ready any more",
            STARTED,
            seen(canary=replace(TWO, complete=False)),
            ("old", 6, 2),
            STARTED,
        ),
        (
            "too few tasks",
            replace(STARTED, succeeded=9),
            seen(canary=TWO),
            ("old", 6, 2),
            replace(STARTED, succeeded=9),
        ),
        (
            "the pause is not over",
            replace(STARTED, step_started_at=NOW - timedelta(seconds=59)),
            seen(canary=TWO),
            ("old", 6, 2),
            replace(STARTED, step_started_at=NOW - timedelta(seconds=59)),
        ),
        (
            "the step ends",
            STARTED,
            seen(canary=TWO, promote="before"),
            ("old", 6, 4),
            replace(STARTED, step=2, step_started_at=None, promoted="before"),
        ),
        ("a step that waits", SECOND, seen(canary=FOUR, promote="before"), ("old", 4, 4), SECOND),
        (
            "nobody has ever promoted",
            replace(SECOND, promoted=None),
            seen(canary=FOUR),
            ("old", 4, 4),
            replace(SECOND, promoted=None),
        ),
        (
            "somebody promotes it, and it was the last one",
            SECOND,
            seen(canary=FOUR, promote="now"),
            (None, 8, 4),
            replace(PROMOTING, promoted="now"),
        ),
        (
            "promoted before it has done its tasks",
            replace(SECOND, succeeded=3),
            seen(canary=FOUR, promote="now"),
            ("old", 4, 4),
            replace(SECOND, succeeded=3),
        ),
        ("the stable Deployment has not been told yet", PROMOTING, seen(canary=FOUR), (None, 8, 4), PROMOTING),
        (
            "it is being updated",
            PROMOTING,
            seen(stable=workload("new", 8, complete=False), canary=FOUR),
            (None, 8, 4),
            PROMOTING,
        ),
        (
            "it is updated",
            PROMOTING,
            seen(stable=workload("new", 8), canary=FOUR),
            (None, 8, None),
            State(stable="new"),
        ),
        (
            "one attempt too many failed",
            replace(STARTED, succeeded=8, failed_attempts=2),
            seen(canary=TWO),
            ("old", 8, None),
            State(
                stable="old",
                failed="new",
                failure="2 of its 10 task attempts failed, and spec.rollout.minSuccessRate is 0.9",
                succeeded=8,
                failed_attempts=2,
            ),
        ),
        (
            "few attempts say nothing",
            replace(STARTED, succeeded=0, failed_attempts=9),
            seen(canary=TWO),
            ("old", 6, 2),
            replace(STARTED, succeeded=0, failed_attempts=9),
        ),
        (
            "its pods crash",
            TRYING,
            seen(canary=replace(TWO, complete=False), trouble="it keeps exiting"),
            ("old", 8, None),
            State(stable="old", failed="new", failure="its pods do not come up: it keeps exiting"),
        ),
        ("what was taken back is not tried again", FAILED, seen(), ("old", 8, None), FAILED),
        (
            "not even while the old version is in trouble",
            FAILED,
            seen(stable=workload("old", 8, works=False)),
            ("old", 8, None),
            FAILED,
        ),
        ("back to the old version", FAILED, seen(wanted="old"), (None, 8, None), State(stable="old")),
        (
            "back in the midst of a canary",
            STARTED,
            seen(wanted="old", canary=TWO),
            (None, 8, None),
            State(stable="old"),
        ),
        (
            "another version after one that failed",
            FAILED,
            seen(wanted="newer"),
            ("old", 8, 2),
            replace(TRYING, canary="newer"),
        ),
        (
            "a newer version in the midst of a canary",
            STARTED,
            seen(wanted="newer", canary=TWO),
            ("old", 8, 2),
            replace(TRYING, canary="newer"),
        ),
        (
            "a newer version while one is promoted",
            PROMOTING,
            seen(wanted="newer", stable=workload("new", 8, complete=False, works=False), canary=FOUR),
            ("new", 8, 2),
            replace(TRYING, stable="new", canary="newer"),
        ),
        (
            "scaled to zero",
            STARTED,
            seen(replicas=0, canary=TWO),
            ("old", 0, 0),
            replace(STARTED, step_started_at=None),
        ),
        (
            "a new version at zero waits",
            KNOWN,
            seen(replicas=0, stable=workload("old", 0, works=False)),
            ("old", 0, 0),
            TRYING,
        ),
        (
            "a single replica gets one beside it",
            KNOWN,
            seen(replicas=1, stable=workload("old", 1)),
            ("old", 1, 1),
            TRYING,
        ),
        (
            "and keeps its own",
            TRYING,
            seen(replicas=1, stable=workload("old", 1), canary=workload("new", 1)),
            ("old", 1, 1),
            replace(TRYING, step_started_at=NOW),
        ),
        ("scaled up", STARTED, seen(replicas=16, canary=TWO), ("old", 12, 4), STARTED),
        ("scaled down", STARTED, seen(replicas=4, canary=TWO), ("old", 3, 1), STARTED),
    ],
)
def test_what_is_done(
    name: str, before: State, what: Seen, expected: tuple[str | None, int, int | None], after: State
) -> None:
    plan = advance(before, STRATEGY, what)

    assert done(plan) == expected, name
    assert plan.state is not None
    assert replace(plan.state, steps=None) == replace(after, steps=None), name


@pytest.mark.parametrize(
    ("before", "what", "expected", "after"),
    [
        (State(), seen(), (None, 8, None), None),
        (KNOWN, seen(), (None, 8, None), None),
        (FAILED, seen(), (None, 8, None), None),
        (STARTED, seen(canary=TWO), (None, 8, 2), replace(STARTED, stable="new", step=None, step_started_at=None)),
        (STARTED, seen(stable=workload("new", 8), canary=TWO), (None, 8, None), None),
        (STARTED, seen(wanted="newer", canary=TWO), (None, 8, None), None),
    ],
)
def test_without_a_strategy_there_is_only_the_rolling_update(
    before: State, what: Seen, expected: tuple[str | None, int, int | None], after: State | None
) -> None:
    plan = advance(before, None, what)

    assert done(plan) == expected
    assert (replace(plan.state, steps=None) if plan.state else None) == (replace(after, steps=None) if after else None)


@pytest.mark.parametrize(
    ("before", "what", "news"),
    [
        (KNOWN, seen(), "CanaryStarted"),
        (STARTED, seen(canary=TWO), "CanaryStepped"),
        (SECOND, seen(canary=FOUR, promote="now"), "CanaryPromoted"),
        (TRYING, seen(canary=TWO), None),
        (FAILED, seen(), None),
        (PROMOTING, seen(stable=workload("new", 8)), None),
    ],
)
def test_transitions_are_news(before: State, what: Seen, news: str | None) -> None:
    assert [one.reason for one in advance(before, STRATEGY, what).news] == ([news] if news else [])


@pytest.mark.parametrize(
    "before", [State(), KNOWN, TRYING, STARTED, SECOND, PROMOTING, replace(PROMOTING, promoted="now"), FAILED]
)
def test_a_state_survives_in_the_status(before: State) -> None:
    status = to_status(before)

    assert of_status(status) == before
    RolloutStatus.model_validate(status or {})


@pytest.mark.parametrize(
    ("before", "what", "young"),
    [
        (TRYING, seen(), False),
        (TRYING, seen(canary=TWO), True),
        (replace(STARTED, step_started_at=NOW - timedelta(seconds=59)), seen(canary=TWO), True),
        (replace(STARTED, succeeded=0), seen(canary=TWO), False),
        (FAILED, seen(), False),
        (PROMOTING, seen(canary=FOUR), False),
    ],
)
def test_a_step_is_young_for_a_minute_after_its_pods_are_there(before: State, what: Seen, young: bool) -> None:
    assert advance(before, STRATEGY, what).young is young


def test_a_state_is_reached_once_and_then_kept() -> None:
    """Level-triggered: to decide twice is to decide once."""
    for before, what in ((KNOWN, seen()), (TRYING, seen(canary=TWO)), (FAILED, seen()), (PROMOTING, seen(canary=FOUR))):
        once = advance(before, STRATEGY, what)
        assert once.state is not None
        again = advance(once.state, STRATEGY, replace(what, canary=what.canary))
        assert (done(again), again.state, again.news) == (done(once), once.state, ())


@pytest.mark.parametrize("replicas", [1, 2, 3, 10, 99, 10000])
def test_shares(replicas: int) -> None:
    assert shares.canary(25, 0) == shares.stable(0, canary=0) == 0
    for percent in range(1, 100):
        canary = shares.canary(percent, replicas)
        stable = shares.stable(replicas, canary=canary)
        assert canary >= 1
        assert stable >= 1
        assert canary + stable == max(replicas, 2)
        assert canary == min(-(-percent * replicas // 100), max(1, replicas - 1))
