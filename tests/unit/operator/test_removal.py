# SPDX-License-Identifier: Apache-2.0
"""Which pods go, and when."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubeagents_operator.observed import DELETION_COST, LEAVING_SINCE, Pod
from kubeagents_operator.rollout import shares
from kubeagents_operator.scaling.removal import FIRST_TO_GO, Crew, Removal, plan_removal, plan_shared_removal
from tests.unit.operator.objects import TEMPLATE, pod
from tests.unit.operator.test_demand import instance

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
JUST_NOW = "2026-01-01T11:59:55Z"
LONG_AGO = "2026-01-01T11:59:00Z"


def ready(name: str, **fields: Any) -> Pod:
    return pod(name, ready=True, **{"created": f"2026-01-01T00:00:0{name[-1]}Z", **fields})


def leaving(name: str, since: str = JUST_NOW, **fields: Any) -> Pod:
    return ready(name, leaving_since=since, **fields)


def going(name: str) -> Pod:
    return leaving(name, deletion_cost=FIRST_TO_GO)


def crew(
    pods: Iterable[Pod], *, have: int | None = None, running: dict[str, int] | None = None, vacated: Iterable[str] = ()
) -> Crew:
    pods = list(pods)
    counts = {one.name: 0 for one in pods} if running is None else running
    return Crew(
        pods=pods,
        have=len(pods) if have is None else have,
        template=TEMPLATE,
        instances={name: instance(name, running=count) for name, count in counts.items()},
        vacated=frozenset(vacated),
    )


def plan(seen: Crew, wanted: int, *, drain: float = 30.0) -> Removal:
    return plan_removal(seen, wanted=wanted, drain_seconds=drain, now=NOW)


FOUR = [ready("p1"), ready("p2"), ready("p3"), ready("p4")]
BUSY = {"p1": 1, "p2": 3, "p3": 2, "p4": 4}


@pytest.mark.parametrize(
    ("seen", "wanted", "chosen"),
    [
        (crew(FOUR), 4, ""),
        (crew(FOUR), 3, "p4"),  # the youngest of the idle ones
        (crew(FOUR, running=BUSY), 3, "p1"),  # the least busy
        (crew(FOUR, running=BUSY), 1, "p1 p2 p3"),
        (crew(FOUR, running={**BUSY, "p2": 0}), 3, "p2"),  # one that is idle
        (crew(FOUR, running={**BUSY, "p2": 0}), 0, "p1 p2 p3 p4"),
        (crew([*FOUR[:3], pod("p9")], running={"p1": 0, "p2": 0, "p3": 0}), 3, "p9"),  # one that is not ready
        # The ReplicaSet would take one that is not ready before one with a cost.
        (crew([FOUR[0], replace(FOUR[1], ready=False), going("p3")], running={"p2": 1}), 2, "p2"),
        # One that was chosen before stays chosen among the busy, but one that is idle goes first.
        (crew([*FOUR[:3], leaving("p4")], running=BUSY), 3, "p4"),
        (crew([*FOUR[:3], leaving("p4")], running={**BUSY, "p2": 0}), 3, "p2"),
        # The ReplicaSet has been told of p4: it does not count twice.
        (crew([*FOUR[:3], going("p4")], have=3), 3, "p4"),
        (crew([*FOUR[:3], going("p4")], have=3, running=BUSY), 2, "p1 p4"),
        # It is on its way already.
        (crew([*FOUR[:3], replace(FOUR[3], deleting=True)], have=3), 2, "p3"),
        (crew([*FOUR[:3], replace(FOUR[3], finished=True)], have=4), 3, ""),
        # The Deployment has not started its last one yet; or it is about to end one itself.
        (crew(FOUR[:3], have=4), 3, ""),
        (crew(FOUR, have=3), 3, ""),
    ],
)
def test_who_is_chosen(seen: Crew, wanted: int, chosen: str) -> None:
    made = plan(seen, wanted)
    assert made.leaving == frozenset(chosen.split())
    assert made.staying == {one.name for one in seen.active()} - made.leaving


def test_a_chosen_pod_is_marked_first_and_the_replicas_stay() -> None:
    made = plan(crew(FOUR), 3)
    assert made.marks == {"p4": {LEAVING_SINCE: "2026-01-01T12:00:00Z"}}
    assert made.kept == 4
    assert made.again == pytest.approx(30.0)


def test_one_that_has_finished_gets_its_cost_before_the_replicas_change() -> None:
    before = crew([*FOUR[:3], leaving("p4")], vacated=["p4"])
    made = plan(before, 3)
    assert (made.marks, made.kept) == ({"p4": {DELETION_COST: FIRST_TO_GO}}, 4)
    after = crew([*FOUR[:3], going("p4")], vacated=["p4"])
    made = plan(after, 3)
    assert (made.marks, made.kept) == ({}, 3)


def test_replicas_are_lowered_by_those_that_have_finished_only() -> None:
    pods = [FOUR[0], leaving("p2"), going("p3"), going("p4")]
    made = plan(crew(pods, running={"p1": 1, "p2": 1}, vacated=["p3", "p4"]), 1)
    assert (made.kept, made.busy) == (2, ("p2",))


def test_a_removed_pod_that_still_shows_is_not_removed_twice() -> None:
    pods = [FOUR[0], leaving("p2"), leaving("p3"), going("p4")]
    seen = crew(pods, have=3, running={"p1": 1, "p2": 1, "p3": 1}, vacated=["p4"])
    assert plan(seen, 1).kept == 3
    gone = replace(seen, pods=[*pods[:3], replace(pods[3], deleting=True)])
    assert plan(gone, 1).kept == 3


def test_a_busy_pod_is_waited_for_until_its_patience_ends() -> None:
    seen = crew([FOUR[0], leaving("p2")], running={"p1": 0, "p2": 1})
    busy = replace(seen, pods=[replace(FOUR[0], ready=True), seen.pods[1]])
    made = plan(replace(busy, instances={"p1": instance("p1", running=2), "p2": instance("p2", running=1)}), 1)
    assert (made.kept, made.busy, made.marks) == (2, ("p2",), {})
    assert made.again == pytest.approx(25.0)


def test_one_that_was_busy_for_too_long_goes_all_the_same() -> None:
    seen = crew([FOUR[0], leaving("p2", LONG_AGO)], running={"p1": 2, "p2": 1})
    made = plan(seen, 1)
    assert (made.marks, made.kept, made.busy) == ({"p2": {DELETION_COST: FIRST_TO_GO}}, 2, ())
    marked = replace(seen, pods=[FOUR[0], leaving("p2", LONG_AGO, deletion_cost=FIRST_TO_GO)])
    assert plan(marked, 1).kept == 1


def test_without_an_answer_of_the_queue_the_patience_alone_counts() -> None:
    seen = crew([FOUR[0], leaving("p2"), leaving("p3", LONG_AGO)], running={})
    made = plan(seen, 1)
    assert made.marks == {"p3": {DELETION_COST: FIRST_TO_GO}}
    assert (made.kept, made.busy) == (3, ())


def test_an_agent_without_patience_is_not_asked() -> None:
    made = plan(crew(FOUR[:2], running={"p1": 1, "p2": 1}), 0, drain=0.0)
    assert made.marks == {
        name: {LEAVING_SINCE: "2026-01-01T12:00:00Z", DELETION_COST: FIRST_TO_GO} for name in ("p1", "p2")
    }


def test_those_that_are_needed_again_are_let_go_before_others_are_started() -> None:
    made = plan(crew([FOUR[0], leaving("p2"), going("p3")]), 3)
    nothing = {LEAVING_SINCE: None, DELETION_COST: None}
    assert made.marks == {"p2": nothing, "p3": nothing}
    assert made.kept == 3
    assert made.staying == {"p1", "p2", "p3"}
    assert plan(crew([FOUR[0], leaving("p2")]), 5).kept == 5


def test_a_part_that_is_needed_again_keeps_those_going_that_are_ready_to_go() -> None:
    pods = [FOUR[0], leaving("p2"), leaving("p3"), going("p4")]
    made = plan(crew(pods, running={"p1": 1, "p2": 1, "p3": 1, "p4": 0}, vacated=["p4"]), 3)
    assert made.leaving == {"p4"}
    assert made.kept == 3


def test_during_a_rolling_update_the_deployment_chooses() -> None:
    pods = [replace(FOUR[0], template="older"), leaving("p2"), *FOUR[2:]]
    made = plan(crew(pods), 1)
    assert (made.kept, made.leaving) == (1, frozenset())
    assert made.marks == {"p2": {LEAVING_SINCE: None, DELETION_COST: None}}


def shared(stable: Crew, canary: Crew, wanted: int) -> Removal:
    """For an Agent of which every fourth replica is of the new version."""

    def split(replicas: int) -> tuple[int, int]:
        share = shares.canary(25, replicas)
        return shares.stable(replicas, canary=share), share

    return plan_shared_removal([stable, canary], split, wanted=wanted, drain_seconds=30.0, now=NOW)


EIGHT = [ready(f"p{number}") for number in range(1, 7)], [ready("c1"), ready("c2")]


@pytest.mark.parametrize(
    ("running", "wanted", "chosen"),
    [
        ({}, 8, ""),
        ({}, 9, ""),
        ({}, 7, "p6"),
        ({"p6": 1, "c1": 1}, 4, "c2 p3 p4 p5"),
        ({"p6": 1}, 1, "c2 p1 p2 p3 p4 p5"),
        ({}, 0, "c1 c2 p1 p2 p3 p4 p5 p6"),
    ],
)
def test_during_a_step_of_a_canary_each_version_gives_up_its_share(
    running: dict[str, int], wanted: int, chosen: str
) -> None:
    stable, canary = (crew(pods, running={**{one.name: 0 for one in pods}, **running}) for pods in EIGHT)
    made = shared(stable, canary, wanted)
    assert made.leaving == frozenset(chosen.split())
    assert made.kept == max(8, wanted)


def test_the_replicas_of_both_versions_are_lowered_as_far_as_pods_of_both_have_finished() -> None:
    old = crew([*EIGHT[0][:3], going("p4"), going("p5"), going("p6")], vacated=["p4", "p5", "p6"])
    busy = crew([ready("c1"), leaving("c2")], running={"c1": 2, "c2": 1})
    made = shared(old, busy, 4)
    assert (made.kept, made.busy) == (5, ("c2",)), "of five, three are of the old version and two of the new one"
    done = crew([ready("c1"), going("c2")], vacated=["c2"])
    assert shared(old, done, 4).kept == 4
    assert shared(crew(EIGHT[0], running={}), done, 4).kept == 8, "the old version keeps its six"
    assert shared(crew(EIGHT[0]), crew(EIGHT[1][:1]), 7).kept == 7, "a step began: of seven, two are of the new version"


def test_all_of_a_single_replica_and_its_canary_go() -> None:
    made = shared(crew([going("p1")], vacated=["p1"]), crew([going("c1")], vacated=["c1"]), 0)
    assert made.leaving == {"p1", "c1"}
    assert made.kept == 0
    assert shared(crew([ready("p1")]), crew([ready("c1")]), 1).leaving == frozenset()


def test_an_agent_without_a_deployment_starts_with_what_is_wanted() -> None:
    seen = replace(crew([]), have=None, template=None)
    assert plan(seen, 3) == Removal(kept=3)


def test_all_go_in_the_end_whatever_the_order_of_news() -> None:
    """From any state, with every answer that the cluster may give, the same end is reached."""
    pods = {one.name: one for one in FOUR}
    have, vacated = 4, set[str]()
    for _ in range(40):
        seen = crew(pods.values(), have=have, running={name: 0 for name in pods}, vacated=vacated & pods.keys())
        made = plan(seen, 1)
        assert made.kept >= 1
        for name, marks in made.marks.items():
            old = pods[name]
            pods[name] = replace(
                old,
                leaving_since=marks.get(LEAVING_SINCE, old.leaving_since),
                deletion_cost=marks.get(DELETION_COST, old.deletion_cost),
            )
        if made.leaving - vacated:
            vacated.add(min(made.leaving - vacated))
            continue
        have = made.kept
        while len(pods) > have:  # the ReplicaSet takes the lowest cost
            victim = min(pods.values(), key=lambda one: (int(one.deletion_cost or 0), one.name))
            assert victim.deletion_cost == FIRST_TO_GO
            del pods[victim.name]
    assert (len(pods), have) == (1, 1)
