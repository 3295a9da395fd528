# SPDX-License-Identifier: Apache-2.0
"""The queue in Redis."""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

import orjson

from agent_runtime.cancellation import end
from agent_runtime.queue import scripts
from agent_runtime.queue.base import (
    Beat,
    Claim,
    Gate,
    Orders,
    Outcome,
    Partial,
    Progress,
    StorageInfo,
    Succeeded,
    Worker,
)
from agent_runtime.queue.blobs import ORPHAN_SECONDS, BlobStore
from agent_runtime.queue.calls import LARGEST_CALL, LONGEST_BLOCK_SECONDS, Calls, milliseconds, parts_of
from agent_runtime.queue.connection import Server
from agent_runtime.queue.dead import DeadTasks
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.interfaces import Said, current, digest_and_text
from agent_runtime.queue.keys import Keys
from agent_runtime.queue.lanes import UNROUTABLE_NAMED, WAITING_NAMED, lanes_of, largest, target_of
from agent_runtime.queue.reading import Reading
from agent_runtime.queue.records import (
    Blob,
    decode_claim,
    decode_instance,
    encode_beat,
    encode_failure,
    encode_result,
    json_inside,
    moment,
)
from agent_runtime.queue.retrying import retry_delay_seconds, retry_is_useless
from agent_runtime.queue.scripts import CORDONED, Argument, BoundScripts, Cancelled, Held, Settled
from agent_runtime.queue.submission import Submitter
from agent_runtime.queue.telling import EventLog, Sayings
from agent_runtime.queue.watching import Revocations
from kubeagents_api.errors import CordonedError, TaskNotFoundError
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.limits import RateLimit
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

SHORTEST_BLOCK_SECONDS: Final = 0.02
"""Due times closer than this are taken together."""


class RedisTaskQueue:
    """One queue in one Redis. See the package's docstring for the guarantees, `TaskQueue` for the methods."""

    def __init__(self, config: QueueConfig, *, url: str) -> None:
        self.name = config.name
        self._config = config
        keys = Keys(config.namespace, config.name)
        server = Server(url, longest_block_seconds=LONGEST_BLOCK_SECONDS, key=keys.name("records"))
        self._calls = Calls(config, keys, server, BoundScripts(keys))
        self._blobs = BlobStore(self._calls)
        self._submitter = Submitter(self._calls, self._blobs)
        self._reading = Reading(self._calls, self._blobs)
        self._dead = DeadTasks(self._calls, self._reading.known)
        self._sayings = Sayings(self._calls)
        self._event_log = EventLog(self._calls)
        self._revocations = Revocations(server, keys.name("revoked"))
        self._limits = _limits_text(config)
        self._aftermath: set[asyncio.Task[None]] = set()

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See TaskQueue.submit."""
        return await self._submitter.submit(tasks)

    async def fire(self, schedule: str, due: datetime, task: TaskRequest) -> bool:
        """See TaskQueue.fire."""
        return await self._submitter.fire(schedule, round(due.timestamp() * 1000), task)

    async def fired(self) -> dict[str, datetime]:
        """See TaskQueue.fired."""
        flat = await self._command("HGETALL", self._calls.keys.name("schedules"))
        return {name.decode(): moment(int(due)) for name, due in zip(flat[::2], flat[1::2], strict=True)}

    async def cancel(self, task_ids: Sequence[str], *, by: str, reason: str = "") -> list[TaskState]:
        """See TaskQueue.cancel. More than 1,000 tasks take several round trips, and are not all or none."""
        states: list[TaskState] = []
        message = f"cancelled by {by}" + (f": {reason}" if reason else "")
        for part in parts_of(task_ids, LARGEST_CALL):
            settings: list[Argument] = [*self._kept, json_inside(by), f'"{json_inside(message)}"']
            verdict, told = await self._calls.run(scripts.CANCEL, [*settings, *part])
            if verdict == Cancelled.UNKNOWN:
                raise TaskNotFoundError(
                    f"queue {self.name!r} has no task {part[told]!r}: it was never submitted, or its result has "
                    "expired; nothing was cancelled"
                )
            states += [TaskState(state.decode()) for state in told]
        return states

    @property
    def _kept(self) -> list[Argument]:
        return [self._config.keep_events, self._config.result_ttl_seconds]

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See TaskQueue.claim. May be cancelled at any time: what was taken by then is given back."""
        if limit < 1:
            raise ValueError(f"limit is {limit}, it must be at least 1")
        lanes = lanes_of(worker)
        deadline = time.monotonic() + wait_seconds
        while True:
            claims, due_seconds = await self._claim_now(worker, lanes, limit)
            left = deadline - time.monotonic()
            if claims or left <= 0:
                return claims
            block = LONGEST_BLOCK_SECONDS if due_seconds is None else min(due_seconds, LONGEST_BLOCK_SECONDS)
            await self._listen_for_bell(worker, lanes, min(left, max(block, SHORTEST_BLOCK_SECONDS)))

    async def _claim_now(self, worker: Worker, lanes: Sequence[str], limit: int) -> tuple[list[Claim], float | None]:
        """What can be had at once, and the seconds until something is due (None: nothing is). Raises CordonedError."""
        token = os.urandom(8).hex()

        async def ask(repeated: bool) -> Any:
            return await self._calls.scripts.run(
                self._calls.server.commands,
                scripts.CLAIM,
                [
                    *self._kept,
                    token,
                    int(repeated),
                    min(limit, self._calls.claims_per_call),
                    milliseconds(self._config.lease_seconds),
                    milliseconds(LONGEST_BLOCK_SECONDS),
                    orjson.dumps(worker.instance),
                    self._limits,
                    *lanes,
                ],
            )

        async def take() -> tuple[list[Claim], int]:
            due_ms, records, attempts, gone = await self._calls.server.call(ask)
            if gone:
                log.error(
                    "queue %s: the records of %d queued tasks are gone (%s …): does Redis evict keys? "
                    "maxmemory-policy must be noeviction",
                    self.name,
                    len(gone),
                    gone[0].decode(),
                )
            decoded = [
                decode_claim(record, attempt=attempt, token=token)
                for record, attempt in zip(records, attempts, strict=True)
            ]
            claims = [claim if blob is None else await self._with_payload(claim, blob) for claim, blob in decoded]
            return claims, due_ms

        # The script may have run when we are cancelled: then nobody would know what it took until the leases end.
        taking = asyncio.create_task(take())
        try:
            claims, due_ms = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._afterwards(self._give_back(taking))
            raise
        if due_ms == CORDONED:
            raise CordonedError(f"queue {self.name!r} gives nothing to {worker.instance!r}: it is cordoned")
        return claims, None if due_ms < 0 else due_ms / 1000

    async def _with_payload(self, claim: Claim, blob: Blob) -> Claim:
        return replace(claim, payload=await self._blobs.read(blob, task_id=claim.id))

    async def _give_back(self, taking: "asyncio.Task[tuple[list[Claim], int]]") -> None:
        claims, _ = await taking
        if claims:
            await self.release(claims)

    async def _listen_for_bell(self, worker: Worker, lanes: Sequence[str], seconds: float) -> None:
        """Return when there is work, or after that time."""
        bells = [self._calls.keys.bell(lane) for lane in lanes]

        async def listen(repeated: bool) -> None:
            if not repeated:  # else the token may have got lost with the connection: go and look
                await execute(self._calls.server.blocking, "BLPOP", *bells, f"{seconds:.3f}")

        listening = asyncio.create_task(self._calls.server.call(listen))
        try:
            await asyncio.shield(listening)
        except asyncio.CancelledError:
            self._afterwards(self._ring_again(listening, worker, lanes))
            raise

    async def _ring_again(self, listening: "asyncio.Task[None]", worker: Worker, lanes: Sequence[str]) -> None:
        """Stop listening. We may have taken the token already: another worker must hear it."""
        await end(listening)
        if not listening.cancelled():
            listening.exception()  # seen, and of no interest any more
        await self._claim_now(worker, lanes, 0)

    async def extend(self, claims: Sequence[Claim]) -> list[Claim]:
        """See TaskQueue.extend."""
        lost: list[Claim] = []
        for part in parts_of(claims, LARGEST_CALL):
            arguments: list[Argument] = [milliseconds(self._config.lease_seconds)]
            for claim in part:
                arguments += (claim.id, claim.token)
            held = await self._calls.run(scripts.EXTEND, arguments)
            lost += [claim for claim, reply in zip(part, held, strict=True) if reply == Held.NOT_HELD]
        return lost

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See TaskQueue.settle. Not all or none: a long list takes several round trips."""
        accepted: list[bool] = []
        for part in parts_of(outcomes, self._calls.claims_per_call):
            arguments: list[Argument] = self._kept
            blobs: list[Blob] = []
            endings = [self._ending(outcome, blobs) for outcome in part]
            if blobs:
                await self._blobs.write(blobs, ttl_seconds=self._config.result_ttl_seconds + ORPHAN_SECONDS)
            for head, run in itertools.groupby(endings, key=itemgetter(slice(3))):
                neighbours = [text for *_, task_id, body in run for text in (task_id, body)]
                arguments += head
                arguments.append(len(neighbours) // 2)
                arguments += neighbours
            replies = await self._calls.run(scripts.SETTLE, arguments)
            for outcome, reply in zip(part, replies, strict=True):
                if reply == Settled.GONE:
                    log.error(
                        "queue %s: the record of running task %s is gone, and its outcome with it: does Redis evict "
                        "keys? maxmemory-policy must be noeviction",
                        self.name,
                        outcome.claim.id,
                    )
                accepted.append(reply in (Settled.ACCEPTED, Settled.REPEATED))
        return accepted

    def _ending(self, outcome: Outcome, blobs: list[Blob]) -> tuple[str, str, int, str, bytes]:
        """How the attempt ended, as the settle script wants it: kind, token, delay in ms, id, body."""
        claim = outcome.claim
        if isinstance(outcome, Succeeded):
            body, blob = encode_result(outcome.result, self._config)
            if blob is not None:
                blobs.append(blob)
            return "succeeded", claim.token, 0, claim.id, body
        body = encode_failure(outcome)
        retry = self._config.retry
        if outcome.permanent or retry_is_useless(outcome, retry):
            return "failed", claim.token, 0, claim.id, body
        if claim.attempt >= claim.max_attempts:
            return "dead", claim.token, 0, claim.id, body
        delay = retry_delay_seconds(outcome, retry, luck=random.random())  # noqa: S311 - spreads load, guards nothing
        return "retry", claim.token, milliseconds(delay), claim.id, body

    async def release(self, claims: Sequence[Claim]) -> None:
        """See TaskQueue.release. What is not held any more is left alone."""
        for part in parts_of(claims, LARGEST_CALL):
            arguments: list[Argument] = [self._config.keep_events]
            for claim in part:
                arguments += (claim.id, claim.token)
            await self._calls.run(scripts.RELEASE, arguments)

    def revoked(self, worker: Worker) -> AsyncIterator[Sequence[str]]:
        """See TaskQueue.revoked. Also tells of tasks of other workers."""
        return self._revocations.read(worker.instance)

    async def emit(self, claim: Claim, items: Sequence[Progress | Partial]) -> bool:
        """See TaskQueue.emit."""
        return await self._sayings.add(claim, items)

    async def stream(self, task_id: str, *, after: str = "") -> AsyncIterator[StreamItem]:
        """See TaskQueue.stream."""
        async with self._reading.news_of(task_id) as news:
            while True:
                # In this order: what is said before the end is read after it is known.
                final = (await self._reading.records([task_id]))[0].state.final
                async for item in self._sayings.read(task_id, after=after):
                    after = item.offset
                    yield item
                if final:
                    return
                await news()

    async def parents(self, claim: Claim) -> Mapping[str, ParentOutcome]:
        """See TaskQueue.parents."""
        return await self._reading.parents(claim.id)

    async def get(self, task_id: str) -> TaskRecord:
        """See TaskQueue.get."""
        return (await self._reading.records([task_id]))[0]

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See TaskQueue.wait."""
        return await self._reading.wait(task_ids, timeout_seconds=timeout_seconds)

    async def list_dead(self, which: DeadFilter | None = None, *, limit: int, after: str = "") -> list[TaskRecord]:
        """See TaskQueue.list_dead."""
        return await self._dead.page(which or DeadFilter(), limit=limit, after=after)

    async def replay(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.replay."""
        return await self._dead.replay(which, by=by)

    async def purge(self, which: DeadFilter, *, by: str) -> list[str]:
        """See TaskQueue.purge."""
        return await self._dead.purge(which, by=by)

    async def set_gate(self, gate: Gate, *, shut: bool, by: str) -> None:
        """See TaskQueue.set_gate."""
        event = _GATE_EVENTS[gate, shut]
        await self._calls.run(scripts.GATE, [self._config.keep_events, gate.value, json_inside(by), int(shut), event])

    async def events(self, *, after: str = "", limit: int, wait_seconds: float = 0.0) -> list[TaskEvent]:
        """See TaskQueue.events. Waits for five seconds at most; ask again."""
        return await self._event_log.read(after=after, limit=limit, wait_seconds=wait_seconds)

    async def stats(self) -> QueueStats:
        """See TaskQueue.stats. Moves what is due first. Two round trips."""
        running, scheduled, blocked, dead, totals, listed, gates, now_ms = await self._calls.run(
            scripts.STATS, self._kept
        )
        lanes = [lane.decode() for lane in listed[::3]]
        sizes = dict(zip(lanes, listed[1::3], strict=True))
        oldest = {target_of(lane): at for lane, at in zip(lanes, listed[2::3], strict=True) if at >= 0}
        waiting = largest({target_of(lane): size for lane, size in sizes.items() if size}, WAITING_NAMED)
        oldest_ms = min(oldest.values(), default=None)
        targets = {} if not any(lane and size for lane, size in sizes.items()) else await self._unroutable(sizes)
        submitted, succeeded, failed, cancelled, expired = (int(total or 0) for total in totals)
        return QueueStats(
            queue=self.name,
            queued=sum(sizes.values()),
            running=running,
            scheduled=scheduled,
            blocked=blocked,
            dead=dead,
            unroutable=sum(targets.values()),
            waiting=waiting,
            waiting_since={target: moment(oldest[target]) for target in waiting if target in oldest},
            unroutable_targets=largest(targets, UNROUTABLE_NAMED),
            submitted_total=submitted,
            succeeded_total=succeeded,
            failed_total=failed,
            cancelled_total=cancelled,
            expired_total=expired,
            oldest_at=None if oldest_ms is None else moment(oldest_ms),
            oldest_seconds=0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
            paused_by=_who(gates, Gate.CLAIMS),
            closed_by=_who(gates, Gate.SUBMISSIONS),
        )

    async def _unroutable(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Tasks in lanes that no known process serves, by target."""
        served: set[str] = set()
        for found in await self.instances(timeout_seconds=0):
            served.update(lanes_of(Worker(found.agent, found.instance, tuple(found.capabilities))))
        return {target_of(lane): size for lane, size in sizes.items() if lane and size and lane not in served}

    async def beat(self, beat: Beat) -> Orders:
        """See TaskQueue.beat."""
        digest, text = digest_and_text(beat)
        arguments: list[Argument] = [beat.worker.instance, encode_beat(beat), digest]
        answer = await self._calls.run(scripts.BEAT, [*arguments, b""])
        if answer >= scripts.SEND_TEXT:
            answer = await self._calls.run(scripts.BEAT, [*arguments, text])
        return Orders(cordoned=bool(answer))

    async def cordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.cordon."""
        await self._set_cordons(instances, by, cordoned=True)

    async def uncordon(self, instances: Sequence[str], *, by: str) -> None:
        """See TaskQueue.uncordon."""
        await self._set_cordons(instances, by, cordoned=False)

    async def _set_cordons(self, instances: Sequence[str], by: str, *, cordoned: bool) -> None:
        who = by.encode("utf-8", "backslashreplace")
        for part in parts_of(instances, LARGEST_CALL):
            await self._calls.run(scripts.CORDON, [who, int(cordoned), *part])

    async def leave(self, worker: Worker) -> None:
        """See TaskQueue.leave."""
        await self._calls.run(scripts.FORGET, [worker.instance, ""])

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See TaskQueue.instances. Sorted by agent and name."""
        now_ms, known, infos, orders = await self._calls.run(scripts.INSTANCES, [])
        found = [
            decode_instance(
                instance,
                info,
                beat_ms=float(beat_ms),
                healthy=now_ms - float(beat_ms) <= timeout_seconds * 1000,
                queue=self.name,
                cordons=cordons,
            )
            for instance, beat_ms, info, cordons in zip(known[::2], known[1::2], infos, orders, strict=True)
        ]
        return sorted(found, key=lambda instance: (instance.agent, instance.instance))

    async def interfaces(self) -> list[InterfaceInfo]:
        """See TaskQueue.interfaces."""
        known, texts = await self._calls.run(scripts.INTERFACES, [])
        parts = (
            (*text.split(b" ", 1), float(seen_ms)) for seen_ms, text in zip(known[1::2], texts, strict=True) if text
        )
        return current((Said(text, float(since), seen) for since, text, seen in parts), queue=self.name)

    async def forget_silent(self, *, silent_seconds: float) -> list[str]:
        """See TaskQueue.forget_silent."""
        return [name.decode() for name in await self._calls.run(scripts.FORGET, ["", milliseconds(silent_seconds)])]

    async def storage(self) -> StorageInfo:
        """See TaskQueue.storage. Needs the INFO command only; CONFIG is often forbidden."""

        async def ask(_: bool) -> tuple[float, bytes]:
            client = self._calls.server.commands
            await execute(client, "PING")  # connects, if need be
            started = time.perf_counter()
            await execute(client, "PING")
            latency = time.perf_counter() - started
            return latency * 1000, await execute(client, "INFO")

        latency_ms, text = await self._calls.server.call(ask)
        info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        server = info.get("server_name", "redis")
        return StorageInfo(
            server=f"{server} {info.get(f'{server}_version', 'of unknown version')}",
            eviction_policy=info.get("maxmemory_policy"),
            append_only=info.get("aof_enabled") == "1",
            latency_ms=latency_ms,
        )

    async def aclose(self) -> None:
        """See TaskQueue.aclose. Waits until what was cancelled has been cleaned up."""
        if self._aftermath:
            await asyncio.wait(self._aftermath)
        await self._submitter.aclose()
        await self._revocations.aclose()
        await self._reading.aclose()
        await self._calls.server.aclose()

    async def _command(self, *command: str | bytes | int) -> Any:
        return await self._calls.server.call(lambda _: execute(self._calls.server.commands, *command))

    def _afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what a cancelled call has left to do. If it fails, leases and the longest block make up for it."""

        async def cleanup() -> None:
            try:
                await work
            except Exception as error:
                log.warning("queue %s: could not clean up after a cancelled call: %s", self.name, error)

        task = asyncio.create_task(cleanup())
        self._aftermath.add(task)
        task.add_done_callback(self._aftermath.discard)


_GATE_EVENTS: Final = {
    (Gate.CLAIMS, True): "paused",
    (Gate.CLAIMS, False): "resumed",
    (Gate.SUBMISSIONS, True): "closed",
    (Gate.SUBMISSIONS, False): "opened",
}


def _who(gates: Sequence[bytes], gate: Gate) -> list[str]:
    """Who has shut a gate."""
    fields = (field.split(b" ", 1) for field in gates)
    return sorted(orjson.loads(b'"' + by + b'"') for name, by in fields if name.decode() == gate)


def _limits_text(config: QueueConfig) -> str:
    """The limits as the claim script takes them; empty if there are none."""
    limits = config.limits

    def three(rate: RateLimit | None, concurrency: int | None) -> str:
        interval_ms = 0.0 if rate is None else rate.per_seconds * 1000 / rate.tasks
        burst = 0 if rate is None else rate.burst or rate.tasks
        return f"{interval_ms!r} {burst} {concurrency or 0}"

    text = f"{three(limits.rate, limits.concurrency)} {three(limits.per_tenant.rate, limits.per_tenant.concurrency)}"
    return "" if text == "0.0 0 0 0.0 0 0" else text
