# SPDX-License-Identifier: Apache-2.0
"""Schedules with a queue in memory and a clock that the test moves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.cancellation import end
from agent_runtime.central.schedules import Schedules, task_id
from agent_runtime.central.served import ServedQueue
from agent_runtime.leader.alone import AloneElector
from agent_runtime.queue.base import Gate, Succeeded, Worker
from agent_runtime.queue.memory import ManualClock, MemoryTaskQueue
from agent_runtime.queue.memory_clock import Signal
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import LinkMetrics
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.limits import QueueLimits
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.schedule import Schedule, ScheduledTask
from kubeagents_api.task import TaskRequest, TaskState

WORKER = Worker("worker", "worker-1")


class Breakable(MemoryTaskQueue):
    """A queue that can be out of reach."""

    broken = False

    async def fire(self, schedule: str, due: datetime, task: TaskRequest) -> bool:
        if self.broken:
            raise QueueUnavailableError("Redis does not answer")
        return await super().fire(schedule, due, task)

    async def fired(self) -> dict[str, datetime]:
        if self.broken:
            raise QueueUnavailableError("Redis does not answer")
        return await super().fired()


class World:
    """A queue, a clock, and processes that may lead."""

    def __init__(self, start: str = "2026-05-01T12:00:30", **changes: Any) -> None:
        self.clock = ManualClock(datetime.fromisoformat(start).replace(tzinfo=UTC))
        self.config = QueueConfig(name="tasks", namespace="tests", url_env="X", **changes)
        self.queue = Breakable(self.config, clock=self.clock)
        self._moved = Signal(self.clock)
        self._running: list[asyncio.Task[None]] = []

    # The clock, as Schedules wants it.
    def now(self) -> datetime:
        return self.clock.now()

    async def sleep(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self.clock() < until:
            await self._moved.wait(until)

    async def lead(self, *schedules: Schedule) -> "Leader":
        """Another process begins to lead."""
        leader = Leader(self, schedules)
        await leader.elector.start()
        self._running.append(leader.running)
        await self.settle()
        return leader

    async def settle(self) -> None:
        """Let everybody do what is to be done now."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float, *, step: float = 1.0) -> None:
        """Move the clock, bit by bit."""
        moved = 0.0
        while moved < seconds:
            bit = min(step, seconds - moved)
            self.clock.advance(bit)
            moved += bit
            await self.settle()

    async def ids(self) -> list[str]:
        """The tasks that were submitted, in order."""
        return [event.task or "" for event in await self.queue.events(limit=1000) if event.kind == "submitted"]

    async def finish(self) -> None:
        """Whoever waits is claimed and succeeds."""
        claims = await self.queue.claim(WORKER, limit=100, wait_seconds=0)
        await self.queue.settle([Succeeded(claim, b"null") for claim in claims])

    async def close(self) -> None:
        await end(*self._running)


class Leader:
    def __init__(self, world: World, schedules: tuple[Schedule, ...]) -> None:
        self.registry = CollectorRegistry()
        self.elector = AloneElector(identity="hub")
        link = Link("tasks", metrics=LinkMetrics(self.registry))
        self.schedules = Schedules(
            {"tasks": list(schedules)},
            [ServedQueue(config=world.config, queue=world.queue, link=link)],
            elector=self.elector,
            registry=self.registry,
            clock=world,
        )
        self.running = asyncio.create_task(self.schedules.run())

    async def stop(self) -> None:
        await self.elector.stop()
        await end(self.running)

    def missed(self, schedule: str, reason: str) -> float:
        labels = {"queue": "tasks", "schedule": schedule, "reason": reason}
        return self.registry.get_sample_value("kubeagents_schedule_missed_total", labels) or 0.0

    def fired(self, schedule: str) -> float | None:
        labels = {"queue": "tasks", "schedule": schedule}
        return self.registry.get_sample_value("kubeagents_schedule_fired_total", labels)


@contextlib.asynccontextmanager
async def world(start: str = "2026-05-01T12:00:30", **changes: Any) -> AsyncIterator[World]:
    made = World(start, **changes)
    try:
        yield made
    finally:
        await made.close()


MINUTELY = Schedule(name="tick", cron="* * * * *")


async def test_each_due_time_submits_its_task() -> None:
    given = ScheduledTask(type="report", payload={"a": 1}, priority=8, tenant="acme", timeout_seconds=5, max_attempts=2)
    async with world() as w:
        leader = await w.lead(Schedule(name="tick", cron="*/2 * * * *", task=given))
        await w.pass_time(60 * 4)
        assert await w.ids() == ["tick.20260501T120200Z", "tick.20260501T120400Z"]
        task = await w.queue.get("tick.20260501T120200Z")
        assert (task.type, task.payload, task.priority, task.tenant) == ("report", {"a": 1}, 8, "acme")
        assert (task.timeout_seconds, task.max_attempts, task.state) == (5, 2, TaskState.QUEUED)
        assert leader.fired("tick") == 2


async def test_two_leaders_fire_each_due_time_once() -> None:
    async with world() as w:
        leaders = [await w.lead(MINUTELY), await w.lead(MINUTELY)]
        await w.pass_time(180)
        assert len(await w.ids()) == 3
        assert sum(leader.fired("tick") or 0 for leader in leaders) == 3


async def test_who_leads_no_more_fires_no_more() -> None:
    async with world() as w:
        leader = await w.lead(MINUTELY)
        await leader.elector.stop()  # and has not been cancelled yet
        await w.pass_time(120)
        assert await w.ids() == []


async def test_a_new_leader_makes_up_for_the_last_due_time_only() -> None:
    async with world() as w:
        first = await w.lead(MINUTELY)
        await w.pass_time(40)
        await first.stop()
        await w.pass_time(200)
        assert await w.ids() == ["tick.20260501T120100Z"]
        await w.lead(MINUTELY)
        assert await w.ids() == ["tick.20260501T120100Z", "tick.20260501T120400Z"], "12:02 and 12:03 are lost"
        await w.pass_time(60)
        assert len(await w.ids()) == 3


async def test_what_was_missed_for_longer_than_the_starting_deadline_is_lost() -> None:
    daily = Schedule(name="daily", cron="0 12 * * *", starting_deadline_seconds=600)
    async with world("2026-05-01T11:59:59") as w:
        first = await w.lead(daily)
        await w.pass_time(2)
        await first.stop()
        w.clock.advance(86400 + 600)
        second = await w.lead(daily)
        assert await w.ids() == ["daily.20260501T120000Z"]
        assert second.missed("daily", "late") == 1
        await second.stop()
        w.clock.advance(86400 - 10)
        await w.lead(daily)
        assert (await w.ids())[1:] == ["daily.20260503T120000Z"]


async def test_a_schedule_that_is_seen_for_the_first_time_does_not_fire_for_the_past() -> None:
    async with world("2026-05-01T12:00:01") as w:
        await w.lead(Schedule(name="daily", cron="0 12 * * *"))
        assert await w.ids() == []


async def test_a_suspended_schedule_does_not_fire_and_the_others_do() -> None:
    async with world() as w:
        await w.lead(MINUTELY, Schedule(name="asleep", every_seconds=10, suspend=True))
        await w.pass_time(60)
        assert await w.ids() == ["tick.20260501T120100Z"]


async def test_a_faulty_schedule_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    faulty = Schedule(name="bad", cron="0 0 30 2 *")
    async with world() as w:
        leader = await w.lead(faulty, MINUTELY, Schedule(name="lost", cron="0 0 * * *", time_zone="Mars/Olympus"))
        await w.pass_time(60)
        assert await w.ids() == ["tick.20260501T120100Z"]
        values = [
            leader.registry.get_sample_value("kubeagents_schedule_faulty", {"queue": "tasks", "schedule": name})
            for name in ("bad", "tick", "lost")
        ]
        assert values == [1, 0, 1]
    assert "schedule 'bad': the day-of-month of cron" in caplog.text
    assert "schedule 'lost': the time zone 'Mars/Olympus' is not known here" in caplog.text


async def test_forbid_leaves_out_due_times_while_the_last_task_has_not_ended() -> None:
    alone = Schedule(name="alone", every_seconds=60, concurrency_policy="Forbid")
    async with world() as w:
        leader = await w.lead(alone)
        await w.pass_time(150)
        assert await w.ids() == ["alone.20260501T120100Z"]
        assert leader.missed("alone", "running") == 2
        await w.finish()
        await w.pass_time(60)
        assert await w.ids() == ["alone.20260501T120100Z", "alone.20260501T120400Z"]


async def test_forbid_goes_on_when_the_last_task_is_forgotten() -> None:
    alone = Schedule(name="alone", every_seconds=60, concurrency_policy="Forbid")
    async with world(result_ttl_seconds=1) as w:
        await w.lead(alone)
        await w.pass_time(30)
        await w.finish()
        await w.pass_time(60)
        assert len(await w.ids()) == 2


async def test_a_queue_that_is_closed_gets_the_task_once_it_opens(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as w:
        await w.lead(Schedule(name="hourly", cron="1 * * * *"))
        await w.queue.set_gate(Gate.SUBMISSIONS, shut=True, by="test")
        await w.pass_time(120)
        assert await w.ids() == []
        await w.queue.set_gate(Gate.SUBMISSIONS, shut=False, by="test")
        await w.pass_time(2)
        assert await w.ids() == ["hourly.20260501T120100Z"]
    assert caplog.text.count("cannot fire for 2026-05-01T12:01:00+00:00 yet, trying on") == 1


async def test_a_queue_that_stays_full_costs_the_due_time_after_the_starting_deadline() -> None:
    async with world(limits=QueueLimits(max_depth=1)) as w:
        await w.queue.submit([TaskRequest()])
        leader = await w.lead(Schedule(name="hourly", cron="1 * * * *", starting_deadline_seconds=20))
        await w.pass_time(60)
        assert leader.missed("hourly", "late") == 1
        await w.finish()
        await w.pass_time(60)
        assert [found for found in await w.ids() if found.startswith("hourly")] == []


async def test_a_later_due_time_takes_the_place_of_one_that_could_not_fire() -> None:
    async with world() as w:
        leader = await w.lead(MINUTELY)
        w.queue.broken = True
        await w.pass_time(100)  # 12:01 and 12:02 are due
        w.queue.broken = False
        await w.pass_time(5)
        assert await w.ids() == ["tick.20260501T120200Z"]
        assert leader.missed("tick", "late") == 1


async def test_a_queue_that_is_away_when_the_term_begins_is_waited_for() -> None:
    async with world() as w:
        await w.lead(MINUTELY)
        await w.pass_time(31)
        for leader in list(w._running):
            await end(leader)
        w.queue.broken = True
        await w.pass_time(60)
        await w.lead(MINUTELY)
        await w.pass_time(10)
        w.queue.broken = False
        await w.pass_time(3)
        assert await w.ids() == ["tick.20260501T120100Z", "tick.20260501T120200Z"]


async def test_a_task_that_the_queue_refuses_is_said_and_the_next_due_time_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world() as w:
        await w.queue.submit([TaskRequest(id="tick.20260501T120100Z")])
        leader = await w.lead(MINUTELY)
        await w.pass_time(90)
        assert await w.ids() == ["tick.20260501T120100Z", "tick.20260501T120200Z"]
        assert leader.missed("tick", "refused") == 1
    assert "cannot submit its task for 2026-05-01T12:01:00+00:00" in caplog.text


async def test_a_process_that_was_frozen_fires_the_last_due_time_that_it_slept_through() -> None:
    async with world() as w:
        await w.lead(MINUTELY)
        w.clock.advance(250)  # one jump
        await w.settle()
        assert await w.ids() == ["tick.20260501T120400Z"]


@pytest.mark.parametrize(
    ("start", "due"),
    [
        ("2026-03-28T12:00:00", ["20260329T010000Z", "20260330T003000Z"]),  # skipped: right after the gap
        ("2026-10-24T12:00:00", ["20261025T003000Z", "20261026T013000Z"]),  # twice: the first one
    ],
)
async def test_a_daily_schedule_fires_once_a_day_when_clocks_change(start: str, due: list[str]) -> None:
    async with world(start) as w:
        await w.lead(Schedule(name="nightly", cron="30 2 * * *", time_zone="Europe/Berlin"))
        await w.pass_time(timedelta(days=1, hours=18).total_seconds(), step=600)
        assert await w.ids() == [f"nightly.{moment}" for moment in due]


def test_the_id_of_a_task_has_the_due_time_in_utc() -> None:
    assert task_id("s", datetime.fromisoformat("2026-05-01T02:00:00+02:00")) == "s.20260501T000000Z"
