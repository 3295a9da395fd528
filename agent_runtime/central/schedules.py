# SPDX-License-Identifier: Apache-2.0
"""Submitting the tasks of schedules, by the process that leads.

What is promised
    Each due time is fired at most once, whoever leads: the queue submits the task and remembers the due time in one
    step, and refuses a due time that is not later than the one it remembers. So two leaders, or one that was frozen,
    do no harm. A task's id is the schedule's name and the due time.
    A due time is fired late rather than never while it is not older than `startingDeadlineSeconds`, and while no later
    one has come: after a change of leaders, when the queue did not answer, was closed or full. Of several that were
    missed, only the last is made up for. A schedule that has never fired begins with its next due time.

What is not
    A due time that `Forbid` left out is not remembered: whoever begins to lead soon after may make up for it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent_runtime.central.served import ServedQueue
from agent_runtime.leader.base import Elector
from agent_runtime.queue.timetable import Timetable
from kubeagents_api.errors import (
    InvalidManifestError,
    KubeagentsError,
    QueueClosedError,
    QueueFullError,
    QueueUnavailableError,
    TaskNotFoundError,
)
from kubeagents_api.schedule import Schedule
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import TaskRequest

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 2.0
"""How long it waits before it tries again what the queue did not take."""
_LONGEST_SLEEP_SECONDS = 30.0
"""The clock on the wall may be set while a schedule sleeps: it looks again that often."""
_PASSING = (QueueUnavailableError, QueueClosedError, QueueFullError)


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """The time, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class WallClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(time.time(), UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule and when it is due."""

    schedule: Schedule
    timetable: Timetable | None
    """None if the schedule is faulty."""
    fault: str | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> "Plan":
        """Never raises: a faulty schedule must not keep the others from being fired."""
        try:
            return cls(schedule, Timetable(schedule))
        except InvalidManifestError as error:
            return cls(schedule, None, str(error))

    def info(self, queue: str, *, fired: datetime | None, now: datetime) -> ScheduleInfo:
        """The schedule as clients see it."""
        schedule = self.schedule
        waits = self.timetable is not None and not schedule.suspend
        return ScheduleInfo(
            name=schedule.name,
            queue=queue,
            cron=schedule.cron,
            every_seconds=schedule.every_seconds,
            time_zone=schedule.time_zone,
            concurrency_policy=schedule.concurrency_policy,
            suspend=schedule.suspend,
            last_due_at=fired,
            last_task=None if fired is None else task_id(schedule.name, fired),
            next_due_at=self.timetable.next(now) if waits and self.timetable is not None else None,
            fault=self.fault,
        )


def task_id(schedule: str, due: datetime) -> str:
    """The id of the task that a schedule submits for a due time."""
    return f"{schedule}.{due.astimezone(UTC):%Y%m%dT%H%M%SZ}"


class Schedules:
    """Fires the schedules of all queues for as long as it runs. Only the process that leads lets it run."""

    def __init__(
        self,
        schedules: Mapping[str, Sequence[Schedule]],
        queues: Sequence[ServedQueue],
        *,
        elector: Elector,
        registry: CollectorRegistry,
        clock: Clock | None = None,
    ) -> None:
        self._queues = [served for served in queues if schedules.get(served.config.name)]
        self._plans = {name: [Plan.of(schedule) for schedule in found] for name, found in schedules.items()}
        self._elector = elector
        self._clock = clock or WallClock()
        names = ["queue", "schedule"]
        self._fired = Counter(
            "kubeagents_schedule_fired_total", "Due times for which a task was submitted.", names, registry=registry
        )
        self._missed = Counter(
            "kubeagents_schedule_missed_total",
            "Due times without a task, by reason: late (the starting deadline or a later due time came first), running "
            "(the last task had not ended), refused (the queue does not take such a task).",
            [*names, "reason"],
            registry=registry,
        )
        faulty = Gauge(
            "kubeagents_schedule_faulty",
            "1 if the schedule can never fire; the log has why.",
            names,
            registry=registry,
        )
        for queue, plans in self._plans.items():
            for plan in plans:
                self._fired.labels(queue, plan.schedule.name)
                faulty.labels(queue, plan.schedule.name).set(plan.timetable is None)
                if plan.fault:
                    _log.error("queue %s: %s; it is left out", queue, plan.fault, extra={"queue": queue})

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for served in self._queues:
                group.create_task(self._follow_queue(served), name=f"schedules of {served.config.name}")

    async def _follow_queue(self, served: ServedQueue) -> None:
        fired = await self._fired_so_far(served)
        async with asyncio.TaskGroup() as group:
            for plan in self._plans[served.config.name]:
                if plan.timetable is not None and not plan.schedule.suspend:
                    name = plan.schedule.name
                    follower = _Follower(self, served, plan.schedule, plan.timetable)
                    group.create_task(follower.run(fired.get(name)), name=f"schedule {name}")

    async def _fired_so_far(self, served: ServedQueue) -> dict[str, datetime]:
        while True:
            try:
                return await served.ask(served.queue.fired())
            except QueueUnavailableError:  # `ask` has noted it
                await self._clock.sleep(_AGAIN_SECONDS)

    # What a follower needs.

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._clock

    @property
    def leading(self) -> bool:
        """Whether this process may act."""
        return self._elector.is_leader

    def count_fired(self, queue: str, schedule: str) -> None:
        """A due time has got its task."""
        self._fired.labels(queue, schedule).inc()

    def count_missed(self, queue: str, schedule: str, *, reason: str) -> None:
        """A due time has got none."""
        self._missed.labels(queue, schedule, reason).inc()


class _Follower:
    """Follows one schedule through one term."""

    def __init__(self, owner: Schedules, served: ServedQueue, schedule: Schedule, timetable: Timetable) -> None:
        self._owner = owner
        self._clock = owner.clock
        self._served = served
        self._queue = served.config.name
        self._schedule = schedule
        self._timetable = timetable
        self._patience = timedelta(seconds=schedule.starting_deadline_seconds)
        self._warned = False

    async def run(self, fired: datetime | None) -> None:
        """Fire each due time from now on, and the last one that was missed since `fired`, if there is one."""
        done = self._clock.now()
        if fired is not None and (missed := self._timetable.last(after=fired, until=done)) is not None:
            await self._fire(missed)
        while True:
            # Waking up late (frozen, or busy with the due time before) may have missed several: the last one counts.
            await self._sleep_until(self._timetable.next(done))
            now = self._clock.now()
            if (due := self._timetable.last(after=done, until=now)) is not None:
                await self._fire(due)
                done = due

    async def _fire(self, due: datetime) -> None:
        """Fire, trying on until the starting deadline or until the next due time has come."""
        give_up = min(due + self._patience, self._timetable.next(due))
        while True:
            # Each look again asks whether time is left: a process may sleep for longer than it wanted to.
            if self._clock.now() > give_up:
                self._missed(due, "late")
                return
            if not self._owner.leading:
                return
            try:
                if not await self._may_start(due):
                    return
                task = self._task(due)
                if await self._served.ask(self._served.queue.fire(self._schedule.name, due, task)):
                    self._owner.count_fired(self._queue, self._schedule.name)
                    _log.debug("schedule %s of queue %s fired: task %s", self._schedule.name, self._queue, task.id)
                self._warned = False
                return
            except _PASSING as error:
                self._warn(due, error)
            except KubeagentsError as error:
                _log.error(
                    "schedule %s of queue %s cannot submit its task for %s: %s",
                    self._schedule.name, self._queue, due.isoformat(), error, extra={"queue": self._queue},
                )  # fmt: skip
                self._missed(due, "refused")
                return
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _may_start(self, due: datetime) -> bool:
        if self._schedule.concurrency_policy == "Allow":
            return True
        fired = (await self._served.ask(self._served.queue.fired())).get(self._schedule.name)
        if fired is None:
            return True
        last = task_id(self._schedule.name, fired)
        with contextlib.suppress(TaskNotFoundError):  # it has ended so long ago that it is forgotten
            state = (await self._served.ask(self._served.queue.get(last))).state
            if not state.final and fired < due:
                _log.info(
                    "schedule %s of queue %s leaves out %s: its task %s is still %s",
                    self._schedule.name, self._queue, due.isoformat(), last, state, extra={"queue": self._queue},
                )  # fmt: skip
                self._missed(due, "running")
                return False
        return True

    def _task(self, due: datetime) -> TaskRequest:
        given = self._schedule.task.model_dump(exclude_unset=True)
        return TaskRequest(id=task_id(self._schedule.name, due), **given)

    def _missed(self, due: datetime, reason: str) -> None:
        self._owner.count_missed(self._queue, self._schedule.name, reason=reason)
        if reason == "late":
            _log.warning(
                "schedule %s of queue %s did not fire for %s", self._schedule.name, self._queue, due.isoformat(),
                extra={"queue": self._queue},
            )  # fmt: skip

    def _warn(self, due: datetime, error: KubeagentsError) -> None:
        if not self._warned:
            _log.warning(
                "schedule %s of queue %s cannot fire for %s yet, trying on: %s",
                self._schedule.name, self._queue, due.isoformat(), error, extra={"queue": self._queue},
            )  # fmt: skip
        self._warned = True

    async def _sleep_until(self, due: datetime) -> None:
        while (left := (due - self._clock.now()).total_seconds()) > 0:
            await self._clock.sleep(min(left, _LONGEST_SLEEP_SECONDS))
