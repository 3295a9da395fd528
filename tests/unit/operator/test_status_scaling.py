# SPDX-License-Identifier: Apache-2.0
"""What the status of an Agent says while it is scaled, and which Events tell of it."""

from dataclasses import replace
from typing import Any

import pytest

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.sampler import Trouble
from kubeagents_operator.scaling.plan import ReplicaPlan, autoscaled_fact, deferred
from kubeagents_operator.status.agent import AgentState
from kubeagents_operator.status.conditions import Previous, progressing
from kubeagents_operator.status.news import news
from tests.support.kstatus import kstatus
from tests.unit.operator.objects import pod, rollout
from tests.unit.operator.test_status_agent import HEALTHY, JUST_NOW, LONG_AGO, of, sample, says, status
from tests.unit.operator.test_status_agent import instance as beating

TWO = (pod("echo-1", ready=True, ready_since=LONG_AGO), pod("echo-2", ready=True, ready_since=LONG_AGO))


def scaled_down(plan: ReplicaPlan) -> AgentState:
    """Two pods, of which one is to go."""
    pods = replace(HEALTHY.pods, wanted=plan.wanted, kept=plan.kept, rollout=rollout(wanted=plan.kept), pods=TWO)
    queue = replace(HEALTHY.queue, sample=sample(beating("echo-1"), beating("echo-2", running=1)))
    return replace(HEALTHY, plan=plan, pods=pods, queue=queue)


def fact(**changes: Any) -> Any:
    return autoscaled_fact(**{"suspended": False, "trouble": None, "cold": False, "busy": False, **changes})


def test_an_agent_that_somebody_made_smaller_is_in_progress_until_it_is() -> None:
    made = of(scaled_down(ReplicaPlan(wanted=1, kept=2, verdict=deferred(["echo-2"]))))
    assert says(made, ConditionType.READY) == ("False", Reason.SCALING_DEFERRED_BUSY)
    assert says(made, ConditionType.AVAILABLE)[0] == "True"
    assert "echo-2" in made.verdict.message
    assert (made.fields["desiredReplicas"], made.fields["ready"]) == (1, "2/1")
    assert kstatus({"metadata": {"generation": 4}, "status": status(made)}) == "InProgress"


def test_one_whose_pods_are_not_known_to_be_busy_is_in_progress_too() -> None:
    made = of(scaled_down(ReplicaPlan(wanted=1, kept=2, verdict=deferred([]))))
    assert says(made, ConditionType.RECONCILING) == ("True", Reason.ROLLING_OUT)


def test_an_agent_that_the_operator_scales_down_stays_ready_and_says_what_it_waits_for() -> None:
    made = of(scaled_down(ReplicaPlan(wanted=1, kept=2, facts=(fact(busy=True),))))
    assert says(made, ConditionType.READY) == ("True", Reason.AVAILABLE)
    assert says(made, ConditionType.AUTOSCALED) == ("True", Reason.SCALING_DEFERRED_BUSY)


def test_a_start_from_zero_has_its_own_reason_but_what_is_wrong_with_a_pod_comes_first() -> None:
    plan = ReplicaPlan(wanted=1, kept=1, verdict=progressing(Reason.COLD_STARTING, "tasks wait"))
    starting = replace(HEALTHY.pods, rollout=rollout(ready=0), pods=(pod(created=JUST_NOW),))
    made = of(replace(HEALTHY, plan=plan, pods=starting))
    assert says(made, ConditionType.READY) == ("False", Reason.COLD_STARTING)
    stuck = replace(starting, pods=(pod(unschedulable="no node is large enough"),))
    made = of(replace(HEALTHY, plan=plan, pods=stuck))
    assert says(made, ConditionType.READY) == ("False", Reason.UNSCHEDULABLE)


@pytest.mark.parametrize(
    ("made", "status", "reason"),
    [
        (fact(), "True", Reason.AUTOSCALED),
        (fact(cold=True), "True", Reason.COLD_STARTING),
        (fact(busy=True), "True", Reason.SCALING_DEFERRED_BUSY),
        (fact(suspended=True), "False", Reason.SPEC_SUSPENDED),
        (fact(trouble=Trouble(Reason.REDIS_UNREACHABLE, "")), "False", Reason.REDIS_UNREACHABLE),
    ],
)
def test_the_condition_says_that_spec_replicas_is_not_used(made: Any, status: str, reason: Reason) -> None:
    assert (made.status, made.reason) == (status, reason)
    assert "spec.replicas is not used" in made.message


@pytest.mark.parametrize(
    ("before", "after", "autoscaled", "expected"),
    [
        (1, 3, True, ["ScalingUp"]),
        (3, 1, True, ["ScalingDown"]),
        (1, 0, True, ["ScaledToZero"]),
        (0, 2, True, ["ScalingUp"]),  # by a new minReplicas, or after spec.suspend
        (2, 2, True, []),
        (None, 2, True, []),
        # The Deployment's own Event tells of these.
        (1, 3, False, []),
        (0, 3, False, []),
        (3, 0, False, ["ScaledToZero"]),
    ],
)
def test_which_changes_of_the_replicas_are_news(
    before: int | None, after: int, autoscaled: bool, expected: list[str]
) -> None:
    facts = (fact(),) if autoscaled else ()
    state = replace(HEALTHY, plan=ReplicaPlan(wanted=after, kept=after, facts=facts))
    made = of(state, {**status(of(state)), "desiredReplicas": before})
    assert [reason for reason, _ in made.notes] == expected


def test_a_task_that_ends_a_sleep_is_news() -> None:
    plan = ReplicaPlan(wanted=2, kept=2, facts=(fact(cold=True),), why="9 tasks wait, 0 run")
    state = replace(HEALTHY, plan=plan)
    zero, one = ({**status(of(state)), "desiredReplicas": before} for before in (0, 1))
    assert of(state, zero).notes == (("Woken", "from no replicas to 2: 9 tasks wait, 0 run"),)
    assert of(state, one).notes == (("ScalingUp", "from 1 to 2 replicas: 9 tasks wait, 0 run"),)


def test_busy_pods_that_hold_up_a_scale_down_are_news_once() -> None:
    made = of(scaled_down(ReplicaPlan(wanted=1, kept=2, verdict=deferred(["echo-2"]))))
    ready = {**status(of(HEALTHY)), "desiredReplicas": 1}
    assert [one.reason for one in news(Previous(ready), made)] == ["ScaleDeferred"]
    assert [one.reason for one in news(Previous(status(made)), made)] == []
