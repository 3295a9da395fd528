# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubeagents_api.central_agent import CentralAgentStatus
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import QueueStats
from kubeagents_operator.observed import Lease
from kubeagents_operator.sampler import Sample, Trouble
from kubeagents_operator.status.central_agent import CentralAgentState, report
from kubeagents_operator.status.conditions import Previous, Report
from kubeagents_operator.status.workload import PodsState, QueueState
from tests.support.kstatus import kstatus
from tests.unit.operator.objects import TEMPLATE, pod, rollout
from tests.unit.operator.test_status_agent import instance

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
CLOCK = 1000.0
STATS = QueueStats(queue="work", queued=0, running=0, scheduled=0, dead=0, succeeded_total=0, failed_total=0)
SAMPLE = Sample(
    stats=STATS,
    instances=(instance("echo-1"), instance("echo-2"), instance("echo-3")),
    healthy={20.0: frozenset({"echo-1", "echo-2"})},
)
HELD = Lease(
    version=1,
    holder="hub-1",
    transitions=3,
    duration=15.0,
    renewed="2026-01-01T11:59:58.123456Z",
    changed_at=CLOCK - 2,
    confirmed=True,
    asked=None,
)
VACANT = replace(HELD, holder="", duration=1.0)
HEALTHY = CentralAgentState(
    obstacle=None,
    suspended=False,
    pods=PodsState(wanted=1, selector="a=b", rollout=rollout(), template=TEMPLATE, pods=(pod("hub-1", ready=True),)),
    queues=[QueueState("work", None, SAMPLE)],
    lease=HELD,
    lease_duration=15.0,
    agent_timeout=20.0,
    endpoint="http://hub-central.shop.svc",
)


def of(state: CentralAgentState, before: dict[str, Any] | None = None) -> Report:
    return report(state, Previous(before or {}), now=NOW, clock=CLOCK)


def status(made: Report, before: dict[str, Any] | None = None) -> dict[str, Any]:
    conditions = Previous(before or {}).merged(made.facts, generation=1, now=NOW)
    fields = {name: value for name, value in made.fields.items() if value is not None}
    return {"observedGeneration": 1, "conditions": conditions, **fields}


def says(made: Report, type_: ConditionType) -> tuple[str, Reason]:
    return next((fact.status, fact.reason) for fact in made.facts if fact.type == type_)


READY_BEFORE = status(of(HEALTHY))


@pytest.mark.parametrize(
    ("state", "before", "expected", "reason"),
    [
        (HEALTHY, {}, "Current", Reason.AVAILABLE),
        (replace(HEALTHY, lease=None), {}, "InProgress", Reason.LEASE_EXPIRED),
        (replace(HEALTHY, lease=VACANT), {}, "InProgress", Reason.LEASE_EXPIRED),
        (replace(HEALTHY, lease=VACANT), READY_BEFORE, "Current", Reason.AVAILABLE),
        (
            replace(HEALTHY, lease=replace(VACANT, changed_at=CLOCK - 20)),
            READY_BEFORE,
            "InProgress",
            Reason.LEASE_EXPIRED,
        ),
        (
            replace(HEALTHY, lease=replace(HELD, changed_at=CLOCK - 16)),
            READY_BEFORE,
            "InProgress",
            Reason.LEASE_EXPIRED,
        ),
        (
            replace(HEALTHY, queues=[QueueState("work", Trouble(Reason.DEPENDENCY_NOT_FOUND, "does not exist"), None)]),
            {},
            "InProgress",
            Reason.DEPENDENCY_NOT_FOUND,
        ),
        (
            replace(
                HEALTHY,
                lease=None,
                pods=replace(HEALTHY.pods, wanted=0, rollout=rollout(wanted=0), pods=()),
            ),
            {},
            "Current",
            Reason.SCALED_TO_ZERO,
        ),
    ],
    ids=[
        "healthy",
        "no lease",
        "not elected yet",
        "handed over just now",
        "handed over and not taken",
        "not renewed",
        "a queue is missing",
        "scaled to zero",
    ],
)
def test_tools_read_the_state_from_the_status(
    state: CentralAgentState, before: dict[str, Any], expected: str, reason: Reason
) -> None:
    made = of(state, before)
    written = status(made, before)

    CentralAgentStatus.model_validate(written)
    assert kstatus({"metadata": {"generation": 1}, "status": written}) == expected
    assert made.verdict.reason == reason


def test_the_columns() -> None:
    assert of(HEALTHY).fields == {
        "replicas": 1,
        "readyReplicas": 1,
        "ready": "1/1",
        "selector": "a=b",
        "leader": "hub-1",
        "leaseTransitions": 3,
        "leaseRenewTime": "2026-01-01T11:59:58Z",
        "agents": "2/3",
        "endpoint": "http://hub-central.shop.svc",
    }


def test_a_leader_that_does_not_renew_is_no_leader() -> None:
    made = of(replace(HEALTHY, lease=replace(HELD, changed_at=CLOCK - 16)))

    assert made.fields["leader"] is None
    assert says(made, ConditionType.LEADER_ELECTED) == ("False", Reason.LEASE_EXPIRED)


def test_it_looks_again_when_the_lease_would_run_out() -> None:
    assert of(HEALTHY).again == pytest.approx(13.5)


def test_a_lease_that_was_not_seen_to_change_proves_nothing() -> None:
    """After a restart of the operator, a Lease that expired long ago looks like a fresh one."""
    expired = replace(HEALTHY, lease=replace(HELD, changed_at=CLOCK - 16))
    before = status(of(expired))

    made = of(replace(HEALTHY, lease=replace(HELD, changed_at=CLOCK, confirmed=False)), before)

    assert says(made, ConditionType.LEADER_ELECTED) == ("False", Reason.LEASE_EXPIRED)
    assert made.fields["leader"] is None


@pytest.mark.parametrize(
    ("before", "holder", "expected"),
    [
        ("2026-01-01T11:59:40Z", "hub-1", "2026-01-01T11:59:40Z"),
        ("2026-01-01T11:59:20Z", "hub-1", "2026-01-01T11:59:58Z"),
        ("2026-01-01T11:59:40Z", "hub-0", "2026-01-01T11:59:58Z"),
    ],
    ids=["young enough", "half a minute old", "of another leader"],
)
def test_the_renew_time_follows_the_lease_at_a_slow_pace(before: str, holder: str, expected: str) -> None:
    made = of(HEALTHY, {"leaseRenewTime": before, "leader": holder})

    assert made.fields["leaseRenewTime"] == expected


def test_agents_of_all_queues_are_counted() -> None:
    queues = [QueueState("work", None, SAMPLE), QueueState("mail", None, SAMPLE)]

    assert of(replace(HEALTHY, queues=queues)).fields["agents"] == "4/6"
    assert of(replace(HEALTHY, queues=[QueueState("work", None, None)]), {"agents": "1/2"}).fields["agents"] == "1/2"
