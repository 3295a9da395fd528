# SPDX-License-Identifier: Apache-2.0
"""The parts of the worker that need no Redis: slots, settlement and backoff."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.agent import Context, Handler, StopReason, Task
from agent_runtime.agent.process import AgentProcess
from agent_runtime.queue.base import Claim, Failed, Outcome, Succeeded, TaskQueue, Worker
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import LinkMetrics
from agent_runtime.testing import MemoryTaskQueue
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.clocks import Clocks
from agent_runtime.worker.metrics import WorkerMetrics
from agent_runtime.worker.settlement import Settlement
from agent_runtime.worker.singles import Singles
from agent_runtime.worker.slots import Slots
from agent_runtime.worker.speech import Speech
from agent_runtime.worker.verdicts import Verdicts
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig


def claim(task_id: str = "t", *, payload: bytes = b"null", timeout: float = 60) -> Claim:
    return Claim(
        id=task_id,
        type="",
        payload=payload,
        priority=5,
        attempt=1,
        max_attempts=3,
        timeout_seconds=timeout,
        agent=None,
        created_at_ms=0,
        token="token",  # noqa: S106 - no secret
    )


def slots_of(handler: Handler, outcomes: list[Outcome]) -> Slots:
    metrics = WorkerMetrics(CollectorRegistry())
    slots = Slots(concurrency=4, metrics=metrics, on_outcome=outcomes.append, on_room=lambda: None)
    queue = MemoryTaskQueue(QueueConfig(name="main", namespace="tests", url_env=""))
    slots.work = Singles(
        handler,
        process=AgentProcess(
            worker=Worker(agent="echo", instance="echo-1"),
            queue=queue,
            max_payload_bytes=100,
            alive_seconds=15,
            voice=Speech(queue, link=Link("main", metrics=LinkMetrics(CollectorRegistry())), on_lost=slots.lost).voice,
        ),
        verdicts=Verdicts(max_result_bytes=100),
        clocks=Clocks(on_timeout=slots.stop, on_deadline=lambda: None),
        on_end=slots.ended,
        crashed=slots.crashed,
    )
    return slots


def stop_all(slots: Slots, reason: StopReason) -> None:
    for attempt in slots.attempts():
        slots.stop(attempt, reason)


async def forever(task: Task, ctx: Context) -> None:
    await asyncio.Event().wait()


async def test_each_claim_becomes_one_outcome_and_frees_its_slot() -> None:
    async def double(task: Task, ctx: Context) -> Any:
        return task.payload * 2

    outcomes: list[Outcome] = []
    slots = slots_of(double, outcomes)
    slots.begin([claim("a", payload=b"1"), claim("b", payload=b'"x"')])
    assert slots.free == 2
    await slots.all_ended()
    assert [(outcome.claim.id, outcome.result) for outcome in outcomes if isinstance(outcome, Succeeded)] == [
        ("a", b"2"),
        ("b", b'"xx"'),
    ]
    assert slots.free == 4


async def test_a_payload_that_is_no_json_fails_for_good() -> None:
    outcomes: list[Outcome] = []
    slots = slots_of(forever, outcomes)
    slots.begin([claim(payload=b"{")])
    await slots.all_ended()
    (outcome,) = outcomes
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.permanent) == ("INVALID_TASK", True)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(("reason", "recorded", "given_back"), [
    (StopReason.TIMEOUT, ["TIMEOUT"], []),
    (StopReason.LOST, [], []),
    (StopReason.CANCELLED, [], []),
    (StopReason.DRAIN, [], ["t"]),
])  # fmt: skip
async def test_a_stopped_attempt_ends_as_its_reason_says_even_if_it_had_not_begun(
    begun: bool, reason: StopReason, recorded: list[str], given_back: list[str]
) -> None:
    outcomes: list[Outcome] = []
    slots = slots_of(forever, outcomes)
    slots.begin([claim()])
    if begun:
        await asyncio.sleep(0)
    stop_all(slots, reason)
    stop_all(slots, StopReason.LOST)  # the first reason counts
    await slots.all_ended()
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Failed)] == recorded
    assert [back.id for back in slots.given_back] == given_back


async def test_what_a_cancelled_handler_still_returns_counts_only_while_draining() -> None:
    async def hurry(task: Task, ctx: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "just in time"
        raise AssertionError

    for reason, result in ((StopReason.DRAIN, b'"just in time"'), (StopReason.TIMEOUT, None), (StopReason.LOST, None)):
        outcomes: list[Outcome] = []
        slots = slots_of(hurry, outcomes)
        slots.begin([claim()])
        await asyncio.sleep(0)
        stop_all(slots, reason)
        await slots.all_ended()
        assert next((o.result for o in outcomes if isinstance(o, Succeeded)), None) == result


class FlakyQueue:
    """Takes outcomes, except while it is `down`."""

    def __init__(self) -> None:
        self.down = True
        self.batches: list[list[str]] = []
        self.refused: set[str] = set()
        self.asked = asyncio.Event()

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        self.asked.set()
        if self.down:
            raise QueueUnavailableError("down")
        self.batches.append([outcome.claim.id for outcome in outcomes])
        return [outcome.claim.id not in self.refused for outcome in outcomes]


def settlement_of(queue: FlakyQueue) -> tuple[Settlement, CollectorRegistry]:
    registry = CollectorRegistry()
    link = Link("main", metrics=LinkMetrics(registry))
    taking: Any = queue
    typed: TaskQueue = taking
    return Settlement(typed, link=link, metrics=WorkerMetrics(registry), on_room=lambda: None), registry


async def test_outcomes_are_kept_while_the_queue_is_away_and_recorded_once_it_is_back() -> None:
    queue = FlakyQueue()
    settlement, _ = settlement_of(queue)
    running = asyncio.create_task(settlement.run())
    settlement.add(Succeeded(claim("first"), b"1"))
    await queue.asked.wait()
    for name in ("second", "third"):
        settlement.add(Succeeded(claim(name), b"1"))
    assert settlement.pending_ids() == ["first", "second", "third"]
    queue.down = False
    await settlement.flushed()
    assert queue.batches == [["first"], ["second", "third"]], "what came meanwhile goes together"
    assert settlement.pending == 0
    running.cancel()


async def test_an_outcome_that_is_not_ours_any_more_is_dropped_loudly(caplog: pytest.LogCaptureFixture) -> None:
    queue = FlakyQueue()
    queue.down, queue.refused = False, {"late"}
    settlement, registry = settlement_of(queue)
    running = asyncio.create_task(settlement.run())
    settlement.add(Succeeded(claim("late"), b"1"))
    settlement.add(Failed(claim("other"), "FAILED", "no"))
    await settlement.flushed()
    assert "task late: the outcome of attempt 1 came too late" in caplog.text
    count = {
        outcome: registry.get_sample_value("kubeagents_agent_attempts_total", {"outcome": outcome})
        for outcome in ("lost", "failed", "succeeded")
    }
    assert count == {"lost": 1, "failed": 1, "succeeded": 0}
    running.cancel()


async def test_large_results_travel_in_more_calls() -> None:
    queue = FlakyQueue()
    queue.down = False
    settlement, _ = settlement_of(queue)
    for name in ("a", "b", "c"):
        settlement.add(Succeeded(claim(name), b"x" * 5_000_000))
    running = asyncio.create_task(settlement.run())
    await settlement.flushed()
    assert queue.batches == [["a", "b"], ["c"]]
    running.cancel()


def test_backoff_doubles_up_to_its_longest_wait_and_starts_again() -> None:
    backoff = Backoff()
    for base in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        assert base / 2 <= backoff.pause() <= base
    backoff.reset()
    assert backoff.pause() <= 0.1
