# SPDX-License-Identifier: Apache-2.0
"""Which transitions of a status become Events."""

from datetime import UTC, datetime

import pytest

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.status.conditions import (
    Fact,
    Previous,
    Report,
    Verdict,
    current,
    fact,
    of_verdict,
    progressing,
    stalled,
    unknown,
)
from kubeagents_operator.status.news import news

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AVAILABLE = current(Reason.AVAILABLE, "it works")
STARTING = progressing(Reason.ROLLING_OUT, "it starts")
BROKEN = stalled(Reason.INVALID_SPEC, "it is wrong")
LOST = progressing(Reason.REDIS_UNREACHABLE, "it is gone")

ACTIVE = fact(ConditionType.SUSPENDED, False, Reason.ACTIVE)
PAUSED = fact(ConditionType.SUSPENDED, True, Reason.PAUSED)
UNASKED = unknown(ConditionType.SUSPENDED, Reason.ROLLING_OUT)
OPEN = fact(ConditionType.ACCEPTING, True, Reason.AVAILABLE)
CLOSED = fact(ConditionType.ACCEPTING, False, Reason.CLOSED)
FULL = fact(ConditionType.ACCEPTING, False, Reason.QUEUE_FULL)
AWAY = fact(ConditionType.ACCEPTING, False, Reason.REDIS_UNREACHABLE)
ROUTABLE = fact(ConditionType.ROUTABLE, True, Reason.TASKS_ROUTABLE)
UNROUTABLE = fact(ConditionType.ROUTABLE, False, Reason.TASKS_UNROUTABLE)
SERVED = fact(ConditionType.SCHEDULES_SERVED, True, Reason.SERVED)
UNSERVED = fact(ConditionType.SCHEDULES_SERVED, False, Reason.NO_CENTRAL_AGENT)
DURABLE = fact(ConditionType.STORAGE_HEALTHY, True, Reason.DURABLE)
EVICTING = fact(ConditionType.STORAGE_HEALTHY, False, Reason.EVICTION_POLICY_UNSAFE)
FORGETFUL = fact(ConditionType.STORAGE_HEALTHY, False, Reason.PERSISTENCE_OFF)


def told(
    before: list[Fact] | None, after: list[Fact], *, was: Verdict = AVAILABLE, now: Verdict = AVAILABLE
) -> list[str]:
    """The Events, warnings with an exclamation mark."""
    status = {}
    if before is not None:
        status = {"conditions": Previous({}).merged([*of_verdict(was), *before], generation=1, now=NOW)}
    made = Report(now, (*of_verdict(now), *after), {})
    return [one.reason + "!" * one.warns for one in news(Previous(status), made)]


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        (STARTING, AVAILABLE, ["Ready"]),
        (AVAILABLE, AVAILABLE, []),
        (AVAILABLE, STARTING, []),
        (AVAILABLE, LOST, ["RedisUnreachable!"]),
        (STARTING, LOST, []),
        (AVAILABLE, BROKEN, ["InvalidSpec!"]),
        (BROKEN, BROKEN, []),
        (BROKEN, AVAILABLE, ["Recovered"]),
    ],
)
def test_news_of_the_verdict(was: Verdict, now: Verdict, expected: list[str]) -> None:
    assert told([], [], was=was, now=now) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (ACTIVE, PAUSED, ["Paused"]),
        (UNASKED, PAUSED, ["Paused"]),
        (UNASKED, ACTIVE, []),
        (PAUSED, PAUSED, []),
        (PAUSED, UNASKED, []),
        (PAUSED, ACTIVE, ["Resumed"]),
        (OPEN, CLOSED, ["Closed"]),
        (CLOSED, OPEN, ["Opened"]),
        (OPEN, FULL, ["QueueFull!"]),
        (FULL, OPEN, ["Accepting"]),
        (CLOSED, AWAY, []),
        (AWAY, OPEN, []),
        (ROUTABLE, UNROUTABLE, ["TasksUnroutable!"]),
        (UNROUTABLE, ROUTABLE, ["Routable"]),
        (SERVED, UNSERVED, ["NoCentralAgent!"]),
        (UNSERVED, SERVED, ["SchedulesServed"]),
        (DURABLE, EVICTING, ["EvictionPolicyUnsafe!"]),
        (EVICTING, FORGETFUL, ["PersistenceOff!"]),
        (FORGETFUL, DURABLE, ["StorageHealthy"]),
    ],
)
def test_news_of_a_condition(before: Fact, after: Fact, expected: list[str]) -> None:
    assert told([before], [after]) == expected


def test_an_object_that_is_seen_for_the_first_time_tells_what_is_not_normal_only() -> None:
    assert told(None, [PAUSED, ROUTABLE, EVICTING], now=STARTING) == ["Paused", "EvictionPolicyUnsafe!"]
