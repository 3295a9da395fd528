# SPDX-License-Identifier: Apache-2.0
"""What one Agent has to do, and which tasks are in whose share."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kubeagents_api.task import InstanceInfo, QueueStats
from kubeagents_operator.scaling.demand import Demand, Taker, demand_of

THEN = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
ALPHA, BETA = Taker("shop", "alpha"), Taker("shop", "beta")
OCR = Taker("shop", "ocr-agent", frozenset({"ocr"}))


def stats(**fields: Any) -> QueueStats:
    nothing = {"queued": 0, "running": 0, "scheduled": 0, "dead": 0, "succeeded_total": 0, "failed_total": 0}
    return QueueStats(**{"queue": "work", **nothing, **fields})


def instance(name: str, *, running: int = 0, **fields: Any) -> InstanceInfo:
    values: dict[str, Any] = {
        "agent": "alpha",
        "instance": name,
        "queue": "work",
        "version": "1",
        "concurrency": 4,
        "running": running,
        "started_at": THEN,
        "last_beat_at": THEN,
        "healthy": True,
        **fields,
    }
    return InstanceInfo(**values)


def demand(
    me: Taker = ALPHA, *others: Taker, pods: tuple[str, ...] = (), instances: tuple[InstanceInfo, ...] = (), **seen: Any
) -> Demand:
    return demand_of(me, takers=others, pods=frozenset(pods), stats=stats(**seen), instances=instances)


@pytest.mark.parametrize(
    ("me", "waiting", "share", "reach"),
    [
        (ALPHA, {}, 0, 0),
        (ALPHA, {"agent/alpha": 3, "agent/beta": 9}, 3, 3),
        (ALPHA, {"capability/ocr": 3}, 0, 0),
        (OCR, {"capability/ocr": 3}, 3, 3),
        (ALPHA, {"": 7}, 3, 7),
        (BETA, {"": 7}, 2, 7),
        (OCR, {"": 7}, 2, 7),
        (ALPHA, {"": 1}, 1, 1),
        (BETA, {"": 1}, 0, 1),
        (ALPHA, {"instance/alpha-1": 2, "instance/beta-1": 5}, 2, 2),
    ],
)
def test_a_task_that_several_take_is_in_the_share_of_one(
    me: Taker, waiting: dict[str, int], share: int, reach: int
) -> None:
    found = demand(me, ALPHA, BETA, OCR, pods=("alpha-1",), waiting=waiting)
    assert (found.waiting, found.within_reach) == (share, reach)


def test_shares_of_all_agents_are_all_tasks() -> None:
    takers = [ALPHA, BETA, OCR]
    assert [sum(demand(me, *takers, waiting={"": n}).waiting for me in takers) for n in range(7)] == list(range(7))


def test_agents_of_the_same_name_in_two_namespaces_share_what_names_them() -> None:
    twin = Taker("zoo", "alpha")
    assert demand(ALPHA, twin, waiting={"agent/alpha": 3}).waiting == 2
    assert demand(twin, ALPHA, waiting={"agent/alpha": 3}).waiting == 1


def test_an_agent_that_is_not_among_the_takers_still_sees_its_own_tasks() -> None:
    assert demand(ALPHA, BETA, waiting={"agent/alpha": 2}).waiting == 2


def test_what_runs_and_the_slots_are_those_of_its_own_pods() -> None:
    instances = (
        instance("alpha-1", running=3),
        instance("alpha-2", running=1, cordoned_by=["operator"]),
        instance("alpha-3", draining=True),
        instance("alpha-4", running=2, healthy=False),
        instance("of-another-namespace", running=4),
    )
    found = demand(pods=("alpha-1", "alpha-2", "alpha-3", "alpha-4"), instances=instances, running=10)
    assert (found.running, found.slots) == (6, 4)
    assert found.utilization == pytest.approx(1.5)
    assert demand().utilization == 1, "without slots none is free"


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("", None), ("agent/beta", None), ("agent/alpha", THEN), ("any agent/beta", LATER), ("any agent/alpha", THEN)],
)
def test_the_age_of_a_task_counts_for_those_who_can_take_it(targets: str, expected: datetime | None) -> None:
    since = {target: THEN for target in targets.split()}
    if since.pop("any", None):
        since[""] = LATER
    seen = demand(ALPHA, BETA, waiting=dict.fromkeys(since, 1), waiting_since=since, oldest_at=THEN)
    assert seen.oldest_at == expected


@pytest.mark.parametrize(("most", "running", "expected"), [(None, 0, 9), (20, 4, 9), (10, 4, 6), (4, 4, 1), (4, 9, 1)])
def test_tasks_that_the_limit_of_the_queue_does_not_let_start_are_no_reason_for_a_replica(
    most: int | None, running: int, expected: int
) -> None:
    found = demand_of(
        ALPHA, takers=(), pods=frozenset(), stats=stats(waiting={"": 9}, running=running), instances=(), most=most
    )
    assert (found.waiting, found.within_reach) == (expected, 9)


def test_an_agent_without_a_share_and_without_running_tasks_is_idle() -> None:
    assert demand(BETA, ALPHA, waiting={"": 1}).is_idle()
    assert not demand(ALPHA, BETA, waiting={"": 1}).is_idle()
    assert not demand(pods=("alpha-1",), instances=(instance("alpha-1", running=1),), running=1).is_idle()


def test_a_task_that_begins_while_the_sample_is_taken_counts_once() -> None:
    found = demand(pods=("alpha-1",), instances=(instance("alpha-1", running=1),), waiting={"": 1}, running=0)
    assert (found.waiting, found.running) == (1, 0)


def test_a_paused_queue_says_so() -> None:
    assert demand(paused_by=["spec"]).paused


def test_a_task_of_which_no_heartbeat_has_told_yet_counts_where_it_can_only_be_ours() -> None:
    instances = (instance("alpha-1", running=1),)
    seen = stats(running=3)
    found = [
        demand_of(ALPHA, takers=[BETA], pods=frozenset(pods), stats=seen, instances=known, alone=alone)
        for pods, known, alone in [({"alpha-1"}, instances, True), ({"alpha-1"}, instances, False), (set(), (), True)]
    ]
    assert [one.running for one in found] == [3, 1, 0]
