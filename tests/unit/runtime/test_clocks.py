# SPDX-License-Identifier: Apache-2.0
"""Timeouts of many attempts by few timers, and how long attempts took."""

import asyncio
from time import monotonic

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from agent_runtime.agent.attempt import Attempt, StopReason
from agent_runtime.telemetry.metrics import DURATION_BUCKETS
from agent_runtime.worker.clocks import Clocks
from agent_runtime.worker.metrics import AttemptSeconds
from tests.unit.runtime.test_worker import claim


class Late:
    """Collects what is stopped, and says when there is enough."""

    def __init__(self, enough: int) -> None:
        self.ids: list[str] = []
        self.enough = asyncio.Event()
        self._wanted = enough

    def __call__(self, attempt: Attempt, reason: StopReason) -> None:
        assert reason is StopReason.TIMEOUT
        self.ids.append(attempt.claim.id)
        if len(self.ids) == self._wanted:
            self.enough.set()


def begun(name: str) -> Attempt:
    attempt = Attempt(claim(name))
    attempt.begun_at = monotonic()
    return attempt


async def test_each_attempt_is_stopped_when_its_own_time_is_over_and_none_that_has_ended() -> None:
    late = Late(5)
    clocks = Clocks(on_timeout=late, on_deadline=lambda: None)
    attempts = {name: begun(name) for name in ("slow", "a", "ended", "b", "slower")}
    for name, attempt in attempts.items():
        clocks.start(attempt, {"slow": 0.1, "slower": 0.15}.get(name, 0.05))
    clocks.stop(attempts["ended"])
    again = begun("again")
    clocks.start(again, 0.2)
    await asyncio.wait_for(late.enough.wait(), 10)
    assert late.ids == ["a", "b", "slow", "slower", "again"]
    for attempt in (*attempts.values(), again):
        clocks.stop(attempt)  # they end after that, as they should


async def test_many_different_time_limits_leave_nothing_behind() -> None:
    clocks = Clocks(on_timeout=lambda *_: None, on_deadline=lambda: None)
    before = len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
    for seconds in range(1, 10_000):
        attempt = begun(str(seconds))
        clocks.start(attempt, seconds)
        clocks.stop(attempt)
    live = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert len(live) - before <= 20


def test_the_histogram_of_attempts_is_written_as_the_library_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = AttemptSeconds()
    ours.register(mine)
    reference = Histogram(
        "kubeagents_agent_attempt_seconds", "How long handlers ran.", buckets=DURATION_BUCKETS, registry=theirs
    )
    for seconds in (0, 0.0005, 0.001, 0.0011, 0.75, 5, 299.5, 1800, 1e6):
        mine.observe(seconds)
        reference.observe(seconds)

    def samples(registry: CollectorRegistry) -> list[str]:
        return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]

    assert samples(ours) == samples(theirs)
