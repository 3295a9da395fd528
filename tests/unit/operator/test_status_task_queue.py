# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_runtime.queue import StorageInfo
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import QueueStats
from kubeagents_api.task_queue import TaskQueueStatus
from kubeagents_operator.sampler import Sample, Trouble
from kubeagents_operator.status.conditions import Phase, Previous, Report, format_time, stalled
from kubeagents_operator.status.task_queue import (
    START_DEADLINE,
    UNREACHABLE_DEADLINE,
    ManagedState,
    TaskQueueState,
    report,
)
from tests.support.kstatus import kstatus
from tests.unit.operator.objects import TEMPLATE, container, pod, rollout

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STORAGE = StorageInfo(server="redis 8.2.1", eviction_policy="noeviction", append_only=True, latency_ms=0.3)


def stats(**figures: Any) -> QueueStats:
    return QueueStats(
        **{
            "queue": "work",
            "queued": 0,
            "running": 0,
            "scheduled": 0,
            "dead": 0,
            "succeeded_total": 0,
            "failed_total": 0,
            **figures,
        }
    )


def sample(*, storage: StorageInfo = STORAGE, **figures: Any) -> Sample:
    return Sample(stats=stats(**figures), storage=storage)


def trouble(reason: Reason) -> Sample:
    return Sample(trouble=Trouble(reason, "what is wrong"))


def not_ready_for(seconds: float) -> dict[str, Any]:
    since = format_time(NOW - timedelta(seconds=seconds))
    condition = {"type": "Ready", "status": "False", "reason": "RollingOut", "lastTransitionTime": since}
    return {"conditions": [condition]}


RUNNING = ManagedState(rollout(), TEMPLATE, (pod("work-redis-0", ready=True),))
STARTING = ManagedState(rollout(ready=0), TEMPLATE, (pod("work-redis-0"),))
PULLING = ManagedState(
    rollout(ready=0), TEMPLATE, (pod("work-redis-0", containers=(container(waiting="ImagePullBackOff"),)),)
)
MANAGED = TaskQueueState(obstacle=None, managed=RUNNING, sample=sample())
EXTERNAL = replace(MANAGED, managed=None)


def of(state: TaskQueueState, before: dict[str, Any] | None = None) -> Report:
    return report(state, Previous(before or {}), now=NOW)


def says(made: Report, type_: ConditionType) -> tuple[str, Reason]:
    return next((fact.status, fact.reason) for fact in made.facts if fact.type == type_)


NEW: dict[str, Any] = {}
LATE_START = not_ready_for(START_DEADLINE + 1)
LONG_UNREACHABLE = not_ready_for(UNREACHABLE_DEADLINE + 1)


@pytest.mark.parametrize(
    ("state", "before", "expected", "reason"),
    [
        (MANAGED, NEW, "Current", Reason.AVAILABLE),
        (EXTERNAL, NEW, "Current", Reason.AVAILABLE),
        (replace(MANAGED, managed=STARTING), NEW, "InProgress", Reason.ROLLING_OUT),
        (replace(MANAGED, managed=STARTING), LATE_START, "Failed", Reason.PROGRESS_DEADLINE_EXCEEDED),
        (replace(MANAGED, managed=PULLING), NEW, "InProgress", Reason.IMAGE_PULL_FAILED),
        (replace(MANAGED, managed=PULLING), LATE_START, "Failed", Reason.IMAGE_PULL_FAILED),
        (replace(MANAGED, sample=None), NEW, "InProgress", Reason.ROLLING_OUT),
        (replace(MANAGED, sample=trouble(Reason.REDIS_UNREACHABLE)), NEW, "InProgress", Reason.REDIS_UNREACHABLE),
        (replace(EXTERNAL, sample=trouble(Reason.REDIS_UNREACHABLE)), NEW, "InProgress", Reason.REDIS_UNREACHABLE),
        (
            replace(EXTERNAL, sample=trouble(Reason.REDIS_UNREACHABLE)),
            LONG_UNREACHABLE,
            "Failed",
            Reason.REDIS_UNREACHABLE,
        ),
        (replace(EXTERNAL, sample=trouble(Reason.REDIS_AUTH_FAILED)), NEW, "Failed", Reason.REDIS_AUTH_FAILED),
        (replace(MANAGED, sample=trouble(Reason.REDIS_AUTH_FAILED)), NEW, "InProgress", Reason.REDIS_AUTH_FAILED),
        (replace(EXTERNAL, sample=trouble(Reason.REDIS_URL_INVALID)), NEW, "Failed", Reason.REDIS_URL_INVALID),
        (replace(MANAGED, fault="bad cron"), NEW, "Failed", Reason.INVALID_SPEC),
        (replace(MANAGED, fault="bad cron", sample=None), NEW, "Failed", Reason.INVALID_SPEC),
        (replace(MANAGED, fault="bad cron", managed=STARTING), NEW, "InProgress", Reason.ROLLING_OUT),
        (
            replace(EXTERNAL, fault="bad cron", sample=trouble(Reason.REDIS_UNREACHABLE)),
            NEW,
            "InProgress",
            Reason.REDIS_UNREACHABLE,
        ),
        (
            replace(EXTERNAL, sample=None, obstacle=stalled(Reason.SECRET_NOT_FOUND, "no Secret")),
            NEW,
            "Failed",
            Reason.SECRET_NOT_FOUND,
        ),
    ],
)
def test_tools_read_the_state_from_the_status(
    state: TaskQueueState, before: dict[str, Any], expected: str, reason: Reason
) -> None:
    made = of(state, before)
    written = {
        "observedGeneration": 2,
        "conditions": Previous(before).merged(made.facts, generation=2, now=NOW),
        **{name: value for name, value in made.fields.items() if value is not None},
    }

    TaskQueueStatus.model_validate(written)
    assert kstatus({"metadata": {"generation": 2}, "status": written}) == expected
    assert made.verdict.reason == reason


def test_the_columns() -> None:
    oldest = datetime(2026, 1, 1, 11, 59, 30, 500000, tzinfo=UTC)
    figures = sample(queued=4, running=3, scheduled=2, blocked=6, dead=1, oldest_at=oldest)
    made = of(replace(MANAGED, sample=figures, unroutable={"agent/billing": 2, "capability/ocr": 3}))

    assert made.fields == {
        "depth": 4,
        "running": 3,
        "scheduled": 2,
        "blocked": 6,
        "unroutable": 5,
        "dead": 1,
        "oldestTaskTime": "2026-01-01T11:59:30Z",
        "consumers": 0,
        "backend": "managed redis 8.2.1",
    }


@pytest.mark.parametrize(
    ("figures", "drained", "dead"),
    [
        ({}, ("True", Reason.EMPTY), ("False", Reason.NO_DEAD_TASKS)),
        ({"queued": 1}, ("False", Reason.TASKS_PENDING), ("False", Reason.NO_DEAD_TASKS)),
        ({"running": 1}, ("False", Reason.TASKS_PENDING), ("False", Reason.NO_DEAD_TASKS)),
        ({"scheduled": 1}, ("False", Reason.TASKS_PENDING), ("False", Reason.NO_DEAD_TASKS)),
        ({"blocked": 1}, ("False", Reason.TASKS_PENDING), ("False", Reason.NO_DEAD_TASKS)),
        ({"dead": 1}, ("True", Reason.EMPTY), ("True", Reason.DEAD_TASKS)),
    ],
)
def test_drained_and_dead_lettering(
    figures: dict[str, Any], drained: tuple[str, Reason], dead: tuple[str, Reason]
) -> None:
    made = of(replace(MANAGED, sample=sample(**figures)))

    assert says(made, ConditionType.DRAINED) == drained
    assert says(made, ConditionType.DEAD_LETTERING) == dead
    assert says(made, ConditionType.ACCEPTING) == ("True", Reason.AVAILABLE)


@pytest.mark.parametrize(
    ("figures", "ready", "suspended", "accepting"),
    [
        ({}, Reason.AVAILABLE, ("False", Reason.ACTIVE), ("True", Reason.AVAILABLE)),
        ({"paused_by": ["spec"]}, Reason.PAUSED, ("True", Reason.PAUSED), ("True", Reason.AVAILABLE)),
        ({"paused_by": ["ann"]}, Reason.PAUSED, ("True", Reason.PAUSED), ("True", Reason.AVAILABLE)),
        ({"closed_by": ["spec"]}, Reason.CLOSED, ("False", Reason.ACTIVE), ("False", Reason.CLOSED)),
        (
            {"paused_by": ["spec"], "closed_by": ["ann"]},
            Reason.PAUSED,
            ("True", Reason.PAUSED),
            ("False", Reason.CLOSED),
        ),
        ({"queued": 3, "blocked": 4, "scheduled": 2}, Reason.AVAILABLE, ("False", Reason.ACTIVE), ("True", None)),
        ({"queued": 3, "blocked": 4, "scheduled": 3}, Reason.AVAILABLE, ("False", Reason.ACTIVE), ("False", None)),
    ],
)
def test_who_shuts_a_queue_finds_it_in_order_and_everybody_is_told(
    figures: dict[str, Any], ready: Reason, suspended: tuple[str, Reason], accepting: tuple[str, Reason | None]
) -> None:
    made = of(replace(MANAGED, sample=sample(**figures), max_depth=10))

    assert (made.verdict.phase, made.verdict.reason) == (Phase.CURRENT, ready)
    assert says(made, ConditionType.SUSPENDED) == suspended
    status, reason = accepting
    expected = reason or (Reason.AVAILABLE if status == "True" else Reason.QUEUE_FULL)
    assert says(made, ConditionType.ACCEPTING) == (status, expected)


def test_a_pause_names_everybody_whose_it_is() -> None:
    made = of(replace(MANAGED, sample=sample(paused_by=["ann", "bob", "spec"])))

    assert "paused by ann, bob and spec.paused" in made.verdict.message


@pytest.mark.parametrize(
    ("unroutable", "expected"),
    [
        ({}, ("True", Reason.TASKS_ROUTABLE)),
        ({"agent/billing": 3}, ("False", Reason.TASKS_UNROUTABLE)),
    ],
)
def test_tasks_that_nobody_takes(unroutable: dict[str, int], expected: tuple[str, Reason]) -> None:
    assert says(of(replace(MANAGED, unroutable=unroutable)), ConditionType.ROUTABLE) == expected


def test_what_nobody_takes_is_named() -> None:
    made = of(replace(MANAGED, unroutable={"capability/ocr": 3, "agent/billing": 1, "instance/pod-1": 1}))

    message = next(fact.message for fact in made.facts if fact.type == ConditionType.ROUTABLE)
    assert 'Agent "billing", capability "ocr" and process "pod-1"' in message


@pytest.mark.parametrize(
    ("served", "expected"),
    [(True, ("True", Reason.SERVED)), (False, ("False", Reason.NO_CENTRAL_AGENT))],
)
def test_schedules_need_a_central_agent(served: bool, expected: tuple[str, Reason]) -> None:
    made = of(replace(MANAGED, schedules_served=served))

    assert says(made, ConditionType.SCHEDULES_SERVED) == expected
    assert made.verdict.reason == Reason.AVAILABLE  # the queue itself does its job


def test_a_queue_without_schedules_says_nothing_of_them() -> None:
    assert all(fact.type != ConditionType.SCHEDULES_SERVED for fact in of(MANAGED).facts)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (STORAGE, ("True", Reason.DURABLE)),
        (replace(STORAGE, eviction_policy="allkeys-lru"), ("False", Reason.EVICTION_POLICY_UNSAFE)),
        (replace(STORAGE, append_only=False), ("False", Reason.PERSISTENCE_OFF)),
        (replace(STORAGE, eviction_policy=None), ("Unknown", Reason.EVICTION_POLICY_UNSAFE)),
    ],
)
def test_whether_redis_keeps_what_it_acknowledges(storage: StorageInfo, expected: tuple[str, Reason]) -> None:
    assert says(of(replace(EXTERNAL, sample=sample(storage=storage))), ConditionType.STORAGE_HEALTHY) == expected


def test_figures_of_a_redis_that_does_not_answer_are_not_shown() -> None:
    made = of(
        replace(MANAGED, sample=trouble(Reason.REDIS_UNREACHABLE)), {"depth": 5, "backend": "managed redis 8.2.1"}
    )

    assert (made.fields["depth"], made.fields["backend"]) == (None, "managed redis 8.2.1")
    assert says(made, ConditionType.ACCEPTING) == ("False", Reason.REDIS_UNREACHABLE)
    assert says(made, ConditionType.DRAINED)[0] == "Unknown"


def test_what_is_not_known_yet_after_a_restart_stays_as_it_was() -> None:
    first = of(replace(MANAGED, sample=sample(queued=2)))
    before = {**first.fields, "conditions": Previous({}).merged(first.facts, generation=1, now=NOW)}

    made = of(replace(MANAGED, sample=None), before)

    assert made.facts == first.facts
    assert dict(made.fields) == dict(first.fields)


def test_it_looks_again_when_its_deadline_is_over() -> None:
    assert of(replace(MANAGED, managed=STARTING), not_ready_for(100)).again == pytest.approx(START_DEADLINE - 99)
    assert of(replace(MANAGED, managed=STARTING), LATE_START).again is None
    assert of(MANAGED).again is None
