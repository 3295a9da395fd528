# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeagents_api.agent import AgentStatus
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import InstanceInfo, QueueStats
from kubeagents_operator.consumption import Consumption
from kubeagents_operator.rollout.view import CanaryView
from kubeagents_operator.sampler import Sample, Trouble
from kubeagents_operator.scaling.plan import ReplicaPlan
from kubeagents_operator.status.agent import AgentState, awaits_sample, report
from kubeagents_operator.status.conditions import Phase, Previous, Report, progressing, stalled
from kubeagents_operator.status.workload import PodsState, QueueState
from tests.support.kstatus import kstatus
from tests.unit.operator.objects import TEMPLATE, container, pod, rollout

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LONG_AGO = "2026-01-01T11:00:00Z"
JUST_NOW = "2026-01-01T11:59:58Z"
STATS = QueueStats(queue="work", queued=0, running=0, scheduled=0, dead=0, succeeded_total=0, failed_total=0)


def instance(name: str, running: int = 0, agent: str = "echo") -> InstanceInfo:
    return InstanceInfo(
        agent=agent,
        instance=name,
        queue="work",
        version="1",
        concurrency=16,
        running=running,
        started_at=NOW,
        last_beat_at=NOW,
        healthy=True,
        claimed_at=NOW,
    )


def sample(*instances: InstanceInfo) -> Sample:
    return Sample(stats=STATS, instances=instances, healthy={15.0: frozenset(one.instance for one in instances)})


READY = pod("echo-1", ready=True, ready_since=LONG_AGO)
HEALTHY = AgentState(
    name="echo",
    obstacle=None,
    suspended=False,
    plan=ReplicaPlan(wanted=1, kept=1),
    pods=PodsState(wanted=1, selector="a=b", rollout=rollout(), template=TEMPLATE, pods=(READY,)),
    queue=QueueState("work", None, sample(instance("echo-1", running=3))),
    heartbeat_seconds=5.0,
    image="runtime:2",
    endpoint="http://echo-agent.shop.svc:8080",
)
UNREACHABLE = Trouble(Reason.REDIS_UNREACHABLE, "Redis does not answer")
MISSING = Trouble(Reason.DEPENDENCY_NOT_FOUND, "does not exist: create it")


def of(state: AgentState, before: dict[str, Any] | None = None) -> Report:
    return report(state, Previous(before or {}), now=NOW)


def status(made: Report, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The status as it is written."""
    conditions = Previous(before or {}).merged(made.facts, generation=4, now=NOW)
    fields = {name: value for name, value in made.fields.items() if value is not None}
    return {"observedGeneration": 4, "conditions": conditions, **fields}


def says(made: Report, type_: ConditionType) -> tuple[str, Reason]:
    return next((fact.status, fact.reason) for fact in made.facts if fact.type == type_)


def pods(**changes: Any) -> AgentState:
    return replace(HEALTHY, pods=replace(HEALTHY.pods, **changes))


def queue(trouble: Trouble | None = None, seen: Sample | None = None) -> AgentState:
    return replace(HEALTHY, queue=QueueState("work", trouble, seen))


def failing_pod(*, unschedulable: str | None = None, created: str = JUST_NOW, **problem: Any) -> AgentState:
    containers = (container(**problem),) if problem else ()
    one = pod("echo-1", unschedulable=unschedulable, created=created, containers=containers)
    return pods(rollout=rollout(ready=0), pods=(one,))


def without_queue(since: str) -> AgentState:
    """Redis does not answer, and so the pod is not ready."""
    unready = pods(rollout=rollout(ready=0), pods=(pod("echo-1", created=LONG_AGO, unready_since=since),))
    return replace(unready, queue=QueueState("work", None, Sample(trouble=UNREACHABLE)))


STUCK = replace(sample(instance("echo-1")), consumption=Consumption(unanswered={15.0: frozenset({"echo-1"})}))
NOT_GRANTED = Trouble(Reason.REFERENCE_NOT_GRANTED, "does not name us")
NO_SECRET = progressing(Reason.SECRET_NOT_FOUND, "does not exist")
RESTING = replace(
    pods(wanted=0, rollout=rollout(wanted=0), pods=()), suspended=True, plan=ReplicaPlan(wanted=0, kept=0)
)


@pytest.mark.parametrize(
    ("state", "expected", "reason"),
    [
        (HEALTHY, "Current", Reason.AVAILABLE),
        (pods(wanted=0, rollout=rollout(wanted=0), pods=()), "Current", Reason.SCALED_TO_ZERO),
        (pods(rollout=None, pods=()), "InProgress", Reason.ROLLING_OUT),
        (pods(rollout=rollout(ready=0)), "InProgress", Reason.ROLLING_OUT),
        (queue(trouble=MISSING), "InProgress", Reason.DEPENDENCY_NOT_FOUND),
        (queue(seen=Sample(trouble=UNREACHABLE)), "InProgress", Reason.REDIS_UNREACHABLE),
        (without_queue(JUST_NOW), "InProgress", Reason.REDIS_UNREACHABLE),
        (without_queue(LONG_AGO), "InProgress", Reason.REDIS_UNREACHABLE),
        (
            replace(
                failing_pod(waiting="ImagePullBackOff"), queue=QueueState("work", None, Sample(trouble=UNREACHABLE))
            ),
            "InProgress",
            Reason.IMAGE_PULL_FAILED,
        ),
        (queue(seen=sample()), "InProgress", Reason.HEARTBEAT_MISSED),
        (queue(seen=STUCK), "InProgress", Reason.CONSUMER_STALLED),
        (queue(trouble=NOT_GRANTED), "InProgress", Reason.REFERENCE_NOT_GRANTED),
        (replace(HEALTHY, obstacle=NO_SECRET), "InProgress", Reason.SECRET_NOT_FOUND),
        (replace(HEALTHY, obstacle=stalled(Reason.QUOTA_EXCEEDED, "quota")), "Failed", Reason.QUOTA_EXCEEDED),
        (failing_pod(unschedulable="no node"), "InProgress", Reason.UNSCHEDULABLE),
        (failing_pod(unschedulable="no node", created=LONG_AGO), "Failed", Reason.UNSCHEDULABLE),
        (failing_pod(waiting="ImagePullBackOff"), "InProgress", Reason.IMAGE_PULL_FAILED),
        (failing_pod(waiting="ImagePullBackOff", created=LONG_AGO), "Failed", Reason.IMAGE_PULL_FAILED),
        (failing_pod(waiting="CrashLoopBackOff", restarts=9), "Failed", Reason.CRASH_LOOP),
        (failing_pod(waiting="CreateContainerConfigError"), "InProgress", Reason.CONTAINER_CONFIG_INVALID),
        (RESTING, "Current", Reason.SPEC_SUSPENDED),
        (replace(HEALTHY, obstacle=stalled(Reason.CREATE_FORBIDDEN, "quota")), "Failed", Reason.CREATE_FORBIDDEN),
        (
            pods(rollout=rollout(ready=0, conditions={"Progressing": ("False", "ProgressDeadlineExceeded", "")})),
            "Failed",
            Reason.PROGRESS_DEADLINE_EXCEEDED,
        ),
    ],
)
def test_tools_read_the_state_from_the_status(state: AgentState, expected: str, reason: Reason) -> None:
    made = of(state)
    written = status(made)

    AgentStatus.model_validate(written)  # nothing in it that the CRD does not know
    assert kstatus({"metadata": {"generation": 4}, "status": written}) == expected
    assert kstatus({"metadata": {"generation": 5}, "status": written}) == "InProgress"
    assert made.verdict.reason == reason
    true = {fact.type for fact in made.facts if fact.status == "True"}
    assert len(true & {ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED}) == 1


def test_the_scale_subresource_and_the_columns_are_always_filled() -> None:
    state = replace(pods(wanted=3, rollout=rollout(wanted=3, ready=2)), plan=ReplicaPlan(wanted=3, kept=3))
    assert of(state).fields == {
        "desiredReplicas": 3,
        "replicas": 3,
        "readyReplicas": 2,
        "ready": "2/3",
        "selector": "a=b",
        "running": 3,
        "endpoint": "http://echo-agent.shop.svc:8080",
        "version": None,
    }
    nothing_yet = of(pods(rollout=None, pods=())).fields
    assert (nothing_yet["replicas"], nothing_yet["readyReplicas"], nothing_yet["ready"]) == (0, 0, "0/1")


def test_the_version_is_that_of_the_pods_not_that_of_the_spec() -> None:
    assert of(HEALTHY).fields["version"] == "runtime:2"
    assert of(pods(rollout=rollout(ready=0)), {"version": "runtime:1"}).fields["version"] == "runtime:1"


def test_it_stays_available_while_an_old_version_serves() -> None:
    state = pods(rollout=rollout(replicas=2, updated=1, ready=1))

    assert says(of(state), ConditionType.AVAILABLE) == ("True", Reason.AVAILABLE)
    assert says(of(state), ConditionType.READY) == ("False", Reason.ROLLING_OUT)


def test_scaled_to_zero() -> None:
    made = of(pods(wanted=0, rollout=rollout(wanted=0), pods=()))

    assert says(made, ConditionType.SCALED_TO_ZERO) == ("True", Reason.SCALED_TO_ZERO)
    assert says(made, ConditionType.AVAILABLE) == ("True", Reason.SCALED_TO_ZERO)
    assert says(made, ConditionType.HEARTBEAT_HEALTHY) == ("Unknown", Reason.NOT_REQUIRED)


def test_a_pod_that_is_ready_but_silent_is_named() -> None:
    made = of(queue(seen=sample()))
    fact = next(fact for fact in made.facts if fact.type == ConditionType.HEARTBEAT_HEALTHY)

    assert (fact.status, fact.reason) == ("False", Reason.HEARTBEAT_MISSED)
    assert "echo-1" in fact.message


def test_a_pod_that_has_just_become_ready_may_take_its_time_for_the_first_heartbeat() -> None:
    fresh = replace(READY, ready_since=JUST_NOW)
    state = replace(queue(seen=sample()), pods=replace(HEALTHY.pods, pods=(fresh,)))
    new, known = of(state), of(state, status(of(HEALTHY)))

    assert says(new, ConditionType.HEARTBEAT_HEALTHY)[0] == "Unknown"
    assert says(new, ConditionType.READY) == ("False", Reason.ROLLING_OUT), "nothing is proven yet"
    assert says(known, ConditionType.READY)[0] == "True", "what was ready stays so"
    assert new.again == known.again == pytest.approx(15 + 30 - 2 + 1)


def test_a_pod_that_has_become_ready_after_the_sample_is_worth_another_one() -> None:
    fresh = replace(READY, ready_since=JUST_NOW)
    seen = replace(sample(), at=NOW - timedelta(seconds=3))
    state = replace(queue(seen=seen), pods=replace(HEALTHY.pods, pods=(fresh,)))

    assert awaits_sample(state, now=NOW)
    assert not awaits_sample(replace(state, queue=QueueState("work", None, replace(seen, at=NOW))), now=NOW)
    assert not awaits_sample(replace(state, queue=QueueState("work", None, replace(seen, instances=MINE))), now=NOW)


@pytest.mark.parametrize(("young", "age", "awaited"), [(True, 3, True), (True, 1, False), (False, 14, False)])
def test_a_step_of_a_canary_that_has_just_begun_is_worth_another_sample(young: bool, age: int, awaited: bool) -> None:
    state = queue(seen=replace(sample(), at=NOW - timedelta(seconds=age)))

    assert awaits_sample(replace(state, canary=CanaryView(None, None, young=young)), now=NOW) is awaited


MINE = (instance("echo-1"),)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Consumption(unanswered={15.0: frozenset({"echo-1"})}), "has not answered a claim of echo-1"),
        (Consumption(idle=frozenset({"echo-1"})), "tasks wait that echo-1 takes"),
    ],
)
def test_a_pod_that_beats_but_takes_nothing_is_a_stalled_consumer(seen: Consumption, words: str) -> None:
    made = of(queue(seen=replace(sample(*MINE), consumption=seen)))
    consuming = next(one for one in made.facts if one.type == ConditionType.CONSUMING)

    assert (consuming.status, consuming.reason) == ("False", Reason.CONSUMER_STALLED)
    assert words in consuming.message
    assert says(made, ConditionType.HEARTBEAT_HEALTHY)[0] == "True"
    assert says(made, ConditionType.READY) == ("False", Reason.CONSUMER_STALLED)


def test_claims_are_late_by_the_agents_own_heartbeats() -> None:
    made = of(queue(seen=replace(sample(*MINE), consumption=Consumption(unanswered={9.0: frozenset({"echo-1"})}))))

    assert says(made, ConditionType.CONSUMING)[0] == "True"


def test_a_stalled_consumer_stays_so_over_a_restart_of_the_operator_until_it_is_seen_to_claim() -> None:
    stuck = Consumption(unanswered={15.0: frozenset({"echo-1"})})
    before = status(of(queue(seen=replace(sample(*MINE), consumption=stuck))))
    unproven = replace(sample(*MINE), consumption=Consumption(unproven=frozenset({"echo-1"})))

    assert says(of(queue(seen=unproven), before), ConditionType.CONSUMING) == ("False", Reason.CONSUMER_STALLED)
    assert says(of(queue(seen=unproven), status(of(HEALTHY))), ConditionType.CONSUMING)[0] == "True"
    assert says(of(HEALTHY, before), ConditionType.CONSUMING)[0] == "True"


def test_after_redis_was_away_it_is_ready_again_when_claims_are_answered() -> None:
    away = status(of(queue(seen=Sample(trouble=UNREACHABLE))))
    unproven = replace(sample(*MINE), consumption=Consumption(unproven=frozenset({"echo-1"})))

    assert says(of(queue(seen=unproven), away), ConditionType.READY) == ("False", Reason.ROLLING_OUT)
    assert says(of(HEALTHY, away), ConditionType.READY)[0] == "True"


def test_an_agent_that_has_never_claimed_is_not_ready_yet() -> None:
    seen = sample(instance("echo-1").model_copy(update={"claimed_at": None}))

    assert says(of(queue(seen=seen)), ConditionType.CONSUMING)[0] == "Unknown"
    assert says(of(queue(seen=seen)), ConditionType.READY) == ("False", Reason.ROLLING_OUT)


def test_an_agent_of_before_there_was_this_condition_stays_ready_over_the_upgrade() -> None:
    before = status(of(HEALTHY))
    before["conditions"] = [one for one in before["conditions"] if one["type"] != "Consuming"]

    assert says(of(queue(seen=None), before), ConditionType.READY)[0] == "True"


@pytest.mark.parametrize("seen", [sample(instance("echo-1")), sample(), Sample(trouble=UNREACHABLE)])
def test_what_is_not_known_yet_after_a_restart_stays_as_it_was(seen: Sample) -> None:
    before = status(of(queue(seen=seen)))

    assert status(of(queue(seen=None), before), before) == before


def test_a_queue_that_has_appeared_is_not_missing_any_more_before_it_was_asked() -> None:
    before = status(of(queue(trouble=MISSING)))

    made = of(queue(seen=None), before)

    assert says(made, ConditionType.QUEUE_CONNECTED) == ("Unknown", Reason.DEPENDENCY_NOT_READY)
    assert says(made, ConditionType.READY) == ("False", Reason.ROLLING_OUT)


def test_running_tasks_are_those_of_its_own_pods() -> None:
    seen = sample(instance("echo-1", running=2), instance("other-1", running=9, agent="other"))

    assert of(queue(seen=seen)).fields["running"] == 2
    assert of(queue(seen=Sample(trouble=UNREACHABLE))).fields["running"] is None


FOR_LONG = {"lastTransitionTime": LONG_AGO, "observedGeneration": 1, "message": ""}


@pytest.mark.parametrize(
    ("state", "condition", "reason"),
    [
        (queue(trouble=MISSING), "Ready", Reason.DEPENDENCY_NOT_FOUND),
        (queue(trouble=MISSING), "QueueConnected", Reason.DEPENDENCY_NOT_FOUND),
        (queue(seen=Sample(trouble=UNREACHABLE)), "QueueConnected", Reason.REDIS_UNREACHABLE),
        (queue(seen=sample()), "HeartbeatHealthy", Reason.HEARTBEAT_MISSED),
    ],
)
def test_what_does_not_heal_is_stalled_after_the_deadline_without_any_event(
    state: AgentState, condition: str, reason: Reason
) -> None:
    if condition == "Ready":
        state = replace(state, obstacle=progressing(reason, "is missing"))
    first = of(state)
    late = of(state, {"conditions": [{"type": condition, "status": "False", "reason": "Any", **FOR_LONG}]})

    assert (first.verdict.phase, first.verdict.reason) == (Phase.PROGRESSING, reason)
    assert first.again == pytest.approx(301), "when nothing happens it looks again by itself"
    assert (late.verdict.phase, late.verdict.reason) == (Phase.STALLED, reason)


def test_the_cause_is_stalled_not_the_symptom() -> None:
    state = without_queue(LONG_AGO)
    late = {"Progressing": ("False", "ProgressDeadlineExceeded", "")}
    for rollouts in (rollout(ready=0), rollout(ready=0, conditions=late)):
        lost = replace(state, pods=replace(state.pods, rollout=rollouts))
        before = status(of(lost))
        for condition in before["conditions"]:
            condition["lastTransitionTime"] = LONG_AGO
        assert of(lost).verdict.phase is Phase.PROGRESSING, "it has just been lost"
        made = of(lost, before)
        assert (made.verdict.phase, made.verdict.reason) == (Phase.STALLED, Reason.REDIS_UNREACHABLE)


@pytest.mark.parametrize(
    ("stalled_by", "generation", "phase"),
    [
        (Reason.SECRET_NOT_FOUND, 4, Phase.STALLED),
        (Reason.SECRET_NOT_FOUND, 5, Phase.PROGRESSING),  # the spec has changed since
        (Reason.DEPENDENCY_NOT_FOUND, 4, Phase.PROGRESSING),  # which has come
    ],
)
def test_what_was_stalled_has_its_whole_deadline_for_another_spec_and_for_another_reason(
    stalled_by: Reason, generation: int, phase: Phase
) -> None:
    state = replace(HEALTHY, obstacle=NO_SECRET)
    before = status(of(replace(state, obstacle=stalled(stalled_by, "is missing"))))
    for condition in before["conditions"]:
        condition["lastTransitionTime"] = LONG_AGO
    made = report(state, Previous(before, generation=generation), now=NOW)
    assert made.verdict.phase is phase

    on_its_way = status(made, before)
    following = report(state, Previous(on_its_way, generation=4), now=NOW)
    assert following.verdict.phase is phase, "and goes on having it"


def test_the_arrival_of_what_was_missing_ends_stalled_at_once() -> None:
    stalled_before = {"conditions": [{"type": "Ready", "status": "False", "reason": "DependencyNotFound", **FOR_LONG}]}

    assert of(pods(rollout=rollout(ready=0)), stalled_before).verdict.phase is Phase.PROGRESSING
    assert of(HEALTHY, stalled_before).verdict.phase is Phase.CURRENT


def test_a_transition_changes_its_time_and_nothing_else_does() -> None:
    before = status(of(HEALTHY))
    for condition in before["conditions"]:
        condition["lastTransitionTime"] = LONG_AGO

    after = {one["type"]: one for one in status(of(queue(seen=Sample(trouble=UNREACHABLE))), before)["conditions"]}

    assert after["Ready"]["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert after["QueueConnected"]["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert after["Available"]["lastTransitionTime"] == LONG_AGO
    assert after["Stalled"]["lastTransitionTime"] == LONG_AGO


def test_what_is_suspended_is_at_rest_once_its_pods_have_gone() -> None:
    resting = replace(
        pods(wanted=0, rollout=rollout(wanted=0), pods=()), suspended=True, plan=ReplicaPlan(wanted=0, kept=0)
    )

    assert says(of(resting), ConditionType.SUSPENDED) == ("True", Reason.SPEC_SUSPENDED)
    assert says(of(resting), ConditionType.READY) == ("True", Reason.SPEC_SUSPENDED)


def test_a_restart_that_was_asked_for_is_echoed_and_remembered() -> None:
    assert status(of(replace(HEALTHY, restarted_at="noon")))["handled"] == {"restartedAt": "noon"}
    assert status(of(HEALTHY, {"handled": {"restartedAt": "noon"}}))["handled"] == {"restartedAt": "noon"}
