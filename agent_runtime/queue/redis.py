# SPDX-License-Identifier: Apache-2.0
"""The queue in Redis."""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Coroutine, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeVar

import orjson

from agent_runtime.cancellation import end
from agent_runtime.queue import scripts
from agent_runtime.queue.base import Beat, Claim, Failed, Outcome, StorageInfo, Succeeded, Worker
from agent_runtime.queue.completions import Completions, Watch
from agent_runtime.queue.connection import Server, execute
from agent_runtime.queue.keys import ANY_LANE, Keys, agent_lane
from agent_runtime.queue.records import (
    decode_claim,
    decode_instance,
    decode_record,
    duplicate,
    encode_beat,
    encode_failure,
    encode_tasks,
    moment,
)
from agent_runtime.queue.scripts import Argument, BoundScripts, Held, Script, Settled, Submitted
from kubeagents_api.errors import InvalidTaskError, PayloadTooLargeError, TaskNotFoundError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import InstanceInfo, QueueStats, TaskRecord, TaskRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST_BATCH: Final = 10_000
"""Tasks in one submission. It is one script: the server does nothing else for as long (some 40 ms)."""
LARGEST_BATCH_BYTES: Final = 128 * 1024 * 1024
"""Bytes of one submission, of one claim's answer, of one read: what fits the socket's timeout on a slow network."""
LARGEST_CALL: Final = 1000
"""Tasks in one call of any other script; longer lists are cut. Lua's stack takes some thousands of values."""
LONGEST_BLOCK_SECONDS: Final = 5.0
"""How long an idle worker sleeps before it looks for itself, which takes seven commands. It is also the most by which
the death of a worker between its wake-up and its claim can delay others."""
SHORTEST_BLOCK_SECONDS: Final = 0.02
"""Due times closer than this are taken together."""
JITTER: Final = 0.2
"""A wait for the next attempt is longer by up to this part, so that what failed together does not return together."""


class RedisTaskQueue:
    """One queue in one Redis. See the package's docstring for the guarantees, `TaskQueue` for the methods."""

    def __init__(self, config: QueueConfig, *, url: str) -> None:
        self.name = config.name
        self._config = config
        self._keys = Keys(config.namespace, config.name)
        self._server = Server(url, longest_block_seconds=LONGEST_BLOCK_SECONDS)
        self._scripts = BoundScripts(self._keys)
        self._completions = Completions(self._server, self._keys.name("done"))
        self._aftermath: set[asyncio.Task[None]] = set()
        # A record holds a payload and a result. What one call returns must fit, whatever the sizes.
        self._records_per_call = max(1, min(LARGEST_CALL, LARGEST_BATCH_BYTES // (2 * config.max_payload_bytes)))
        self._claims_per_call = max(1, min(LARGEST_CALL, LARGEST_BATCH_BYTES // config.max_payload_bytes))

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See TaskQueue.submit."""
        if len(tasks) > LARGEST_BATCH:
            raise InvalidTaskError(
                f"the batch has {len(tasks)} tasks, at most {LARGEST_BATCH} can be queued at once: split it",
                field="tasks",
            )
        if not tasks:
            return []
        encoded = encode_tasks(tasks, self._config)
        size = sum(len(task.text) for task in encoded)
        if size > LARGEST_BATCH_BYTES:
            raise PayloadTooLargeError(
                f"the batch has {size} bytes, at most {LARGEST_BATCH_BYTES} can be queued at once: split it",
                field="tasks",
            )
        arguments: list[Argument] = [os.urandom(8).hex(), len(encoded)]
        for (agent, priority), run in itertools.groupby(encoded, key=attrgetter("agent", "priority")):
            neighbours = [part for task in run for part in (task.id, task.text)]
            arguments += (agent, priority, len(neighbours) // 2)
            arguments += neighbours
        reply = await self._run(scripts.SUBMIT, arguments)
        if reply[0] == Submitted.DUPLICATE:
            raise duplicate(tasks, reply[1], self.name)
        return [task.id for task in encoded]

    async def claim(self, worker: Worker, *, limit: int, wait_seconds: float) -> list[Claim]:
        """See TaskQueue.claim. May be cancelled at any time: what was taken by then is given back."""
        if limit < 1:
            raise ValueError(f"limit is {limit}, it must be at least 1")
        lanes = (ANY_LANE, agent_lane(worker.agent))
        deadline = time.monotonic() + wait_seconds
        while True:
            claims, due_seconds = await self._claim_now(worker, lanes, limit)
            left = deadline - time.monotonic()
            if claims or left <= 0:
                return claims
            block = LONGEST_BLOCK_SECONDS if due_seconds is None else min(due_seconds, LONGEST_BLOCK_SECONDS)
            await self._listen_for_bell(worker, lanes, min(left, max(block, SHORTEST_BLOCK_SECONDS)))

    async def _claim_now(self, worker: Worker, lanes: Sequence[str], limit: int) -> tuple[list[Claim], float | None]:
        """What can be had at once, and the seconds until something is due (None: nothing is)."""
        token = os.urandom(8).hex()

        async def ask(repeated: bool) -> Any:
            return await self._scripts.run(
                self._server.commands,
                scripts.CLAIM,
                [
                    token,
                    int(repeated),
                    min(limit, self._claims_per_call),
                    _ms(self._config.lease_seconds),
                    _ms(LONGEST_BLOCK_SECONDS),
                    orjson.dumps(worker.instance),
                    *lanes,
                ],
            )

        async def take() -> tuple[list[Claim], float | None]:
            due_ms, records, attempts, gone = await self._server.call(ask)
            if gone:
                log.error(
                    "queue %s: the records of %d queued tasks are gone (%s …): does Redis evict keys? "
                    "maxmemory-policy must be noeviction",
                    self.name,
                    len(gone),
                    gone[0].decode(),
                )
            claims = [
                decode_claim(record, attempt=attempt, token=token)
                for record, attempt in zip(records, attempts, strict=True)
            ]
            return claims, None if due_ms < 0 else due_ms / 1000

        # The script may have run when we are cancelled: then nobody would know what it took until the leases end.
        taking = asyncio.create_task(take())
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._afterwards(self._give_back(taking))
            raise

    async def _give_back(self, taking: "asyncio.Task[tuple[list[Claim], float | None]]") -> None:
        claims, _ = await taking
        if claims:
            await self.release(claims)

    async def _listen_for_bell(self, worker: Worker, lanes: Sequence[str], seconds: float) -> None:
        """Return when there is work, or after that time."""
        bells = [self._keys.bell(lane) for lane in lanes]

        async def listen(repeated: bool) -> None:
            if not repeated:  # else the token may have got lost with the connection: go and look
                await execute(self._server.blocking, "BLPOP", *bells, f"{seconds:.3f}")

        listening = asyncio.create_task(self._server.call(listen))
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
        for part in _parts(claims, LARGEST_CALL):
            arguments: list[Argument] = [_ms(self._config.lease_seconds)]
            for claim in part:
                arguments += (claim.id, claim.token)
            held = await self._run(scripts.EXTEND, arguments)
            lost += [claim for claim, reply in zip(part, held, strict=True) if reply == Held.NOT_HELD]
        return lost

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See TaskQueue.settle. Not all or none: a long list takes several round trips."""
        accepted: list[bool] = []
        for part in _parts(outcomes, self._claims_per_call):
            arguments: list[Argument] = [self._config.result_ttl_seconds]
            for head, run in itertools.groupby(map(self._ending, part), key=itemgetter(slice(3))):
                neighbours = [text for *_, task_id, body in run for text in (task_id, body)]
                arguments += head
                arguments.append(len(neighbours) // 2)
                arguments += neighbours
            replies = await self._run(scripts.SETTLE, arguments)
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

    def _ending(self, outcome: Outcome) -> tuple[str, str, int, str, bytes]:
        """How the attempt ended, as the settle script wants it: kind, token, delay in ms, id, body."""
        claim = outcome.claim
        if isinstance(outcome, Succeeded):
            return "succeeded", claim.token, 0, claim.id, outcome.result
        body = encode_failure(outcome)
        if outcome.permanent:
            return "failed", claim.token, 0, claim.id, body
        if claim.attempt >= claim.max_attempts:
            return "dead", claim.token, 0, claim.id, body
        return "retry", claim.token, _ms(self._delay_seconds(outcome)), claim.id, body

    def _delay_seconds(self, failed: Failed) -> float:
        if failed.delay_seconds is not None:
            return max(0.0, failed.delay_seconds)
        retry = self._config.retry
        backoff = min(retry.max_seconds, retry.initial_seconds * 2.0 ** (failed.claim.attempt - 1))
        return backoff * (1 + random.uniform(0, JITTER))  # noqa: S311 - spreads load, guards nothing

    async def release(self, claims: Sequence[Claim]) -> None:
        """See TaskQueue.release. What is not held any more is left alone."""
        for part in _parts(claims, LARGEST_CALL):
            arguments: list[Argument] = []
            for claim in part:
                arguments += (claim.id, claim.token)
            await self._run(scripts.RELEASE, arguments)

    async def get(self, task_id: str) -> TaskRecord:
        """See TaskQueue.get."""
        return (await self._read([task_id]))[0]

    async def wait(self, task_ids: Sequence[str], *, timeout_seconds: float) -> list[TaskRecord]:
        """See TaskQueue.wait."""
        wanted = list(dict.fromkeys(task_ids))
        known: dict[str, TaskRecord] = {}
        try:
            async with asyncio.timeout(timeout_seconds), self._completions.watch(wanted) as watch:
                if not watch.stale:
                    # The subscription does not stand yet: see at once whether there is anything to wait for.
                    await self._look(watch, known)
                while watch.pending:
                    if watch.stale:
                        watch.stale = False
                        await self._look(watch, known)
                    else:
                        await watch.change()
        except TimeoutError:
            pass  # the records say how far the tasks are
        unsure = [task_id for task_id in wanted if task_id not in known or not known[task_id].state.final]
        known |= {record.id: record for record in await self._read(unsure)}
        return [known[task_id] for task_id in task_ids]

    async def _look(self, watch: Watch, known: dict[str, TaskRecord]) -> None:
        """Read what a watch waits for."""
        for record in await self._read(list(watch.pending)):
            known[record.id] = record
            if record.state.final:
                watch.finish(record.id)

    async def _read(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """Tasks as they are now. Raises TaskNotFoundError."""
        found: list[TaskRecord] = []
        for part in _parts(task_ids, self._records_per_call):
            rows = await self._run(scripts.READ, part)
            for task_id, record, hold, past, due in zip(part, *rows, strict=True):
                if record is None:
                    raise TaskNotFoundError(
                        f"queue {self.name!r} has no task {task_id!r}: it was never submitted, or its result has "
                        f"expired ({self._config.result_ttl_seconds} s after it finished)"
                    )
                found.append(decode_record(record, hold, past, due, queue=self.name))
        return found

    async def list_dead(self, *, limit: int) -> list[TaskRecord]:
        """See TaskQueue.list_dead."""

        async def newest(_: bool) -> Any:
            return await self._server.commands.zrevrange(self._keys.name("dead"), 0, limit - 1)

        return await self._read([task_id.decode() for task_id in await self._server.call(newest)])

    async def stats(self) -> QueueStats:
        """See TaskQueue.stats. Moves what is due first."""
        queued, running, scheduled, dead, succeeded, failed, oldest_ms = await self._run(scripts.STATS, [])
        return QueueStats(
            queue=self.name,
            queued=queued,
            running=running,
            scheduled=scheduled,
            dead=dead,
            succeeded_total=succeeded,
            failed_total=failed,
            oldest_at=None if oldest_ms < 0 else moment(oldest_ms),
        )

    async def beat(self, beat: Beat) -> None:
        """See TaskQueue.beat."""
        await self._run(scripts.BEAT, [beat.worker.instance, encode_beat(beat)])

    async def leave(self, worker: Worker) -> None:
        """See TaskQueue.leave."""
        await self._run(scripts.FORGET, [worker.instance, ""])

    async def instances(self, *, timeout_seconds: float) -> list[InstanceInfo]:
        """See TaskQueue.instances. Sorted by agent and name."""
        now_ms, known, infos = await self._run(scripts.INSTANCES, [])
        found = [
            decode_instance(
                instance,
                info,
                beat_ms=float(beat_ms),
                healthy=now_ms - float(beat_ms) <= timeout_seconds * 1000,
                queue=self.name,
            )
            for instance, beat_ms, info in zip(known[::2], known[1::2], infos, strict=True)
        ]
        return sorted(found, key=lambda instance: (instance.agent, instance.instance))

    async def forget_silent(self, *, silent_seconds: float) -> list[str]:
        """See TaskQueue.forget_silent."""
        return [name.decode() for name in await self._run(scripts.FORGET, ["", _ms(silent_seconds)])]

    async def storage(self) -> StorageInfo:
        """See TaskQueue.storage. Needs the INFO command only; CONFIG is often forbidden."""

        async def ask(_: bool) -> tuple[float, dict[str, Any]]:
            client = self._server.commands
            await execute(client, "PING")  # connects, if need be
            started = time.perf_counter()
            await execute(client, "PING")
            latency = time.perf_counter() - started
            return latency * 1000, await client.info()

        latency_ms, info = await self._server.call(ask)
        server = info.get("server_name", "redis")
        policy = info.get("maxmemory_policy")
        return StorageInfo(
            server=f"{server} {info.get(f'{server}_version', 'of unknown version')}",
            eviction_policy=None if policy is None else str(policy),
            append_only=bool(info.get("aof_enabled")),
            latency_ms=latency_ms,
        )

    async def aclose(self) -> None:
        """See TaskQueue.aclose. Waits until what was cancelled has been cleaned up."""
        if self._aftermath:
            await asyncio.wait(self._aftermath)
        await self._completions.aclose()
        await self._server.aclose()

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        return await self._server.call(lambda _: self._scripts.run(self._server.commands, script, arguments))

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


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
