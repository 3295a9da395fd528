# SPDX-License-Identifier: Apache-2.0
"""All tasks of a queue in memory, and every transition of one, each in one step: nothing here waits."""

import heapq
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent_runtime.queue.base import Claim, Gate, Outcome, Partial, Progress, Succeeded, Worker
from agent_runtime.queue.dead_filter import fits
from agent_runtime.queue.lanes import lanes_of
from agent_runtime.queue.memory_lanes import Lane
from agent_runtime.queue.memory_limits import Limiter
from agent_runtime.queue.memory_streams import EventLog
from agent_runtime.queue.memory_tasks import (
    Hold,
    StoredTask,
    death,
)
from agent_runtime.queue.records import LONGEST_MESSAGE, moment
from agent_runtime.queue.retrying import retry_delay_seconds, retry_is_useless
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import (
    PRIORITY_HIGHEST,
    DeadFilter,
    TaskEventKind,
    TaskFailure,
    TaskProgress,
    TaskState,
)

WAITING: Final = (TaskState.BLOCKED, TaskState.SCHEDULED, TaskState.QUEUED)
_ENDINGS: Final = {
    TaskState.SUCCEEDED: TaskEventKind.SUCCEEDED,
    TaskState.FAILED: TaskEventKind.FAILED,
    TaskState.DEAD: TaskEventKind.DEAD,
    TaskState.CANCELLED: TaskEventKind.CANCELLED,
    TaskState.EXPIRED: TaskEventKind.EXPIRED,
}
_LOST: Final = "the worker stopped renewing its lease: it was killed, frozen or cut off from the queue"


@dataclass(slots=True)
class Ledger:
    """The tasks, who is next, and what happened. `now` gives ms since 1970."""

    config: QueueConfig
    now: Callable[[], int]
    on_change: Callable[[], None]
    """Called when something may be begun, or has left room."""
    on_end: Callable[[str], None]
    """Called with the id of a task that has ended."""
    log: EventLog
    on_revoked: Callable[[str, str], None]
    """Called with worker and id of a running task that is taken away."""
    tasks: dict[str, StoredTask] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    limiter: Limiter = field(init=False)
    gates: dict[Gate, set[str]] = field(default_factory=lambda: {gate: set() for gate in Gate})
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Idempotency key -> its first task, and when that was submitted."""
    counts: Counter[TaskState] = field(default_factory=Counter)
    totals: Counter[TaskState] = field(default_factory=Counter)
    submitted_total: int = 0
    _sequence: int = 0
    _deaths: int = 0
    _timers: list[tuple[int, str]] = field(default_factory=list)
    """When which task must be looked at. May hold what is not true any more."""
    _expiries: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.config.limits)

    def find(self, task_id: str) -> StoredTask:
        """A task. Raises TaskNotFoundError."""
        self.forget_expired()
        task = self.tasks.get(task_id)
        if task is None:
            raise TaskNotFoundError(
                f"queue {self.config.name!r} has no task {task_id!r}: it was never submitted, or its result has "
                f"expired ({self.config.result_ttl_seconds} s after it finished)"
            )
        return task

    @property
    def depth(self) -> int:
        """How many tasks wait."""
        return sum(self.counts[state] for state in WAITING)

    def next_order(self) -> int:
        """The next number in the order of submission."""
        self._sequence += 1
        return self._sequence

    # ── entering ────────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, tasks: Sequence[StoredTask]) -> None:
        """Let new tasks in. Their parents are known, or among them."""
        for task in tasks:
            self._enter(task)
        for task in tasks:
            for name in task.depends_on:
                parent = self.tasks[name]
                if not parent.state.final:
                    task.pending.add(name)
                    parent.children.append(task.id)
                elif not task.state.final:
                    self._parent_ended(task, parent)
            if not task.state.final and not task.pending:
                self._unblock(task)

    def _enter(self, task: StoredTask) -> None:
        self.tasks[task.id] = task
        self.submitted_total += 1
        self.counts[task.state] += 1
        if task.request.idempotency_key is not None:
            self.keys[task.request.idempotency_key] = (task.id, task.created)
        self.log.note(TaskEventKind.SUBMITTED, task.id)
        if task.deadline is not None:
            self._set_timer(task.deadline, task)

    def _unblock(self, task: StoredTask) -> None:
        if task.not_before is not None and task.not_before > self.now():
            self._schedule(task, task.not_before)
        else:
            self._enqueue(task)

    def _schedule(self, task: StoredTask, due: int) -> None:
        self._turn(task, TaskState.SCHEDULED)
        task.due = due
        self._set_timer(due, task)
        self.on_change()

    def _enqueue(self, task: StoredTask) -> None:
        self._turn(task, TaskState.QUEUED)
        self.lanes.setdefault(task.lane, Lane()).add(task.id, task.place, tenant=task.request.tenant)
        self.on_change()

    # ── running ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, worker: Worker, *, limit: int) -> list[Claim]:
        """Take the best tasks for a worker."""
        self.tidy()
        if self.gates[Gate.CLAIMS]:
            return []
        now = self.now()
        room = self.limiter.room(now)
        served = [self.lanes[name] for name in lanes_of(worker) if name in self.lanes]
        token = os.urandom(8).hex()
        claims: list[Claim] = []
        while len(claims) < (limit if room is None else min(limit, room)):
            found = [
                (*first, lane) for lane in served if (first := lane.first(lambda tenant: self._admits(tenant, now)))
            ]
            if not found:
                break
            _, task_id, lane = min(found, key=lambda entry: entry[0])
            lane.take(task_id, end_of_line=self.next_order())
            claims.append(self._start(self.tasks[task_id], worker, token, now))
        if claims:
            self.on_change()  # there is room for blocked submissions
        return claims

    def _admits(self, tenant: str, now: int) -> bool:
        room = self.limiter.room_of(tenant, now)
        return room is None or room > 0

    def _start(self, task: StoredTask, worker: Worker, token: str, now: int) -> Claim:
        self.limiter.start(task.request.tenant, now)
        self._turn(task, TaskState.RUNNING)
        lease_ends = now + _ms(self.config.lease_seconds)
        hold = task.hold = Hold(token, worker.instance, now, lease_ends, (task.worker, task.started))
        task.attempts += 1
        task.worker, task.started = worker.instance, now
        self._set_timer(lease_ends, task)
        self.log.note(TaskEventKind.STARTED, task.id, attempt=task.attempts, by=worker.instance)
        return task.claim(hold)

    def next_due(self) -> int | None:
        """When `claim` may find what it does not find now, if nothing else happens."""
        while self._timers and not self._timer_counts(*self._timers[0]):
            heapq.heappop(self._timers)
        moments = [self._timers[0][0]] if self._timers else []
        rated = None
        if self.counts[TaskState.QUEUED]:
            tenants = {tenant for lane in self.lanes.values() for tenant in lane.tenants()}
            rated = self.limiter.next_at(tenants, self.now())
        return min(moments if rated is None else [*moments, rated], default=None)

    def held(self, claim: Claim) -> StoredTask | None:
        """The task, if the claim still holds it."""
        task = self.tasks.get(claim.id)
        return task if task is not None and task.hold is not None and task.hold.token == claim.token else None

    def extend(self, claim: Claim) -> bool:
        """Renew a lease."""
        task = self.held(claim)
        if task is None or task.hold is None:
            return False
        task.hold.lease_ends = self.now() + _ms(self.config.lease_seconds)
        self._set_timer(task.hold.lease_ends, task)
        return True

    def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """Add to what an attempt says."""
        task = self.held(claim)
        if task is None:
            return False
        now = self.now()
        for item in items:
            task.said.add(item, attempt=claim.attempt, now=now)
            if isinstance(item, Progress):
                task.progress = TaskProgress(fraction=item.fraction, message=item.message, at=moment(now))
        return True

    def release(self, claim: Claim) -> None:
        """Give a task back."""
        task = self.held(claim)
        if task is None or task.hold is None:
            return
        self._note_end(TaskEventKind.RELEASED, task, task.hold)
        task.worker, task.started = task.hold.before
        task.attempts -= 1
        self._let_go(task)
        self._enqueue(task)

    def settle(self, outcome: Outcome) -> bool:
        """Record how an attempt ended."""
        task = self.held(outcome.claim)
        if task is None or task.hold is None:
            known = self.tasks.get(outcome.claim.id)
            return known is not None and outcome.claim.token in known.settled
        task.settled.add(outcome.claim.token)
        if isinstance(outcome, Succeeded):
            task.result = outcome.result
            self._finish(task, TaskState.SUCCEEDED)
            return True
        message = outcome.message
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]} … ({len(message) - LONGEST_MESSAGE} more characters)"
        failure = self._failure(task, _clean(outcome.code), _clean(message))
        if outcome.permanent or retry_is_useless(outcome, self.config.retry):
            self._finish(task, TaskState.FAILED, failure)
        elif task.attempts >= task.max_attempts:
            self._finish(task, TaskState.DEAD, failure)
        else:
            self._note_end(TaskEventKind.RETRYING, task, task.hold)
            luck = random.random()  # noqa: S311 - spreads load, guards nothing
            self._retry(task, failure, retry_delay_seconds(outcome, self.config.retry, luck=luck))
        return True

    def _retry(self, task: StoredTask, failure: TaskFailure, delay: float) -> None:
        task.failures.append(failure)
        self._let_go(task)
        if _ms(delay) > 0:
            self._schedule(task, self.now() + _ms(delay))
        else:
            self._enqueue(task)

    def _let_go(self, task: StoredTask) -> None:
        """Nobody holds the task any more."""
        task.hold = None
        task.progress = None
        self.limiter.stop(task.request.tenant)

    # ── ending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def cut_short(self, task: StoredTask, state: TaskState, code: str, message: str, *, by: str | None = None) -> None:
        """End a task before its time: cancelled or expired, wherever it is."""
        revoked_from = None if task.hold is None else task.hold.worker
        self._finish(task, state, self._failure(task, code, message), by=by)
        if revoked_from is not None:
            self.on_revoked(revoked_from, task.id)

    def _failure(self, task: StoredTask, code: str, message: str) -> TaskFailure:
        """Why the task's attempt failed, or the task if nobody works on it."""
        attempt = 0 if task.hold is None else task.attempts
        worker = None if task.hold is None else task.hold.worker
        return TaskFailure(code=code, message=message, attempt=attempt, worker=worker, at=moment(self.now()))

    def _finish(
        self, task: StoredTask, state: TaskState, failure: TaskFailure | None = None, *, by: str | None = None
    ) -> None:
        """End a task, and those that end because of it."""
        ending = deque([(task, state, failure, by)])
        while ending:
            task, state, failure, by = ending.popleft()
            if task.state.final:
                continue
            self._end(task, state, failure, by)
            for name in task.children:
                child = self.tasks.get(name)
                if child is not None and task.id in child.pending and not child.state.final:
                    doom = self._parent_ended(child, task, later=True)
                    if doom is not None:
                        ending.append((child, *doom, None))
            task.children.clear()
        self.on_change()

    def _end(self, task: StoredTask, state: TaskState, failure: TaskFailure | None, by: str | None) -> None:
        now = self.now()
        if failure is not None:
            task.failures.append(failure)
        hold = task.hold
        if hold is not None:
            self._let_go(task)
        if task.state is TaskState.QUEUED:
            self.lanes[task.lane].discard(task.id)
        self._turn(task, state)
        self.totals[state] += 1
        task.finished = now
        self._deaths += state is TaskState.DEAD
        task.death = self._deaths
        if state is not TaskState.DEAD:
            task.forgotten_at = now + self.config.result_ttl_seconds * 1000
            heapq.heappush(self._expiries, (task.forgotten_at, task.id))
        if hold is None:
            self.log.note(_ENDINGS[state], task.id, by=by)
        else:
            self._note_end(_ENDINGS[state], task, hold, by=by)
        self.on_end(task.id)

    def _note_end(self, kind: TaskEventKind, task: StoredTask, hold: Hold, *, by: str | None = None) -> None:
        self.log.note(kind, task.id, attempt=task.attempts, by=by or hold.worker, since=hold.started)

    def _parent_ended(
        self, child: StoredTask, parent: StoredTask, *, later: bool = False
    ) -> tuple[TaskState, TaskFailure] | None:
        """Tell a blocked task that a parent has ended. If it ends because of that, `later` leaves it to the caller."""
        child.pending.discard(parent.id)
        child.outcomes[parent.id] = parent.outcome()
        policy = child.request.on_parent_failure
        if parent.state is not TaskState.SUCCEEDED and policy != "Run":
            state = TaskState.FAILED if policy == "Fail" else TaskState.CANCELLED
            message = f"the task {parent.id} that it depends on ended as {parent.state.value}"
            failure = self._failure(child, "PARENT_FAILED", message)
            if later:
                return state, failure
            self._finish(child, state, failure)
        elif later and not child.pending:
            self._unblock(child)
        return None

    # ── dead tasks ──────────────────────────────────────────────────────────────────────────────────────────────────

    def dead(self, which: DeadFilter | None) -> list[StoredTask]:
        """Dead tasks, newest first."""
        dead = (task for task in self.tasks.values() if task.state is TaskState.DEAD)
        name = self.config.name
        return sorted((task for task in dead if which is None or fits(task.record(queue=name), which)), key=death)

    def chosen_dead(self, which: DeadFilter) -> list[StoredTask]:
        """Dead tasks in the order of the filter's ids; oldest first if it has none."""
        tasks = self.dead(which)[::-1]
        if which.ids is None:
            return tasks
        order = {task_id: index for index, task_id in enumerate(which.ids)}
        return sorted(tasks, key=lambda task: order[task.id])

    def replay(self, task: StoredTask, *, by: str) -> None:
        """Queue a dead task again."""
        task.attempts = 0
        task.replays += 1
        task.deadline = task.finished = None
        task.place = (task.place[0], self.next_order())
        self.log.note(TaskEventKind.REPLAYED, task.id, by=by)
        self._enqueue(task)

    def purge(self, task: StoredTask, *, by: str) -> None:
        """Remove a dead task."""
        self.log.note(TaskEventKind.PURGED, task.id, by=by)
        self._forget(task)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tidy(self) -> None:
        """Move what is due: deadlines first, then what was scheduled, then leases."""
        self.forget_expired()
        now = self.now()
        due: dict[str, None] = {}
        while self._timers and self._timers[0][0] <= now:
            _, task_id = heapq.heappop(self._timers)
            due[task_id] = None
        tasks = [self.tasks[task_id] for task_id in due if task_id in self.tasks]
        for task in tasks:
            if task.deadline is not None and task.deadline <= now and not task.state.final:
                self.cut_short(task, TaskState.EXPIRED, "DEADLINE_EXCEEDED", "its deadline has passed")
        for task in tasks:
            if task.state is TaskState.SCHEDULED and task.due is not None and task.due <= now:
                self._enqueue(task)
        for task in tasks:
            if task.hold is not None and task.hold.lease_ends <= now:
                self._lease_over(task, task.hold)

    def _lease_over(self, task: StoredTask, hold: Hold) -> None:
        failure = self._failure(task, "LEASE_EXPIRED", _LOST)
        self._note_end(TaskEventKind.LEASE_EXPIRED, task, hold)
        if task.attempts < task.max_attempts:
            self._retry(task, failure, 0)
        else:
            self._finish(task, TaskState.DEAD, failure)

    def _set_timer(self, at: int, task: StoredTask) -> None:
        heapq.heappush(self._timers, (at, task.id))

    def _timer_counts(self, at: int, task_id: str) -> bool:
        task = self.tasks.get(task_id)
        return (
            task is not None
            and not task.state.final
            and at in (task.deadline, task.due, None if task.hold is None else task.hold.lease_ends)
        )

    def forget_expired(self) -> None:
        """Forget the tasks whose results have been kept long enough."""
        now = self.now()
        while self._expiries and self._expiries[0][0] <= now:
            at, task_id = heapq.heappop(self._expiries)
            task = self.tasks.get(task_id)
            if task is not None and task.forgotten_at == at:
                self._forget(task)

    def _forget(self, task: StoredTask) -> None:
        del self.tasks[task.id]
        self.counts[task.state] -= 1
        key = task.request.idempotency_key
        if key is not None and self.keys.get(key, ("", 0))[0] == task.id:
            del self.keys[key]

    def _turn(self, task: StoredTask, state: TaskState) -> None:
        self.counts[task.state] -= 1
        self.counts[state] += 1
        task.state = state
        task.due = None


def place_of(priority: int, order: int) -> tuple[int, int]:
    """The place of a task."""
    return PRIORITY_HIGHEST - priority, order


def _clean(text: str) -> str:
    # An error's text may hold anything, such as halves of surrogate pairs from file names.
    return text.encode("utf-8", "backslashreplace").decode()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
