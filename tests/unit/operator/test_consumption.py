# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeagents_api.limits import QueueLimits, RateLimit, TenantLimits
from kubeagents_api.task import InstanceInfo, QueueStats
from kubeagents_operator.consumption import CLAIM_GRACE, STANDSTILL_SECONDS, Consumption, Witness

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
THRESHOLD = 15.0
LATE = THRESHOLD + CLAIM_GRACE + 1


def worker(name: str = "a", *, claimed: float | None = 0.0, **fields: Any) -> InstanceInfo:
    values = {
        "agent": "echo",
        "instance": name,
        "queue": "work",
        "version": "1",
        "concurrency": 2,
        "running": 0,
        "started_at": NOON,
        "last_beat_at": NOON,
        "healthy": True,
        "claimed_at": NOON + timedelta(seconds=claimed) if claimed is not None else None,
        **fields,
    }
    return InstanceInfo.model_validate(values)


def stats(waiting: dict[str, int] | None = None, *, paused: bool = False) -> QueueStats:
    waiting = waiting or {}
    return QueueStats(
        queue="work",
        queued=sum(waiting.values()),
        running=0,
        scheduled=0,
        dead=0,
        succeeded_total=0,
        failed_total=0,
        waiting={"" if target == "any" else target.replace("_", "/"): count for target, count in waiting.items()},
        paused_by=["maria"] if paused else [],
    )


def look(
    witness: Witness,
    workers: Sequence[InstanceInfo],
    *,
    now: float,
    of: QueueStats | None = None,
    limits: QueueLimits | None = None,
) -> Consumption:
    return witness.look(workers, of or stats(), thresholds=[THRESHOLD, 60.0], limits=limits or QueueLimits(), now=now)


def test_claims_that_are_not_answered_for_long_are_seen_by_each_threshold() -> None:
    witness = Witness()
    look(witness, [worker()], now=0)

    assert look(witness, [worker()], now=LATE - 2).unanswered[THRESHOLD] == frozenset()
    late = look(witness, [worker()], now=LATE).unanswered
    assert {threshold: set(names) for threshold, names in late.items()} == {THRESHOLD: {"a"}, 60.0: set()}


def test_another_machines_clock_does_not_matter() -> None:
    witness = Witness()
    look(witness, [worker(claimed=-86400.0)], now=0)

    answered = look(witness, [worker(claimed=-86395.0)], now=LATE)
    assert answered.unanswered[THRESHOLD] == frozenset()
    assert not answered.unproven


def test_one_answer_ends_it() -> None:
    witness = Witness()
    look(witness, [worker()], now=0)
    assert look(witness, [worker()], now=LATE).unanswered[THRESHOLD]

    assert not look(witness, [worker(claimed=5)], now=LATE + 5).unanswered[THRESHOLD]


def test_what_is_seen_first_proves_nothing_but_what_comes_later_does() -> None:
    witness = Witness()

    assert look(witness, [worker()], now=0).unproven == {"a"}
    assert look(witness, [worker(), worker("b")], now=5).unproven == {"a"}
    assert look(witness, [worker(claimed=5), worker("b"), worker("c", claimed=None)], now=10).unproven == {"c"}


def test_a_process_that_has_started_anew_has_its_time() -> None:
    witness = Witness()
    look(witness, [worker()], now=0)

    again = worker(started_at=NOON + timedelta(seconds=40))
    assert not look(witness, [again], now=LATE).unanswered[THRESHOLD]


@pytest.mark.parametrize("fields", [{"draining": True}, {"cordoned": True}, {"cordoned_by": ["operator"]}])
def test_whoever_is_to_take_nothing_is_left_out(fields: dict[str, Any]) -> None:
    witness = Witness()
    told = worker(**fields)
    look(witness, [told], now=0, of=stats({"any": 1}))

    seen = look(witness, [told], now=LATE + STANDSTILL_SECONDS, of=stats({"any": 1}))
    assert not seen.unanswered[THRESHOLD]
    assert not seen.idle


@pytest.mark.parametrize(
    ("waiting", "idle"),
    [
        ({"any": 1}, {"a", "b"}),
        ({"agent_echo": 1}, {"a", "b"}),
        ({"agent_other": 1}, set()),
        ({"capability_ocr": 1}, {"b"}),
        ({"instance_a": 1}, {"a"}),
        ({}, set()),
    ],
)
def test_tasks_that_wait_before_open_doors_are_seen(waiting: dict[str, int], idle: set[str]) -> None:
    witness = Witness()
    for now in range(0, 61, 15):
        workers = [worker(claimed=now), worker("b", claimed=now, capabilities=["ocr"])]
        seen = look(witness, workers, now=now, of=stats(waiting))
        assert seen.idle == (idle if now >= STANDSTILL_SECONDS + 15 else set())

    assert look(witness, workers, now=75, of=stats(waiting)).idle == idle


@pytest.mark.parametrize(
    "moves", [{"running": 1}, {"succeeded": 1}, {"failed": 1}], ids=["starts", "succeeds", "fails"]
)
def test_as_long_as_one_of_those_who_can_moves_nobody_is_idle(moves: dict[str, int]) -> None:
    witness = Witness()
    look(witness, [worker(), worker("b")], now=0, of=stats({"any": 3}))
    look(witness, [worker(), worker("b")], now=50, of=stats({"any": 3}))
    look(witness, [worker(), worker("b", **moves)], now=55, of=stats({"any": 3}))

    assert not look(witness, [worker(), worker("b", **moves)], now=100, of=stats({"any": 3})).idle
    assert look(witness, [worker(), worker("b", **moves)], now=161, of=stats({"any": 3})).idle == {"a", "b"}


RATE = RateLimit(tasks=1)


@pytest.mark.parametrize(
    "limits",
    [QueueLimits(rate=RATE), QueueLimits(concurrency=1), QueueLimits(per_tenant=TenantLimits(rate=RATE))],
)
def test_where_limits_hold_tasks_back_nobody_is_idle(limits: QueueLimits) -> None:
    assert not _after_long([worker()], stats({"any": 1}), limits=limits).idle


def test_a_paused_queue_and_full_workers_are_no_standstill() -> None:
    assert not _after_long([worker()], stats({"any": 1}, paused=True)).idle
    assert not _after_long([worker(running=2)], stats({"any": 1})).idle
    assert _after_long([worker(running=1)], stats({"any": 1})).idle == {"a"}


def _after_long(workers: Sequence[InstanceInfo], of: QueueStats, limits: QueueLimits | None = None) -> Consumption:
    witness = Witness()
    seen = Consumption()
    for now in (0, 10, 100):
        seen = look(witness, workers, now=now, of=of, limits=limits)
    return seen
