# SPDX-License-Identifier: Apache-2.0
"""Which changes of a status are written at once, and which wait."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from kubeagents_api.conditions import Reason
from kubeagents_operator import observed
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.events import Recorder
from kubeagents_operator.keys import Key
from kubeagents_operator.status.conditions import Report, Verdict, current, of_verdict, progressing, stalled
from kubeagents_operator.status.writer import COUNTER_SECONDS, CROWD_SECONDS, STEP_SECONDS, StatusWriter, patience
from tests.unit.operator import objects

AT_ONCE = 0.0


def conditions(*, way: str | None, others: str = "False", message: str = "") -> list[dict[str, Any]]:
    """Those of an object that is on its way for a reason, or is not."""
    reconciling = {"type": "Reconciling", "status": "True" if way else "False", "reason": way or "Available"}
    return [
        {"type": "Ready", "status": "False" if way else "True", "reason": way or "Available", "message": message},
        {**reconciling, "message": message},
        {"type": "QueueConnected", "status": others, "reason": "Connected", "message": ""},
    ]


def rollout(**fields: Any) -> dict[str, Any]:
    return {"canaryRevision": "b", "step": 1, "succeeded": 3, "failed": 0, **fields}


BEFORE = {"conditions": conditions(way="RollingOut"), "rollout": rollout(), "running": 1}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"running": 2}, COUNTER_SECONDS),
        ({"conditions": conditions(way="RollingOut", message="other words")}, COUNTER_SECONDS),
        ({"rollout": rollout(succeeded=4, failed=1)}, COUNTER_SECONDS),
        ({"conditions": conditions(way="RollingOut", others="True")}, STEP_SECONDS),
        ({"conditions": conditions(way="CrashLoop")}, AT_ONCE),
        ({"conditions": conditions(way=None)}, AT_ONCE),
        ({"rollout": rollout(step=2)}, AT_ONCE),
        ({"rollout": None}, AT_ONCE),
        ({"running": 2, "desiredReplicas": 3}, AT_ONCE),
        ({"observedGeneration": 2}, AT_ONCE),
    ],
)
def test_what_is_a_decision_or_a_transition_is_written_at_once(patch: dict[str, Any], expected: float) -> None:
    assert patience(BEFORE, patch) == expected


def test_a_condition_of_what_is_ready_is_a_transition() -> None:
    before = {"conditions": conditions(way=None)}

    assert patience(before, {"conditions": conditions(way=None, others="True")}) == AT_ONCE


class Statuses:
    """Stands for the cluster and the recorder, of which a writer needs little."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def patch_status(self, key: Key, *, uid: str, patch: Mapping[str, Any]) -> objects.Body:
        (ready,) = (one for one in patch["conditions"] if one["type"] == "Ready")
        self.written.append(ready["reason"])
        return objects.body(key.name, uid=uid, version=len(self.written) + 1, status=dict(patch))

    def normal(self, *_news: object) -> None:
        pass

    warning = normal


class Crowd:
    """Whether others wait, and a writer that asks."""

    def __init__(self) -> None:
        self.there = True
        self.statuses = Statuses()
        self.cache = Cache(lambda _key: None)
        self.writer = StatusWriter(
            cast("Cluster", self.statuses),
            self.cache,
            cast("Recorder", self.statuses),
            crowded=lambda _namespace: self.there,
        )

    async def write(self, verdict: Verdict) -> float | None:
        custom = self.cache.custom(ECHO) or observed.custom("Agent", objects.body(ECHO.name))
        return await self.writer.write(custom, Report(verdict, tuple(of_verdict(verdict)), {}), now=NOW)


ECHO = Key("Agent", objects.NAMESPACE, "echo")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETS_OUT, ARRIVED = progressing(Reason.ROLLING_OUT, "0 of 1"), current(Reason.AVAILABLE, "")


async def test_that_an_object_sets_out_is_written_at_once() -> None:
    crowd = Crowd()
    crowd.there = False

    assert await crowd.write(SETS_OUT) is None
    assert crowd.statuses.written == ["RollingOut"]


async def test_in_a_crowd_only_the_arrival_of_an_object_is_written() -> None:
    crowd = Crowd()

    for _ in range(2):
        again = await crowd.write(SETS_OUT)
        assert again is not None
        assert 0 < again <= CROWD_SECONDS
        crowd.there = False
    assert crowd.statuses.written == []

    await crowd.write(ARRIVED)
    assert crowd.statuses.written == ["Available"]


async def test_trouble_is_written_at_once_whatever_the_crowd() -> None:
    crowd = Crowd()

    await crowd.write(SETS_OUT)
    await crowd.write(stalled(Reason.CRASH_LOOP, "exit code 1"))

    assert crowd.statuses.written == ["CrashLoop"]
