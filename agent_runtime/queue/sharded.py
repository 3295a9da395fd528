# SPDX-License-Identifier: Apache-2.0
"""One queue that is cut into several, which a Redis Cluster spreads over its nodes.

Each task is in one shard, and all that is promised of a queue holds inside a shard: priority, order, limits, atomic
submission. Across shards nothing is atomic: closing or pausing reaches them one after the other, and what fails in the
middle may have been done in some of them. All methods may be repeated.

A node that does not answer takes its shards with it, not the queue: workers go on with the others.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from agent_runtime.queue.base import (
    Beat,
    Claim,
    Gate,
    Orders,
    Outcome,
    Partial,
    Progress,
    StorageInfo,
    TaskQueue,
    Worker,
)
from agent_runtime.queue.interfaces import newest
from agent_runtime.queue.lanes import UNROUTABLE_NAMED, WAITING_NAMED, largest
from agent_runtime.queue.sharding import choose_shard, made_up_ids, shard_of
from kubeagents_api.errors import InvalidTaskError, QueueAuthError, QueueUnavailableError
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    ParentOutcome,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
    TaskState,
)

log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")

TROUBLE_SECONDS: Final = 5.0
"""How long a shard that did not answer is passed over by workers, unless they wait."""
_BETWEEN: Final = "_"
"""Separates the offsets of the shards in an offset of the queue."""


class ShardedTaskQueue:
    """A queue of several shards, each a queue of its own. See `TaskQueue` for the methods."""

    def __init__(self, config: QueueConfig, shards: Sequence[TaskQueue]) -> None:
        """`shards` has a queue for each of `config.shards`, made with `sharding.shard_config`."""
        if len(shards) != config.shards:
            raise ValueError(f"{len(shards)} queues were given for {config.shards} shards")
        self.name = config.name
        self._config = config
        self.shards = tuple(shards)
        """The parts. The one of a task is `shard_of(id, len(shards))`."""
        self._submit_turn = 0
        self._claim_turn = 0
        self._trouble = [0.0] * len(shards)
        """Until when each shard is passed over."""

    def _of(self, task_id: str) -> TaskQueue:
        return self.shards[shard_of(task_id, len(self.shards))]

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See TaskQueue.submit. A batch goes to one shard; see `choose_shard`."""
        if not tasks:
            return []
        for task in tasks:
            if task.queue not in (None, self.name):
                raise InvalidTaskError(
                    f"a task is for queue {task.queue!r}, but this is queue {self.name!r}", field="queue"
                )
        shard = choose_shard(tasks, self._config)
        if shard is None:
            shard = self._submit_turn
            self._submit_turn = (shard + 1) % len(self.shards)
        return await self.shards[shard].submit(self._for_shard(tasks, shard))

    def _for_shard(self, tasks: Sequence[TaskRequest], shard: int) -> list[TaskRequest]:
        made_up = iter(made_up_ids(sum(task.id is None for task in tasks), shard=shard, shards=len(self.shards)))
        return [
            task.model_copy(update={"queue": None, "id": next(made_up) if task.id is None else task.id})
            for task in tasks
        ]

    async def fire(self, schedule: str, due: datetime, task: TaskRequest) -> bool:
        """See TaskQueue.fire. Each due time fires once; that a later one has fired is looked up before."""
        fired = (await self.fired()).get(schedule)
        if fired is not None and fired >= due:
            return False
        shard = choose_shard([task], self._config) or 0
        return await self.shards[shard].fire(schedule, due, self._for_shard([task], shard)[0])

    async def fired(self) -> dict[str, datetime]:
        """See TaskQueue.fired."""
        latest: dict[str, datetime] = {}
        for fired in await self._all(lambda shard: shard.fired()):
            for schedule, due in fired.items():
                latest[schedule] = max(due, latest.get(schedule, due))
        return latest

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See TaskQueue.cancel."""
        if len({shard_of(task_id, len(self.shards)) for task_id in task_ids}) > 1:
            await self.wait(task_ids, timeout_seconds=0)  # raises if there is one that is not known
        return await self._by_id(task_ids, _same, lambda shard, ids: shard.cancel(ids, by=by, reason=reason))

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See TaskQueue.claim. Takes from one shard after the other, beginning with another one each time."""
        if limit < 1:
            raise ValueError(f"limit is {limit}, it must be at least 1")
        until = time.monotonic() + wait_seconds
        claims = await self._claim_in_turn(worker, limit)
        left = until - time.monotonic()
        if claims or left <= 0:
            return claims
        return await self._claim_first(worker, limit, left)

    async def _claim_in_turn(self, worker: Worker, limit: int) -> list[Claim]:
        """What is there, without waiting."""
        claims: list[Claim] = []
        count = len(self.shards)
        begin, now = self._claim_turn, time.monotonic()
        in_turn = [number % count for number in range(begin, begin + count)]
        well = [number for number in in_turn if self._trouble[number] <= now]
        self._claim_turn = (begin + 1) % count
        failure: QueueUnavailableError | None = None
        try:
            for number in well or in_turn:
                try:
                    claims += await self.shards[number].claim(worker, limit=limit - len(claims), wait_seconds=0)
                except QueueUnavailableError as error:
                    self._troubled(number, error)
                    failure = error
                    continue
                self._trouble[number] = 0.0
                if len(claims) >= limit:
                    self._claim_turn = (number + 1) % count
                    break
        except BaseException:
            await self._give_back(claims)
            raise
        if failure is not None and not claims and all(self._trouble):
            raise failure
        return claims

    async def _claim_first(self, worker: Worker, limit: int, wait_seconds: float) -> list[Claim]:
        """Wait at all shards for the first tasks that come; what came elsewhere at the same moment is kept too."""
        waiting = {
            asyncio.create_task(shard.claim(worker, limit=limit, wait_seconds=wait_seconds)): number
            for number, shard in enumerate(self.shards)
        }
        claims: list[Claim] = []
        failures: list[QueueUnavailableError] = []
        try:
            while waiting and not claims:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    number = waiting.pop(task)
                    try:
                        claims += task.result()
                    except QueueUnavailableError as error:
                        self._troubled(number, error)
                        failures.append(error)
        except BaseException:
            await self._give_back(claims + await _stopped(waiting))
            raise
        claims += await _stopped(waiting)
        if len(failures) == len(self.shards):
            raise failures[0]
        await self._give_back(claims[limit:])
        return claims[:limit]

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        if claims:
            await asyncio.shield(self.release(claims))

    def _troubled(self, number: int, error: QueueUnavailableError) -> None:
        """Pass the shard over for a while. Raises QueueAuthError, which does not pass by itself."""
        if isinstance(error, QueueAuthError):
            raise error
        if self._trouble[number] == 0.0:
            log.warning("queue %s: going on without shard %d: %s", self.name, number, error)
        self._trouble[number] = time.monotonic() + TROUBLE_SECONDS

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See TaskQueue.extend."""
        parts = self._parts(claims, _id_of_claim)
        lost = await _together([self.shards[shard].extend(part) for shard, part in parts.items()])
        return [claim for part in lost for claim in part]

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See TaskQueue.settle."""
        return await self._by_id(outcomes, lambda outcome: outcome.claim.id, lambda shard, part: shard.settle(part))

    async def release(self, claims: Sequence[Claim]) -> None:
        """See TaskQueue.release."""
        parts = self._parts(claims, _id_of_claim)
        await _together([self.shards[shard].release(part) for shard, part in parts.items()])

    def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See TaskQueue.revoked."""
        return _merged([shard.revoked(worker) for shard in self.shards])

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See TaskQueue.emit."""
        return await self._of(claim.id).emit(claim, items)

    def stream(self, task_id: str, *, after: str = "") -> AsyncIterator[StreamItem]:
        """See TaskQueue.stream."""
        return self._of(task_id).stream(task_id, after=after)

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See TaskQueue.parents."""
        return await self._of(claim.id).parents(claim)

    async def get(self, task_id: str) -> TaskRecord:
        """See TaskQueue.get."""
        return self._named(await self._of(task_id).get(task_id))

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See TaskQueue.wait."""
        records = await self._by_id(
            task_ids, _same, lambda shard, ids: shard.wait(ids, timeout_seconds=timeout_seconds), hasty=True
        )
        return [self._named(record) for record in records]

    async def list_dead(self, which: DeadFilter | None = None, *, limit: int, after: str = "") -> list[TaskRecord]:
        """See TaskQueue.list_dead."""
        which = which or DeadFilter()
        begin = [(which, "")] * len(self.shards)
        if after:
            begin = await self._dead_after(which, after)
        pages = await _together(
            [
                shard.list_dead(filter_, limit=limit, after=last)
                for shard, (filter_, last) in zip(self.shards, begin, strict=True)
            ]
        )
        newest_first = heapq.merge(
            *([(record, number) for record in page] for number, page in enumerate(pages)), key=_death_order
        )
        return [self._named(record) for record, _ in newest_first][:limit]

    async def _dead_after(self, which: DeadFilter, after: str) -> list[tuple[DeadFilter, str]]:
        """Where each shard's next page begins: in the one of the last task behind it, in others by its time of death.

        Of those that died in the same millisecond, the ones in shards with lower numbers are on earlier pages.
        """
        home = shard_of(after, len(self.shards))
        last = await self.shards[home].get(after)
        if last.state is not TaskState.DEAD or last.finished_at is None:
            raise InvalidTaskError(
                f"the task {after!r} is not dead, or not any more, so no page can follow it: begin anew", field="after"
            )
        begin: list[tuple[DeadFilter, str]] = []
        for number in range(len(self.shards)):
            if number == home:
                begin.append((which, after))
                continue
            before = last.finished_at + timedelta(milliseconds=number > home)
            if which.before is not None:
                before = min(before, which.before)
            begin.append((which.model_copy(update={"before": before}), ""))
        return begin

    async def replay(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.replay."""
        return await self._of_dead(which, lambda shard, part: shard.replay(part, by=by))

    async def purge(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.purge."""
        return await self._of_dead(which, lambda shard, part: shard.purge(part, by=by))

    async def _of_dead(
        self, which: DeadFilter, change: Callable[[TaskQueue, DeadFilter], Coroutine[Any, Any, list[str]]]
    ) -> list[str]:
        if which.ids is None:
            changed = await self._all(lambda shard: change(shard, which))
            return [task_id for ids in changed for task_id in ids]
        changed = await _together(
            [
                change(self.shards[number], which.model_copy(update={"ids": list(ids)}))
                for number, ids in self._parts(which.ids, _same).items()
            ]
        )
        found = {task_id for ids in changed for task_id in ids}
        return [task_id for task_id in dict.fromkeys(which.ids) if task_id in found]

    async def set_gate(self, gate: Gate, *, shut: bool, by: str) -> None:
        """See TaskQueue.set_gate."""
        await self._all(lambda shard: shard.set_gate(gate, shut=shut, by=by))

    async def events(self, *, after: str = "", limit: int, wait_seconds: float = 0.0) -> list[TaskEvent]:
        """See TaskQueue.events. An offset has one of each shard. Events of different shards come by their time."""
        offsets = [""] * len(self.shards)
        if after == "$":
            newest = await self._all(_newest)
            offsets = [event.offset if event else "" for event in newest]
            found = [event for event in newest if event is not None]
            if found:  # what an offset can be told by
                event = max(found, key=lambda event: event.at)
                return [event.model_copy(update={"offset": _BETWEEN.join(offsets)})]
        elif after:
            offsets = after.split(_BETWEEN)
            if len(offsets) != len(self.shards):
                raise InvalidTaskError(
                    f"{after!r} is no offset of an event of this queue: give one that an event had, `$`, or none",
                    field="after",
                )
        until = time.monotonic() + wait_seconds
        while True:
            pages = await self._all_at(offsets, limit=limit)
            left = until - time.monotonic()
            if left > 0 and not any(pages):
                pages = await self._first_at(offsets, limit=limit, wait_seconds=left)
            found = _in_order(pages, offsets, limit)
            if found or not any(pages):
                return found

    async def _all_at(self, offsets: Sequence[str], *, limit: int) -> list[list[TaskEvent]]:
        return await _together(
            [shard.events(after=offset, limit=limit) for shard, offset in zip(self.shards, offsets, strict=True)]
        )

    async def _first_at(self, offsets: Sequence[str], *, limit: int, wait_seconds: float) -> list[list[TaskEvent]]:
        """What comes first, from whatever shards that is."""
        waiting = {
            asyncio.create_task(shard.events(after=offset, limit=limit, wait_seconds=wait_seconds)): number
            for number, (shard, offset) in enumerate(zip(self.shards, offsets, strict=True))
        }
        pages: list[list[TaskEvent]] = [[] for _ in self.shards]
        try:
            while waiting and not any(pages):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    pages[waiting.pop(task)] = task.result()
        finally:
            await _stopped(waiting)
        return pages

    async def stats(self) -> QueueStats:
        """See TaskQueue.stats. The figures of the shards are not from the very same moment."""
        parts = await self._all(lambda shard: shard.stats())
        sums = {
            name: sum(getattr(part, name) for part in parts)
            for name, field in QueueStats.model_fields.items()
            if field.annotation is int
        }
        waiting = _sum([part.waiting for part in parts], WAITING_NAMED)
        return QueueStats(
            queue=self.name,
            **sums,
            unroutable_targets=_sum([part.unroutable_targets for part in parts], UNROUTABLE_NAMED),
            waiting=waiting,
            waiting_since={
                target: min(part.waiting_since[target] for part in parts if target in part.waiting_since)
                for target in waiting
                if any(target in part.waiting_since for part in parts)
            },
            oldest_at=min((part.oldest_at for part in parts if part.oldest_at is not None), default=None),
            oldest_seconds=max(part.oldest_seconds for part in parts),
            paused_by=sorted({name for part in parts for name in part.paused_by}),
            closed_by=sorted({name for part in parts for name in part.closed_by}),
        )

    async def beat(self, beat: Beat) -> Orders:
        """See TaskQueue.beat."""
        orders = await self._all(lambda shard: shard.beat(beat))
        return Orders(cordoned=any(order.cordoned for order in orders))

    async def cordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.cordon."""
        await self._all(lambda shard: shard.cordon(instances, by=by))

    async def uncordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.uncordon."""
        await self._all(lambda shard: shard.uncordon(instances, by=by))

    async def leave(self, worker: Worker) -> None:
        """See TaskQueue.leave."""
        await self._all(lambda shard: shard.leave(worker))

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See TaskQueue.instances. All shards are told of all processes; the latest word counts, and every cordon."""
        latest: dict[str, InstanceInfo] = {}
        cordons: dict[str, set[str]] = {}
        for known in await self._all(lambda shard: shard.instances(timeout_seconds=timeout_seconds)):
            for instance in known:
                name = instance.instance
                cordons.setdefault(name, set()).update(instance.cordoned_by)
                if name not in latest or latest[name].last_beat_at < instance.last_beat_at:
                    latest[name] = instance
        named = (
            instance.model_copy(update={"queue": self.name, "cordoned_by": sorted(cordons[name])})
            for name, instance in latest.items()
        )
        return sorted(named, key=lambda instance: (instance.agent, instance.instance))

    async def interfaces(self) -> list[InterfaceInfo]:
        """See TaskQueue.interfaces. All shards are told of all."""
        parts = await self._all(lambda shard: shard.interfaces())
        return newest(one.model_copy(update={"queue": self.name}) for part in parts for one in part)

    async def forget_silent(self, *, silent_seconds: float) -> list[str]:
        """See TaskQueue.forget_silent."""
        dropped = await self._all(lambda shard: shard.forget_silent(silent_seconds=silent_seconds))
        known = {instance.instance for instance in await self.instances(timeout_seconds=silent_seconds)}
        return [name for name in dict.fromkeys(name for names in dropped for name in names) if name not in known]

    async def storage(self) -> StorageInfo:
        """See TaskQueue.storage. The weakest of what holds the shards."""
        parts = await self._all(lambda shard: shard.storage())
        policies = [part.eviction_policy for part in parts]
        evicts = [policy for policy in policies if policy not in (None, "noeviction")]
        return StorageInfo(
            server=", ".join(sorted({part.server for part in parts})),
            eviction_policy=evicts[0] if evicts else None if None in policies else "noeviction",
            append_only=all(part.append_only for part in parts),
            latency_ms=max(part.latency_ms for part in parts),
        )

    async def aclose(self) -> None:
        """See TaskQueue.aclose."""
        await self._all(lambda shard: shard.aclose())

    def _named(self, record: TaskRecord) -> TaskRecord:
        return record.model_copy(update={"queue": self.name})

    def _parts(self, items: Sequence[T], id_of: Callable[[T], str]) -> dict[int, list[T]]:
        parts: dict[int, list[T]] = {}
        for item in items:
            parts.setdefault(shard_of(id_of(item), len(self.shards)), []).append(item)
        return parts

    async def _by_id(
        self,
        items: Sequence[T],
        id_of: Callable[[T], str],
        call: Callable[[TaskQueue, Sequence[T]], Coroutine[Any, Any, list[U]]],
        *,
        hasty: bool = False,
    ) -> list[U]:
        """Let each shard do its part, and put the answers into the order of the items."""
        parts = self._parts(items, id_of)
        answers = await _together([call(self.shards[number], part) for number, part in parts.items()], hasty=hasty)
        by_shard = {number: iter(answer) for number, answer in zip(parts, answers, strict=True)}
        return [next(by_shard[shard_of(id_of(item), len(self.shards))]) for item in items]

    async def _all(self, call: Callable[[TaskQueue], Coroutine[Any, Any, T]]) -> list[T]:
        return await _together([call(shard) for shard in self.shards])


def _in_order(pages: Sequence[Sequence[TaskEvent]], offsets: list[str], limit: int) -> list[TaskEvent]:
    """The events of all shards by their time, with the queue's offsets; moves `offsets` on.

    What happens to the whole queue happens to each shard; it is told once, as the first shard says it.
    """
    found: list[TaskEvent] = []
    numbered = ([(event, number) for event in page] for number, page in enumerate(pages))
    for event, number in heapq.merge(*numbered, key=lambda pair: pair[0].at):
        offsets[number] = event.offset
        if event.task is not None or number == 0:
            found.append(event.model_copy(update={"offset": _BETWEEN.join(offsets)}))
            if len(found) == limit:
                break
    return found


async def _newest(shard: TaskQueue) -> TaskEvent | None:
    """The last event that a shard has."""
    found = await shard.events(after="$", limit=1)
    if found:
        return found[-1]
    last: TaskEvent | None = None
    while found := await shard.events(after=last.offset if last else "", limit=1000):
        last = found[-1]
    return last


async def _together(calls: Sequence[Coroutine[Any, Any, T]], *, hasty: bool = False) -> list[T]:
    """The answers to all calls. Raises the first error once all have ended; `hasty`: at once, and ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION if hasty else asyncio.ALL_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stopped(waiting: Iterable["asyncio.Task[list[T]]"]) -> list[T]:
    """Cancel the calls; what they brought all the same. A claim that is cancelled gives back what it had taken."""
    tasks = list(waiting)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [item for found in ended if not isinstance(found, BaseException) for item in found]


async def _merged(sources: Sequence[AsyncIterator[Sequence[str]]]) -> AsyncIterator[Sequence[str]]:
    """All that the sources give. Ends when all have ended, or one has failed."""
    found: asyncio.Queue[Sequence[str] | None] = asyncio.Queue()

    async def pump(source: AsyncIterator[Sequence[str]]) -> None:
        try:
            async for item in source:
                found.put_nowait(item)
        finally:
            found.put_nowait(None)

    pumps = [asyncio.create_task(pump(source)) for source in sources]
    try:
        while not all(task.done() for task in pumps) or not found.empty():
            item = await found.get()
            if item is not None:
                yield item
                continue
            for task in pumps:
                if task.done():
                    task.result()
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def _same(task_id: str) -> str:
    return task_id


def _id_of_claim(claim: Claim) -> str:
    return claim.id


def _sum(parts: Iterable[Mapping[str, int]], most: int) -> dict[str, int]:
    """What the shards count, by target: the largest."""
    sums: dict[str, int] = {}
    for part in parts:
        for target, count in part.items():
            sums[target] = sums.get(target, 0) + count
    return largest(sums, most)


def _death_order(dead: tuple[TaskRecord, int]) -> tuple[float, int]:
    record, number = dead
    return (-record.finished_at.timestamp() if record.finished_at else 0.0, number)
