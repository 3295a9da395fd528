# SPDX-License-Identifier: Apache-2.0
"""What a queue should do, in the fewest words: a reference that is slow, sequential and easy to check by eye.

It shares no code with the implementations. Times are seconds of its own; nothing happens by itself: what is due is
moved when somebody claims or asks for figures, as the queue promises. Turns of tenants are left open: it says which
tasks may be next, not which one is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kubeagents_api.task import TaskState as S

LEASE, BACKOFF, DELAY, DEADLINE = 3000.0, 10000.0, 10000.0, 100000.0
_ENDS = ("succeeded", "failed", "cancelled", "expired")
WAITING = (S.BLOCKED, S.SCHEDULED, S.QUEUED)


class Refused(Exception):
    """The batch is not let in. `full` tells that only room was missing."""

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(f"full: {full}")
        self.full = full


@dataclass
class Wish:
    """One task of a submission."""

    id: str
    lane: str = ""
    priority: int = 5
    tenant: str | None = None
    max_attempts: int = 2
    delayed: bool = False
    mortal: bool = False
    key: str | None = None
    parents: tuple[str, ...] = ()
    policy: str = "Fail"


@dataclass
class Known:
    """One task that was let in."""

    wish: Wish
    order: int
    parents: tuple[str, ...]
    not_before: float | None
    deadline: float | None
    state: S = S.BLOCKED
    attempts: int = 0
    replays: int = 0
    failures: list[str] = field(default_factory=list)
    due: float = 0.0
    token: str | None = None
    worker: str | None = None
    lease: float = 0.0
    accepted: set[str] = field(default_factory=set)
    outcomes: dict[str, S] = field(default_factory=dict)


@dataclass
class Reference:
    """A queue."""

    max_depth: int | None = None
    shed: bool = False
    concurrency: int | None = None
    tenant_concurrency: int | None = None
    now: float = 0.0
    tasks: dict[str, Known] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    gates: dict[str, set[str]] = field(default_factory=lambda: {"claims": set(), "submissions": set()})
    cordons: dict[str, set[str]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("submitted", *_ENDS), 0))
    orders: int = 0

    def count(self, *states: S) -> int:
        """How many tasks are in one of the states."""
        return sum(task.state in states for task in self.tasks.values())

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, wishes: Sequence[Wish]) -> list[str]:
        """The ids; or Refused, and nothing has changed."""
        if self.gates["submissions"]:
            raise Refused
        keys = dict(self.keys)
        ids, fresh = [], []
        for wish in wishes:
            first = wish.id if wish.key is None else keys.setdefault(wish.key, wish.id)
            ids.append(first)
            if wish.key is None or (first == wish.id and wish.key not in self.keys):
                fresh.append(wish)
        if any(wish.id in self.tasks for wish in fresh) or self._is_cyclic(wishes):
            raise Refused
        actual = {wish.id: task_id for wish, task_id in zip(wishes, ids, strict=True)}
        parents = {wish.id: tuple(dict.fromkeys(actual.get(p, p) for p in wish.parents)) for wish in fresh}
        if any(name not in parents and name not in self.tasks for names in parents.values() for name in names):
            raise Refused
        self._make_room(len(fresh), min(wish.priority for wish in wishes))
        self.keys = keys
        for wish in fresh:
            self._let_in(wish, parents[wish.id])
        for wish in fresh:
            self._look_at_parents(self.tasks[wish.id])
        return ids

    def _is_cyclic(self, wishes: Sequence[Wish]) -> bool:
        # Tasks of one key are one, whether or not it is known: no batch is refused only sometimes.
        of_key: dict[str | None, str] = {}
        meant = {w.id: w.id if w.key is None else of_key.setdefault(w.key, w.id) for w in wishes}
        parents = {w.id: tuple(meant.get(p, p) for p in w.parents) for w in wishes if meant[w.id] == w.id}
        return any(self._reaches(parents, name, name) for name in parents)

    def _reaches(self, parents: dict[str, tuple[str, ...]], start: str, goal: str) -> bool:
        seen, todo = set(), list(parents.get(start, ()))
        while todo:
            name = todo.pop()
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                todo += parents.get(name, ())
        return False

    def _make_room(self, size: int, least: int) -> None:
        if self.max_depth is None or not size:
            return
        too_many = self.count(*WAITING) + size - self.max_depth
        if too_many <= 0:
            return
        lower = [task for task in self.tasks.values() if task.state is S.QUEUED and task.wish.priority < least]
        lower.sort(key=lambda task: (task.wish.priority, -task.order))
        if not self.shed or len(lower) < too_many:
            raise Refused(full=True)
        for task in lower[:too_many]:
            self._end(task, S.CANCELLED, "SHED")

    def _let_in(self, wish: Wish, parents: tuple[str, ...]) -> None:
        self.orders += 1
        self.totals["submitted"] += 1
        self.tasks[wish.id] = Known(
            wish,
            self.orders,
            parents,
            not_before=self.now + DELAY if wish.delayed else None,
            deadline=self.now + DEADLINE if wish.mortal else None,
        )

    def _look_at_parents(self, task: Known) -> None:
        if task.state is not S.BLOCKED:
            return
        ended = [name for name in task.parents if name in task.outcomes or self.tasks[name].state.final]
        for name in ended:
            if name not in task.outcomes:
                task.outcomes[name] = self.tasks[name].state
            state = task.outcomes[name]
            if state is not S.SUCCEEDED and task.wish.policy != "Run":
                self._end(task, S.FAILED if task.wish.policy == "Fail" else S.CANCELLED, "PARENT_FAILED")
                return
        if len(ended) == len(task.parents):
            if task.not_before is not None and task.not_before > self.now:
                task.state, task.due = S.SCHEDULED, task.not_before
            else:
                task.state = S.QUEUED

    # ── through ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tidy(self) -> None:
        """Move what is due."""
        for task in list(self.tasks.values()):
            if not task.state.final and task.deadline is not None and task.deadline <= self.now:
                self._end(task, S.EXPIRED, "DEADLINE_EXCEEDED")
        for task in self.tasks.values():
            if task.state is S.SCHEDULED and task.due <= self.now:
                task.state = S.QUEUED
        for task in list(self.tasks.values()):
            if task.token is not None and task.lease <= self.now:
                self._fail(task, "LEASE_EXPIRED", wait=0.0)

    def may_be_next(self, lanes: Iterable[str]) -> set[str]:
        """The tasks of which one must be taken by a worker that serves these lanes; none if it must get nothing."""
        if self.gates["claims"] or (self.concurrency is not None and self.count(S.RUNNING) >= self.concurrency):
            return set()
        free = [
            task
            for task in self.tasks.values()
            if task.state is S.QUEUED and task.wish.lane in lanes and not self._at_limit(task.wish.tenant)
        ]
        highest = max((task.wish.priority for task in free), default=0)
        # First in, first out: of the tasks without tenant over all lanes, of those of a tenant in each lane.
        first: dict[tuple[str | None, str], Known] = {}
        for task in sorted(free, key=lambda task: task.order):
            if task.wish.priority == highest:
                first.setdefault((task.wish.tenant, "" if task.wish.tenant is None else task.wish.lane), task)
        return {task.wish.id for task in first.values()}

    def _at_limit(self, tenant: str | None) -> bool:
        if tenant is None or self.tenant_concurrency is None:
            return False
        running = [task for task in self.tasks.values() if task.state is S.RUNNING and task.wish.tenant == tenant]
        return len(running) >= self.tenant_concurrency

    def start(self, task_id: str, token: str, worker: str) -> Known:
        """A worker has taken the task."""
        task = self.tasks[task_id]
        task.state, task.token, task.worker, task.lease = S.RUNNING, token, worker, self.now + LEASE
        task.attempts += 1
        return task

    def holder(self, task_id: str, token: str) -> Known | None:
        """The task, if the token holds it."""
        task = self.tasks.get(task_id)
        return task if task is not None and task.token == token else None

    def extend(self, task_id: str, token: str) -> bool:
        """Whether the lease was renewed."""
        task = self.holder(task_id, token)
        if task is not None:
            task.lease = self.now + LEASE
        return task is not None

    def settle(self, task_id: str, token: str, *, how: str) -> bool:
        """Whether the outcome counts: `good`, `bad`, `bad at once` (to be tried again), `hopeless`."""
        task = self.holder(task_id, token)
        if task is None:
            return task_id in self.tasks and token in self.tasks[task_id].accepted
        task.accepted.add(token)
        if how == "good":
            self._end(task, S.SUCCEEDED)
        elif how == "hopeless":
            self._end(task, S.FAILED, "FAILED")
        else:
            self._fail(task, "FAILED", wait=0.0 if how == "bad at once" else BACKOFF)
        return True

    def release(self, task_id: str, token: str) -> None:
        """Given back."""
        task = self.holder(task_id, token)
        if task is not None:
            task.token, task.state = None, S.QUEUED
            task.attempts -= 1

    def _fail(self, task: Known, code: str, *, wait: float) -> None:
        if task.attempts >= task.wish.max_attempts:
            self._end(task, S.DEAD, code)
            return
        task.failures.append(code)
        task.token = None
        task.state, task.due = (S.SCHEDULED, self.now + wait) if wait else (S.QUEUED, 0.0)

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, task: Known, state: S, code: str | None = None) -> None:
        task.state, task.token = state, None
        if code is not None:
            task.failures.append(code)
        self.totals["failed" if state is S.DEAD else state.value] += 1
        for child in self.tasks.values():
            if child.state is S.BLOCKED and task.wish.id in child.parents and task.wish.id not in child.outcomes:
                self._look_at_parents(child)

    def cancel(self, task_ids: Iterable[str]) -> list[S]:
        """The states that they are in now."""
        states = []
        for task_id in task_ids:
            task = self.tasks[task_id]
            if not task.state.final:
                self._end(task, S.CANCELLED, "CANCELLED")
            states.append(task.state)
        return states

    def dead(self, task_ids: Iterable[str] | None) -> list[str]:
        """Those of them that are dead; all that are if None."""
        wanted = self.tasks if task_ids is None else set(task_ids)
        return [name for name, task in self.tasks.items() if task.state is S.DEAD and name in wanted]

    def replay(self, task_id: str) -> None:
        """Dead no more."""
        task = self.tasks[task_id]
        self.orders += 1
        task.order = self.orders
        task.state, task.attempts, task.deadline = S.QUEUED, 0, None
        task.replays += 1

    def purge(self, task_id: str) -> None:
        """Known no more."""
        task = self.tasks.pop(task_id)
        if task.wish.key is not None and self.keys.get(task.wish.key) == task_id:
            del self.keys[task.wish.key]
