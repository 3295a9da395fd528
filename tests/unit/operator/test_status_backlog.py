# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_runtime.queue import StorageInfo
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import QueueStats
from kubeagents_api.task_queue import BacklogThresholds, TaskQueueStatus
from kubeagents_operator.replays import Replayed
from kubeagents_operator.sampler import Sample, Trouble
from kubeagents_operator.status.conditions import Previous, Report
from kubeagents_operator.status.news import news
from kubeagents_operator.status.task_queue import TaskQueueState, overdue_sample, report
from tests.support.kstatus import kstatus

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STORAGE = StorageInfo(server="redis 8.2.1", eviction_policy="noeviction", append_only=True, latency_ms=0.3)
LIMITS = BacklogThresholds(max_depth=100, max_age_seconds=60)


def seen(*, queued: int = 0, age: float | None = None, ago: float = 0.0) -> Sample:
    """A sample of `ago` seconds before, in which the oldest task had that age."""
    at = NOW - timedelta(seconds=ago)
    stats = QueueStats(
        queue="work",
        queued=queued,
        running=0,
        scheduled=0,
        dead=0,
        succeeded_total=0,
        failed_total=0,
        oldest_at=at - timedelta(seconds=age) if age is not None else None,
    )
    return Sample(stats=stats, storage=STORAGE, at=at)


def queue(sample: Sample | None, thresholds: BacklogThresholds = LIMITS) -> TaskQueueState:
    return TaskQueueState(obstacle=None, managed=None, sample=sample, backlog=thresholds)


def of(state: TaskQueueState, before: dict[str, Any] | None = None) -> Report:
    return report(state, Previous(before or {}), now=NOW)


def status(made: Report, before: dict[str, Any] | None = None) -> dict[str, Any]:
    conditions = Previous(before or {}).merged(made.facts, generation=4, now=NOW)
    fields = {name: value for name, value in made.fields.items() if value is not None}
    return {"observedGeneration": 4, "conditions": conditions, **fields}


def says(made: Report) -> tuple[str, Reason]:
    return next((fact.status, fact.reason) for fact in made.facts if fact.type == ConditionType.BACKLOGGED)


QUIET = status(of(queue(seen())))
BACKLOGGED = status(of(queue(seen(queued=101))))


@pytest.mark.parametrize(
    ("sample", "before", "status", "reason"),
    [
        (seen(), QUIET, "False", Reason.WITHIN_THRESHOLDS),
        (seen(queued=100, age=60), QUIET, "False", Reason.WITHIN_THRESHOLDS),
        (seen(queued=101), QUIET, "True", Reason.DEPTH_ABOVE_THRESHOLD),
        (seen(queued=1, age=61), QUIET, "True", Reason.OLDEST_TASK_TOO_OLD),
        (seen(queued=81), BACKLOGGED, "True", Reason.DEPTH_ABOVE_THRESHOLD),
        (seen(queued=80, age=49), BACKLOGGED, "True", Reason.OLDEST_TASK_TOO_OLD),
        (seen(queued=80, age=48), BACKLOGGED, "False", Reason.WITHIN_THRESHOLDS),
    ],
)
def test_a_backlog_begins_at_the_threshold_and_ends_well_below_it(
    sample: Sample, before: dict[str, Any], status: str, reason: Reason
) -> None:
    assert says(of(queue(sample), before)) == (status, reason)


def test_without_thresholds_there_is_no_backlog() -> None:
    assert says(of(queue(seen(queued=10**6, age=1e6), BacklogThresholds()))) == ("False", Reason.WITHIN_THRESHOLDS)


def test_an_age_is_that_of_the_sample_because_the_task_may_be_gone_since() -> None:
    state = queue(seen(queued=1, age=50, ago=14))

    assert says(of(state))[0] == "False"
    assert overdue_sample(state, now=NOW), "another sample decides"
    assert of(state).again == pytest.approx(1.0)


def test_it_looks_again_when_the_oldest_task_will_be_too_old() -> None:
    state = queue(seen(queued=1, age=50))

    assert of(state).again == pytest.approx(10.1)
    assert not overdue_sample(state, now=NOW)
    assert of(queue(seen(queued=1, age=61))).again is None


def test_a_backlog_is_no_reason_not_to_be_ready_and_what_is_not_known_stays() -> None:
    TaskQueueStatus.model_validate(BACKLOGGED)
    assert kstatus({"metadata": {"generation": 4}, "status": BACKLOGGED}) == "Current"
    assert says(of(queue(None), BACKLOGGED)) == ("True", Reason.DEPTH_ABOVE_THRESHOLD)
    away = Sample(trouble=Trouble(Reason.REDIS_UNREACHABLE, "it does not answer"))
    assert says(of(queue(away), BACKLOGGED))[0] == "Unknown"


def test_begin_and_end_are_told_once() -> None:
    def told(sample: Sample, before: dict[str, Any]) -> list[str]:
        return [one.reason for one in news(Previous(before), of(queue(sample), before)) if "Queue" in one.reason]

    assert told(seen(queued=101), QUIET) == ["QueueBacklogged"]
    assert told(seen(queued=1, age=61), BACKLOGGED) == []
    assert told(seen(), BACKLOGGED) == ["QueueRecovered"]
    assert told(seen(), QUIET) == []


@pytest.mark.parametrize(("tasks", "words"), [(0, "0 dead tasks"), (1, "1 dead task "), (7, "7 dead tasks")])
def test_a_replay_is_echoed_and_told_with_its_count(tasks: int, words: str) -> None:
    made = of(replace(queue(seen()), replayed=Replayed("noon", tasks)))
    written = status(made)

    assert written["handled"] == {"replayDead": "noon"}
    [(reason, note)] = made.notes
    assert reason == "DLQReplayed"
    assert words in note
    assert of(replace(queue(seen()), replayed=Replayed("noon", tasks)), written).notes == ()
    assert status(of(queue(seen()), written))["handled"] == {"replayDead": "noon"}
