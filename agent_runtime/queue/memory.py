# SPDX-License-Identifier: Apache-2.0
"""The queue in memory: the same promises as in Redis, for one process and as long as it lives.

For unit tests of what uses a queue. It is one object: whoever shall see its tasks must be given it, in one event loop.
"""

import asyncio
import bisect
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from agent_runtime.queue.base import (
    Beat,
    Claim,
    Gate,
    Orders,
    Outcome,
    Partial,
    Progress,
    StorageInfo,
    Worker,
)
from agent_runtime.queue.interfaces import KEPT_SECONDS, Said, current, digest_and_text
from agent_runtime.queue.lanes import ANY_LANE, UNROUTABLE_NAMED, WAITING_NAMED, lanes_of, largest, target_of
from agent_runtime.queue.memory_clock import Clock, ManualClock, Signal, Signals
from agent_runtime.queue.memory_ledger import Ledger
from agent_runtime.queue.memory_streams import EventLog, encode_item, parse_offset
from agent_runtime.queue.memory_submission import Submission
from agent_runtime.queue.memory_tasks import death
from agent_runtime.queue.records import moment
from kubeagents_api.errors import CordonedError, InvalidTaskError, PayloadTooLargeError, QueueFullError
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    ParentOutcome,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskEventKind,
    TaskRecord,
    TaskRequest,
    TaskState,
)

__all__ = ["ManualClock", "MemoryTaskQueue"]

ORDERS_KEPT_SECONDS: Final = 3600
"""How long a process that has never shown up stays cordoned."""
_GATE_EVENTS: Final = {
    (Gate.CLAIMS, True): TaskEventKind.PAUSED,
    (Gate.CLAIMS, False): TaskEventKind.RESUMED,
    (Gate.SUBMISSIONS, True): TaskEventKind.CLOSED,
    (Gate.SUBMISSIONS, False): TaskEventKind.OPENED,
}
T = TypeVar("T")


class _Mailbox(asyncio.Queue[str | None]):
    """What was taken away from a worker; "" says that there are new orders, None closes it."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self.worker = worker


class MemoryTaskQueue:
    """One queue in memory, whatever `config.shards` says. See `TaskQueue` for the methods.

    `clock` gives seconds since 1970, the system's time if unset. With a `ManualClock` time stands still until the test
    moves it: nothing expires, no delay ends, and no wait times out by itself.
    """

    def __init__(self, config: QueueConfig, *, clock: Clock | None = None) -> None:
        self.name = config.name
        self._config = config
        self._clock: Clock = time.time if clock is None else clock
        self._change = Signal(self._clock)
        self._news = Signal(self._clock)
        self._about_task = Signals(self._clock)
        self._mailboxes: weakref.WeakSet[_Mailbox] = weakref.WeakSet()
        self._beats: dict[str, tuple[Beat, int]] = {}
        self._cordons: dict[str, dict[str, int]] = {}
        """Process -> who has cordoned it -> since when, ms."""
        self._said: dict[str, Said] = {}
        self._fired: dict[str, datetime] = {}
        self._ledger = Ledger(
            config,
            now=self._now,
            on_change=self._change.ring,
            on_end=self._about_task.ring,
            log=EventLog(keep=config.keep_events, now=self._now, on_event=self._news.ring),
            on_revoked=self._revoke,
        )

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _revoke(self, worker: str, task_id: str) -> None:
        """Tell a worker that a task was taken away from it; "" that it has new orders."""
        for mailbox in list(self._mailboxes):
            if mailbox.worker == worker:
                mailbox.put_nowait(task_id)

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See TaskQueue.submit."""
        if not tasks:
            return []
        return await self._with_room(Submission(self._ledger, tasks).enter)

    async def fire(self, schedule: str, due: datetime, task: TaskRequest) -> bool:
        """See TaskQueue.fire."""
        submission = Submission(self._ledger, [task])

        def enter() -> bool:
            if schedule in self._fired and self._fired[schedule] >= due:
                return False
            submission.enter()
            self._fired[schedule] = due.astimezone(UTC)
            return True

        return await self._with_room(enter)

    async def _with_room(self, enter: Callable[[], T]) -> T:
        """Try until there is room, if the queue's limits say so."""
        limits = self._config.limits
        until = self._clock() + limits.block_seconds
        while True:
            try:
                return enter()
            except QueueFullError:
                if limits.when_full != "Block" or self._clock() >= until:
                    raise
            await self._change.wait(until)

    async def fired(self) -> dict[str, datetime]:
        """See TaskQueue.fired."""
        return dict(self._fired)

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See TaskQueue.cancel."""
        tasks = [self._ledger.find(task_id) for task_id in task_ids]
        message = f"cancelled by {by}: {reason}" if reason else f"cancelled by {by}"
        for task in tasks:
            if not task.state.final:
                self._ledger.cut_short(task, TaskState.CANCELLED, "CANCELLED", message, by=by)
        return [task.state for task in tasks]

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See TaskQueue.claim. May be cancelled at any time."""
        if limit < 1:
            raise ValueError(f"limit is {limit}, it must be at least 1")
        until = self._clock() + wait_seconds
        while True:
            if worker.instance in self._cordons:
                self._ledger.tidy()
                raise CordonedError(f"queue {self.name!r} gives nothing to {worker.instance!r}: it is cordoned")
            claims = self._ledger.claim(worker, limit=limit)
            if claims or self._clock() >= until:
                return claims
            due = self._ledger.next_due()
            await self._change.wait(until if due is None else min(until, due / 1000))

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See TaskQueue.extend."""
        return [claim for claim in claims if not self._ledger.extend(claim)]

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See TaskQueue.settle."""
        return [self._ledger.settle(outcome) for outcome in outcomes]

    async def release(self, claims: Sequence[Claim]) -> None:
        """See TaskQueue.release. What is not held any more is left alone."""
        for claim in claims:
            self._ledger.release(claim)

    def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See TaskQueue.revoked. Hears what happens from the call on, so nothing is ever missed."""
        mailbox = _Mailbox(worker.instance)
        self._mailboxes.add(mailbox)
        return _letters(mailbox)

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See TaskQueue.emit."""
        most = self._config.max_payload_bytes
        for item in items:
            if isinstance(item, Progress) and item.fraction is not None and not 0 <= item.fraction <= 1:
                raise InvalidTaskError(
                    f"task {claim.id!r} says that {item.fraction} of it is done: that must be 0 to 1", field="fraction"
                )
            if (size := len(encode_item(item))) > most:
                raise PayloadTooLargeError(
                    f"task {claim.id!r} says something of {size} bytes, the queue {self.name!r} takes at most {most} "
                    "(spec.maxPayloadBytes): cut it",
                    field="items",
                )
        held = self._ledger.emit(claim, items)
        self._about_task.ring(claim.id)
        return held

    async def stream(self, task_id: str, *, after: str = "") -> AsyncIterator[StreamItem]:
        """See TaskQueue.stream."""
        position = parse_offset(after)
        task = self._ledger.find(task_id)
        with self._about_task.of([task_id]) as news:
            while True:
                found, ended = task.said.after(position), task.state.final
                for position, item in found:  # noqa: B007 - where to read on
                    yield item
                if ended:
                    return
                if not found:
                    await news.wait()

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See TaskQueue.parents."""
        return dict(self._ledger.find(claim.id).outcomes)

    async def get(self, task_id: str) -> TaskRecord:
        """See TaskQueue.get."""
        return self._ledger.find(task_id).record(queue=self.name)

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See TaskQueue.wait."""
        until = self._clock() + timeout_seconds
        tasks = [self._ledger.find(task_id) for task_id in task_ids]
        running = [task for task in tasks if not task.state.final]
        with self._about_task.of(task.id for task in running) as news:
            while running and self._clock() < until:
                await news.wait(until)
                while running and running[-1].state.final:
                    running.pop()
        return [task.record(queue=self.name) for task in tasks]

    async def list_dead(self, which: DeadFilter | None = None, *, limit: int, after: str = "") -> list[TaskRecord]:
        """See TaskQueue.list_dead."""
        tasks = self._ledger.dead(which)
        if after:
            last = self._ledger.find(after)
            if last.state is not TaskState.DEAD:
                raise InvalidTaskError(
                    f"the task {after!r} is not dead any more: begin again with the first page", field="after"
                )
            tasks = tasks[bisect.bisect_right(tasks, death(last), key=death) :]
        return [task.record(queue=self.name) for task in tasks[:limit]]

    async def replay(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.replay. In the order of the ids, if the filter names them; else what died first goes first."""
        tasks = self._ledger.chosen_dead(which)
        for task in tasks:
            self._ledger.replay(task, by=by)
        return [task.id for task in tasks]

    async def purge(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.purge."""
        tasks = self._ledger.chosen_dead(which)
        for task in tasks:
            self._ledger.purge(task, by=by)
        return [task.id for task in tasks]

    async def set_gate(self, gate: Gate, *, shut: bool, by: str) -> None:
        """See TaskQueue.set_gate."""
        names = self._ledger.gates[gate]
        if (by in names) == shut:
            return
        if shut:
            names.add(by)
        else:
            names.remove(by)
        self._ledger.log.note(_GATE_EVENTS[gate, shut], by=by)
        self._change.ring()

    async def events(self, *, after: str = "", limit: int, wait_seconds: float = 0.0) -> list[TaskEvent]:
        """See TaskQueue.events."""
        log = self._ledger.log
        position = log.before_newest() if after == "$" else parse_offset(after)
        until = self._clock() + wait_seconds
        while True:
            found = log.after(position, limit=limit)
            if found or self._clock() >= until:
                return found
            await self._news.wait(until)

    async def stats(self) -> QueueStats:
        """See TaskQueue.stats."""
        self._ledger.tidy()
        counts, totals, lanes = self._ledger.counts, self._ledger.totals, self._ledger.lanes
        tasks = self._ledger.tasks
        first = {
            target_of(name): min(tasks[task].created for task in lane.waiting)
            for name, lane in lanes.items()
            if lane.waiting
        }
        oldest = min(first.values(), default=None)
        served = {ANY_LANE, *(lane for beat, _ in self._beats.values() for lane in lanes_of(beat.worker))}
        sizes = {name: len(lane.waiting) for name, lane in lanes.items() if lane.waiting}
        unroutable = {target_of(name): size for name, size in sizes.items() if name not in served}
        waiting = largest({target_of(name): size for name, size in sizes.items()}, WAITING_NAMED)
        return QueueStats(
            queue=self.name,
            queued=counts[TaskState.QUEUED],
            running=counts[TaskState.RUNNING],
            scheduled=counts[TaskState.SCHEDULED],
            dead=counts[TaskState.DEAD],
            blocked=counts[TaskState.BLOCKED],
            unroutable=sum(unroutable.values()),
            unroutable_targets=largest(unroutable, UNROUTABLE_NAMED),
            waiting=waiting,
            waiting_since={target: moment(first[target]) for target in waiting},
            submitted_total=self._ledger.submitted_total,
            succeeded_total=totals[TaskState.SUCCEEDED],
            failed_total=totals[TaskState.FAILED] + totals[TaskState.DEAD],
            cancelled_total=totals[TaskState.CANCELLED],
            expired_total=totals[TaskState.EXPIRED],
            oldest_at=None if oldest is None else moment(oldest),
            oldest_seconds=0.0 if oldest is None else max(0, self._now() - oldest) / 1000,
            paused_by=sorted(self._ledger.gates[Gate.CLAIMS]),
            closed_by=sorted(self._ledger.gates[Gate.SUBMISSIONS]),
        )

    async def beat(self, beat: Beat) -> Orders:
        """See TaskQueue.beat."""
        now = self._now()
        self._beats[beat.worker.instance] = (beat, now)
        digest, text = digest_and_text(beat)
        if digest:
            known = self._said.get(digest)
            self._said[digest] = Said(text, since_ms=now if known is None else known.since_ms, seen_ms=now)
        return Orders(cordoned=beat.worker.instance in self._cordons)

    async def cordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.cordon."""
        for instance in instances:
            if instance not in self._cordons:
                self._revoke(instance, "")
            self._cordons.setdefault(instance, {}).setdefault(by, self._now())
        self._change.ring()  # those who wait for tasks find it out

    async def uncordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.uncordon."""
        for instance in instances:
            names = self._cordons.get(instance, {})
            if names.pop(by, None) is not None and not names:
                del self._cordons[instance]
                self._revoke(instance, "")

    async def leave(self, worker: Worker) -> None:
        """See TaskQueue.leave."""
        self._beats.pop(worker.instance, None)
        self._cordons.pop(worker.instance, None)

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See TaskQueue.instances. Sorted by agent and name."""
        now = self._now()
        found = [
            InstanceInfo(
                agent=beat.worker.agent,
                capabilities=list(beat.worker.capabilities),
                instance=beat.worker.instance,
                queue=self.name,
                version=beat.version,
                concurrency=beat.concurrency,
                running=beat.running,
                draining=beat.draining,
                cordoned=beat.cordoned,
                cordoned_by=sorted(self._cordons.get(beat.worker.instance, ())),
                claimed_at=None if beat.claimed_at_ms is None else moment(beat.claimed_at_ms),
                succeeded=beat.succeeded,
                failed=beat.failed,
                revision=beat.revision,
                started_at=moment(beat.started_at_ms),
                last_beat_at=moment(at),
                healthy=now - at <= timeout_seconds * 1000,
            )
            for beat, at in self._beats.values()
        ]
        return sorted(found, key=lambda instance: (instance.agent, instance.instance))

    async def interfaces(self) -> list[InterfaceInfo]:
        """See TaskQueue.interfaces."""
        return current(self._said.values(), queue=self.name)

    async def forget_silent(self, *, silent_seconds: float) -> list[str]:
        """See TaskQueue.forget_silent."""
        oldest = self._now() - silent_seconds * 1000
        silent = [name for name, (_, at) in self._beats.items() if at < oldest]
        for name in silent:
            del self._beats[name]
            self._cordons.pop(name, None)
        for name, since in list(self._cordons.items()):
            if name not in self._beats and max(since.values()) + ORDERS_KEPT_SECONDS * 1000 < self._now():
                del self._cordons[name]
        forgotten = self._now() - KEPT_SECONDS * 1000
        self._said = {digest: said for digest, said in self._said.items() if said.seen_ms >= forgotten}
        return silent

    async def storage(self) -> StorageInfo:
        """See TaskQueue.storage. Nothing survives the process."""
        return StorageInfo(server="memory", eviction_policy="noeviction", append_only=False, latency_ms=0.0)

    async def aclose(self) -> None:
        """See TaskQueue.aclose. The tasks stay as long as the object does."""
        for mailbox in list(self._mailboxes):
            mailbox.put_nowait(None)


async def _letters(mailbox: _Mailbox) -> AsyncIterator[Sequence[str]]:
    while (task_id := await mailbox.get()) is not None:
        yield [task_id] if task_id else []
