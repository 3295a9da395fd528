# SPDX-License-Identifier: Apache-2.0
"""How many replicas an Agent needs, now and over time."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubeagents_api.agent import Autoscaling
from kubeagents_operator.scaling.autoscaler import Autoscaler, Decision, Situation, needed
from kubeagents_operator.scaling.demand import Demand

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def settings(**fields: Any) -> Autoscaling:
    return Autoscaling.model_validate({"minReplicas": 1, "maxReplicas": 10, **fields})


def demand(waiting: int = 0, running: int = 0, **fields: Any) -> Demand:
    values = {"within_reach": waiting, "slots": 0, "oldest_at": THEN if waiting else None, **fields}
    return Demand(waiting=waiting, running=running, **values)


def situation(wish: Demand, *, current: int = 1, ready: int | None = None, age: float = 0.0, **rules: Any) -> Situation:
    return Situation(
        settings=settings(**rules),
        concurrency=10,
        demand=wish,
        current=current,
        ready=current if ready is None else ready,
        oldest_age=age,
    )


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (situation(demand()), 1),
        (situation(demand(), minReplicas=0), 0),
        (situation(demand(waiting=1), minReplicas=0), 1),
        (situation(demand(waiting=8)), 1),
        (situation(demand(waiting=9)), 2),
        (situation(demand(waiting=20), targetUtilization=1), 2),
        (situation(demand(waiting=16), targetUtilization=0.8), 2),
        (situation(demand(waiting=3), targetUtilization=0.1), 3),
        (situation(demand(waiting=10_000)), 10),
        # An empty queue is no sign of little work: what runs counts.
        (situation(demand(running=24), current=3), 3),
        (situation(demand(waiting=8, running=24), current=3), 4),
        # Somebody waits for too long.
        (situation(demand(waiting=1), current=2, age=30.0), 1),
        (situation(demand(waiting=1), current=2, age=31.0), 3),
        (situation(demand(waiting=1), current=6, age=31.0), 9),
        (situation(demand(waiting=1), current=4, ready=2, age=31.0), 4),
        (situation(demand(waiting=1), current=10, age=31.0), 10),
        (situation(demand(waiting=0, within_reach=1, oldest_at=THEN), minReplicas=0, current=0, age=31.0), 1),
        # There is room for it, so it is not replicas that it waits for.
        (situation(demand(waiting=1, running=7, slots=10), current=2, age=31.0), 1),
        (situation(demand(waiting=1, running=8, slots=10), current=2, age=31.0), 3),
        (situation(demand(waiting=1, running=7, slots=10), current=2, age=31.0, targetUtilization=0.7), 3),
        # Nobody is given tasks: more replicas would not help.
        (situation(demand(waiting=100, paused=True), current=2), 2),
        (situation(demand(waiting=1, paused=True), minReplicas=0, current=0, age=99.0), 0),
        (situation(demand(waiting=0, paused=True), current=2), 1),
    ],
)
def test_what_is_needed_at_one_moment(seen: Situation, expected: int) -> None:
    assert needed(seen) == expected


@dataclass
class Life:
    """One Agent over time: its decisions are those that the next one starts from."""

    rules: dict[str, Any]
    current: int = 1
    now: float = 1000.0
    autoscaler: Autoscaler = field(default_factory=Autoscaler)

    def see(self, seconds: float, wish: Demand, age: float = 0.0) -> Decision:
        """Time goes by, and then this is seen."""
        self.now += seconds
        seen = situation(wish, current=self.current, age=age, **self.rules)
        made = self.autoscaler.decide("agent", seen, now=self.now)
        self.current = made.wanted
        return made

    def is_blind(self) -> Decision:
        made = self.autoscaler.blind("agent", settings(**self.rules), current=self.current)
        self.current = made.wanted
        return made


def lately(up: int = 0, down: int = 300, **rules: Any) -> dict[str, Any]:
    windows = {"scaleUp": {"stabilizationWindowSeconds": up}, "scaleDown": {"stabilizationWindowSeconds": down}}
    return {**windows, **rules}


def test_more_is_started_at_once_and_less_after_its_window() -> None:
    life = Life(lately())
    assert life.see(0, demand(waiting=40)).wanted == 5
    assert life.see(10, demand(running=8)).wanted == 5
    made = life.see(100, demand(running=8))
    assert made.wanted == 5
    assert made.again is not None
    assert 0 < made.again <= 200
    assert life.see(199, demand(running=8)).wanted == 5
    assert life.see(2, demand(running=8)).wanted == 1


def test_a_need_that_lasted_until_a_moment_ago_holds_for_the_whole_window_though_it_was_noted_long_ago() -> None:
    life = Life(lately())
    life.see(0, demand(waiting=40))
    assert life.see(3600, demand(waiting=8)).wanted == 5
    assert life.see(299, demand(waiting=8)).wanted == 5
    assert life.see(2, demand(waiting=8)).wanted == 1


def test_within_the_window_the_greatest_need_counts() -> None:
    life = Life(lately())
    for seconds, waiting, expected in [(0, 40, 5), (10, 8, 5), (250, 24, 5), (10, 8, 5), (45, 8, 3), (300, 8, 1)]:
        assert life.see(seconds, demand(waiting=waiting)).wanted == expected


def test_more_is_started_only_when_it_was_needed_throughout_its_window() -> None:
    life = Life(lately(up=60))
    assert life.see(0, demand()).wanted == 1
    made = life.see(30, demand(waiting=40))
    assert made.wanted == 1
    assert made.again == pytest.approx(30.0)  # when its age says so
    assert life.see(59, demand(waiting=24)).wanted == 1
    assert life.see(2, demand(waiting=40)).wanted == 3


def test_an_operator_that_has_just_started_takes_nothing_away_before_a_whole_window() -> None:
    life = Life(lately(), current=5)
    assert life.see(0, demand()).wanted == 5
    made = life.see(290, demand())
    assert made.wanted == 5
    assert made.again == pytest.approx(10)
    assert life.see(10, demand()).wanted == 1


def test_a_time_in_which_the_queue_could_not_be_asked_changes_nothing_and_begins_the_window_anew() -> None:
    life = Life(lately(), current=5)
    life.see(0, demand())
    assert life.is_blind().wanted == 5
    assert life.see(400, demand()).wanted == 5
    assert life.see(299, demand()).wanted == 5
    assert life.see(2, demand()).wanted == 1


@pytest.mark.parametrize(("current", "expected"), [(0, 2), (3, 3), (9, 4)])
def test_limits_hold_also_while_the_queue_cannot_be_asked(current: int, expected: int) -> None:
    assert Life({"minReplicas": 2, "maxReplicas": 4}, current=current).is_blind().wanted == expected


def test_the_last_replica_goes_when_there_was_nothing_to_do_for_idle_seconds() -> None:
    life = Life(lately(down=0, minReplicas=0, idleSeconds=120), current=3)
    assert life.see(0, demand(running=1)).wanted == 1
    made = life.see(10, demand())
    assert made.wanted == 1
    assert made.again == pytest.approx(120)
    assert life.see(60, demand(running=1)).wanted == 1
    assert life.see(1, demand()).wanted == 1
    assert life.see(119, demand()).wanted == 1
    assert life.see(1, demand()).wanted == 0
    assert life.see(100, demand()).wanted == 0
    assert life.see(1, demand(waiting=1)).wanted == 1


def test_an_agent_that_sleeps_stays_asleep_when_the_operator_starts() -> None:
    assert Life(lately(minReplicas=0), current=0).see(0, demand()).wanted == 0


def test_a_first_task_wakes_as_many_as_it_needs() -> None:
    assert Life(lately(minReplicas=0), current=0).see(0, demand(waiting=17)).wanted == 3


def test_with_replicas_at_least_one_the_last_ones_stay() -> None:
    life = Life(lately(down=0, minReplicas=2, idleSeconds=0), current=4)
    assert life.see(0, demand()).wanted == 2


def test_the_moment_in_which_the_oldest_task_gets_too_old_is_looked_at() -> None:
    made = Life({}).see(0, demand(waiting=1), age=12.0)
    assert made.again == pytest.approx(18.0)


def test_a_pause_keeps_what_there_is_and_what_was_needed_before_it_goes_after_its_window() -> None:
    life = Life(lately(), current=3)
    life.see(0, demand(running=24))
    assert life.see(1, demand(waiting=100, paused=True)).wanted == 3


@pytest.mark.parametrize(
    ("seen", "figures"),
    [
        (situation(demand(waiting=12, running=1)), "12 tasks wait, 1 runs"),
        (situation(demand(waiting=1, running=0)), "1 task waits, 0 run"),
        (situation(demand(waiting=2, running=3), age=31.2), "2 tasks wait (the oldest for 31 s), 3 run"),
    ],
)
def test_a_decision_has_the_figures_that_it_was_made_by(seen: Situation, figures: str) -> None:
    assert Autoscaler().decide("agent", seen, now=0.0).why == figures


def test_agents_do_not_share_their_windows() -> None:
    autoscaler = Autoscaler()
    busy, idle = situation(demand(waiting=40), current=5), situation(demand(), current=5)
    fast = replace(idle, settings=settings(**lately(down=0)))
    autoscaler.decide("one", busy, now=0.0)
    assert autoscaler.decide("other", fast, now=1.0).wanted == 1


def test_a_history_does_not_grow_beyond_its_windows() -> None:
    life = Life(lately(up=10, down=20))
    for number in range(1000):
        life.see(1, demand(waiting=8 + 16 * (number % 2)))
    history = life.autoscaler._histories["agent"]
    assert len(history.needs) <= 23
