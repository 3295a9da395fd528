# SPDX-License-Identifier: Apache-2.0
"""The process of an Agent: puts slots, settlement, leases and heart together, and ends them in order."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

from prometheus_client import CollectorRegistry

from agent_runtime.agent import BatchHandler, Handler, StopReason, contract_of
from agent_runtime.agent.attempt import CANCEL_GRACE_SECONDS
from agent_runtime.agent.process import AgentProcess
from agent_runtime.cancellation import end
from agent_runtime.queue.base import Beat, Claim, Worker, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from agent_runtime.telemetry.probes import Report, all_of
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.batches import Batches
from agent_runtime.worker.claiming import Claiming
from agent_runtime.worker.clocks import Clocks
from agent_runtime.worker.cordon import Cordon
from agent_runtime.worker.heart import Heart
from agent_runtime.worker.leases import Leases
from agent_runtime.worker.metrics import WorkerMetrics
from agent_runtime.worker.revocations import Revocations
from agent_runtime.worker.settlement import Settlement
from agent_runtime.worker.singles import Singles
from agent_runtime.worker.slots import Slots, Work
from agent_runtime.worker.speech import Speech
from agent_runtime.worker.verdicts import Verdicts
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import AgentConfig

_log = logging.getLogger(__name__)

_STUCK_SECONDS = 60.0
"""Without any turn of the claim loop for this long, only a restart helps."""
_ALIVE_SECONDS = 15.0
_ALIVE_BEATS = 3
"""A process that has missed as many of our own beats, or for this long, is not sent broadcasts."""
LAST_WORDS_SECONDS = 5.0
"""At the end of a drain: time to record, give back and sign off."""


class Consumer:
    """Takes tasks from a queue and runs the handler on them, until it is told to stop."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        instance: str,
        handler: Handler | BatchHandler,
        queue: WorkerQueue,
        link: Link,
        registry: CollectorRegistry,
        revision: str = "",
    ) -> None:
        """`revision` says which version of its Agent the process is. Raises HandlerNotFoundError if what the handler
        wants as payload cannot be made of JSON."""
        self._config = config
        self._revision = revision
        self._worker = Worker(agent=config.name, instance=instance, capabilities=tuple(config.capabilities))
        self._queue = queue
        self._link = link
        self._metrics = WorkerMetrics(registry)
        self._started_at_ms = int(time.time() * 1000)
        self._draining = asyncio.Event()
        room = asyncio.Event()
        self._settlement = Settlement(queue, link=link, metrics=self._metrics, on_room=room.set)
        self._slots = Slots(
            concurrency=config.concurrency,
            metrics=self._metrics,
            on_outcome=self._settlement.add,
            on_room=room.set,
        )
        self._claiming = Claiming(
            queue,
            worker=self._worker,
            concurrency=config.concurrency,
            slots=self._slots,
            link=link,
            room=room,
            full=self._full,
            on_quiet=lambda: self._cordon.quiet(),
        )
        self._cordon = Cordon(
            claiming=self._claiming,
            slots=self._slots,
            settlement=self._settlement,
            metrics=self._metrics,
            beat_now=lambda: self._heart.beat_now(),
        )
        self._leases = Leases(queue, slots=self._slots, link=link, lease_seconds=config.queue.lease_seconds)
        self._heart = Heart(
            queue,
            beat=self._beat,
            seconds=config.heartbeat_seconds,
            link=link,
            on_answer=self._cordon.answered,
        )
        self._revocations = Revocations(
            queue, worker=self._worker, link=link, on_revoked=self._slots.revoked, on_gap=self._look_again
        )
        self._process = AgentProcess(
            worker=self._worker,
            queue=queue,
            max_payload_bytes=config.queue.max_payload_bytes,
            alive_seconds=max(_ALIVE_SECONDS, _ALIVE_BEATS * config.heartbeat_seconds),
            voice=Speech(queue, link=link, on_lost=self._slots.lost).voice,
        )
        contract = contract_of(handler)
        self._interface = contract.interface
        self._slots.work = self._work(contract.handler)

    def _work(self, handler: Handler | BatchHandler) -> Work:
        config, slots = self._config, self._slots
        verdicts = Verdicts(max_result_bytes=config.queue.max_payload_bytes)
        clocks = Clocks(on_timeout=slots.stop, on_deadline=self._revocations.deadline_passed)
        if config.batch is None:
            return Singles(
                cast("Handler", handler),
                process=self._process,
                verdicts=verdicts,
                clocks=clocks,
                on_end=slots.ended,
                crashed=slots.crashed,
            )
        return Batches(
            cast("BatchHandler", handler),
            config.batch,
            concurrency=config.concurrency,
            process=self._process,
            verdicts=verdicts,
            clocks=clocks,
            on_end=slots.ended,
            crashed=slots.crashed,
        )

    @property
    def running(self) -> int:
        """How many tasks it works on."""
        return self._slots.running

    def live(self) -> Report:
        """Whether the claim loop makes turns; it does at least every 5 s, whatever Redis and the handlers do."""
        still = monotonic() - self._claiming.turned_at
        stuck = not self._draining.is_set() and still > _STUCK_SECONDS
        return all_of({"claiming": f"the claim loop has not moved for {still:.0f} s" if stuck else None})

    def ready(self) -> Report:
        """Whether tasks are being taken, or could be: a cordoned process is well, and says that it is cordoned."""
        report = all_of(
            {
                "handler": None,  # this object exists, so it is loaded
                "queue": self._link.trouble,
                "claiming": self._claiming.trouble,
                "heartbeat": self._heart.trouble,
                "draining": "the process is stopping and takes no new tasks" if self._draining.is_set() else None,
            }
        )
        if not self._cordon.holds:
            return report
        return Report(report.ok, {**report.checks, "cordoned": "the process takes no new tasks, as it was told"})

    async def known(self) -> None:
        """Wait until the registry knows this process."""
        await self._heart.known.wait()

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Work until `stop`, then drain; `hurry` cuts the drain short. Whatever breaks in here is raised."""
        async with asyncio.TaskGroup() as group:
            claiming = [
                group.create_task(self._claiming.run(), name="claim"),
                group.create_task(self._claiming.run_second(), name="claim-more"),
            ]
            beating = group.create_task(self._heart.run(), name="heart")
            background = [
                group.create_task(self._settlement.run(), name="settle"),
                group.create_task(self._leases.run(), name="leases"),
                group.create_task(self._revocations.run(), name="revocations"),
                group.create_task(self._revocations.look_at_deadlines(), name="deadlines"),
                group.create_task(self._cordon.run(), name="cordon"),
                group.create_task(self._crash(), name="crash"),
            ]
            await stop.wait()
            self._draining.set()
            self._claiming.stop()
            self._slots.work.hurry()
            self._heart.beat_now()
            await end(*claiming)
            await self._finish(hurry)
            await end(beating)  # or a late beat would bring back what `leave` forgets
            await self._sign_off()
            await end(*background)

    def _full(self) -> bool:
        # Outcomes that Redis has not taken yet count too, or an outage of settling alone would pile them up.
        return self._slots.free <= 0 or self._settlement.pending > self._config.concurrency

    def _look_again(self) -> None:
        """There may be more to know than we were told: which tasks are ours, and what we are to do."""
        self._leases.look_now()
        self._heart.beat_now()

    async def _crash(self) -> None:
        await self._slots.crashed

    async def _finish(self, hurry: asyncio.Event) -> None:
        """Let what runs come to its end, and cancel what does not."""
        seconds = self._config.drain_seconds
        if self._slots.running:
            _log.info("stopping: %d tasks run, they have %d s to finish", self._slots.running, seconds)
            await _first_of(self._slots.all_ended(), hurry.wait(), timeout=seconds)
        for attempt in self._slots.attempts():
            self._slots.stop(attempt, StopReason.DRAIN)
        await _first_of(self._slots.all_ended(), timeout=CANCEL_GRACE_SECONDS)

    async def _sign_off(self) -> None:
        """Record what ended, give back what did not, and leave the registry."""
        # Handlers that ignore their cancellation die with the process, so their tasks go back, too.
        unfinished = [*self._slots.given_back, *(attempt.claim for attempt in self._slots.attempts())]
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._settlement.flushed()
                if unfinished:
                    await self._insist(lambda: self._release(unfinished))
                await self._insist(lambda: self._queue.leave(self._worker))
                await self._process.settled()
        except TimeoutError:
            left = [*self._settlement.pending_ids(), *(claim.id for claim in unfinished)]
            _log.error(
                "stopped without the queue (%s); tasks that run again elsewhere once their leases are over: %s",
                self._link.trouble,
                ", ".join(left) or "none",
            )

    async def _release(self, claims: list[Claim]) -> None:
        await self._queue.release(claims)
        self._metrics.released.inc(len(claims))
        _log.info("gave back %d unfinished tasks", len(claims))
        claims.clear()

    async def _insist(self, call: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff()
        while True:
            try:
                return await call()
            except QueueUnavailableError as error:
                self._link.failed(error)
                await asyncio.sleep(backoff.pause())

    def _beat(self) -> Beat:
        return Beat(
            worker=self._worker,
            version=RUNTIME_VERSION,
            concurrency=self._config.concurrency,
            running=self._slots.running + self._cordon.unrecorded,
            draining=self._draining.is_set(),
            started_at_ms=self._started_at_ms,
            claimed_at_ms=self._claiming.answered_at_ms,
            succeeded=self._settlement.succeeded,
            failed=self._settlement.failed,
            revision=self._revision,
            cordoned=self._cordon.said,
            interface=self._interface,
        )


async def _first_of(*waits: Awaitable[object], timeout: float) -> None:
    """Until one of them is over, or the time is."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
