# SPDX-License-Identifier: Apache-2.0
"""Renews the leases of what runs, and stops what is not ours any more."""

import asyncio
import contextlib
import logging

from agent_runtime.agent.attempt import Attempt
from agent_runtime.queue.base import Claim, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.slots import Slots
from kubeagents_api.errors import QueueUnavailableError

_log = logging.getLogger(__name__)


class Leases:
    """One call renews everything, every third of a lease: two calls may fail before a lease is over."""

    def __init__(self, queue: WorkerQueue, *, slots: Slots, link: Link, lease_seconds: float) -> None:
        self._queue = queue
        self._slots = slots
        self._link = link
        self._interval = lease_seconds / 3
        self._given_up: set[Claim] = set()
        self._hurry = asyncio.Event()

    def look_now(self) -> None:
        """Do not wait for the next turn: see at once whether something is not ours any more."""
        self._hurry.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        backoff = Backoff()
        pause = self._interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()
            pause = self._interval
            claims = self._to_renew()
            if not claims:
                continue
            try:
                lost = await self._queue.extend(claims)
            except QueueUnavailableError as error:
                # The handlers go on: while Redis is away nobody else can claim their tasks either.
                self._link.failed(error)
                pause = min(self._interval, backoff.pause())
                continue
            self._link.answered()
            backoff.reset()
            for claim in lost:
                self._slots.lost(claim)

    def _to_renew(self) -> list[Claim]:
        attempts = self._slots.attempts()
        stuck = [attempt for attempt in attempts if attempt.ignores_cancellation]
        self._report(stuck)
        return [attempt.claim for attempt in attempts if not (attempt.ignores_cancellation or attempt.fenced)]

    def _report(self, stuck: list[Attempt]) -> None:
        for attempt in stuck:
            if attempt.claim not in self._given_up:
                _log.warning(
                    "task %s ignores its cancellation and keeps its slot; its lease is not renewed any more, so the "
                    "task will run again. Let the handler pass asyncio.CancelledError on",
                    attempt.claim.id,
                    extra={"task": attempt.claim.id},
                )
        self._given_up = {attempt.claim for attempt in stuck}
