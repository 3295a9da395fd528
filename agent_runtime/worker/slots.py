# SPDX-License-Identifier: Apache-2.0
"""The attempts that run now: each claim becomes one attempt, each attempt at most one outcome."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from time import monotonic, time
from typing import Protocol

from agent_runtime.agent.attempt import Attempt, StopReason
from agent_runtime.queue.base import Claim, Outcome
from agent_runtime.worker.metrics import WorkerMetrics

_log = logging.getLogger(__name__)

_CLOCK_SLACK_SECONDS = 1.0
"""By how much our clock and that of the queue may differ, to tell an expired task from a cancelled one."""


class Work(Protocol):
    """What runs attempts: one by one, or in batches."""

    def begin(self, attempts: Sequence[Attempt]) -> None:
        """Work on the attempts."""
        ...

    def stop(self, attempt: Attempt) -> None:
        """The attempt has been told to stop: see to it."""
        ...

    def hurry(self) -> None:
        """No more attempts will come: wait for none."""
        ...


class Slots:
    """Keeps the books of up to `concurrency` attempts.

    What runs them is set as `work`, which reports each end to `ended`. Outcomes go to `on_outcome`; `on_room` is called
    after each end.
    """

    work: Work

    def __init__(
        self,
        *,
        concurrency: int,
        metrics: WorkerMetrics,
        on_outcome: Callable[[Outcome], None],
        on_room: Callable[[], None],
    ) -> None:
        self._concurrency = concurrency
        self._metrics = metrics
        self._on_outcome = on_outcome
        self._on_room = on_room
        self._running: dict[tuple[str, str], Attempt] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.given_back: list[Claim] = []
        """Claims of attempts that the drain cancelled."""
        self.crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception if our own code, not a handler, fails."""
        metrics.concurrency.set(concurrency)
        metrics.running.set_function(lambda: len(self._running))

    @property
    def running(self) -> int:
        """How many attempts run."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many more may be begun."""
        return self._concurrency - len(self._running)

    def attempts(self) -> Sequence[Attempt]:
        """The attempts that run."""
        return tuple(self._running.values())

    async def all_ended(self) -> None:
        """Wait until none runs."""
        await self._empty.wait()

    def begin(self, claims: Sequence[Claim]) -> None:
        """Start to work on the claims; there must be room for them."""
        self._metrics.claimed.inc(len(claims))
        self._empty.clear()
        attempts = [Attempt(claim) for claim in claims]
        for attempt in attempts:
            self._running[attempt.claim.id, attempt.claim.token] = attempt
        self.work.begin(attempts)

    def stop(self, attempt: Attempt, reason: StopReason) -> None:
        """Cancel the attempt, if it still runs and has not been stopped before."""
        if attempt.stop is None and (attempt.claim.id, attempt.claim.token) in self._running:
            attempt.tell(reason)
            self.work.stop(attempt)

    def lost(self, claim: Claim) -> None:
        """The queue says that we do not hold the claim any more."""
        attempt = self._running.get((claim.id, claim.token))
        if attempt is not None:
            self.stop(attempt, _expired(attempt) or StopReason.LOST)

    def revoked(self, task_ids: Collection[str]) -> None:
        """The queue says that the tasks were taken away: cancelled, or expired."""
        wanted = set(task_ids)
        for attempt in self.attempts():
            if attempt.claim.id in wanted:
                self.stop(attempt, _expired(attempt) or StopReason.CANCELLED)

    def ended(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """An attempt is over. Without an outcome there is nothing to record, because of what it was told."""
        claim = attempt.claim
        del self._running[claim.id, claim.token]
        if attempt.begun_at:
            self._metrics.seconds.observe(monotonic() - attempt.begun_at)
        if outcome is not None:
            self._on_outcome(outcome)
        elif attempt.stop is StopReason.DRAIN:
            self.given_back.append(claim)
        else:
            self._dropped(attempt)
        if not self._running:
            self._empty.set()
        self._on_room()

    def _dropped(self, attempt: Attempt) -> None:
        task_id = attempt.claim.id
        extra = {"task": task_id}
        if attempt.stop is StopReason.LOST:
            self._metrics.lost.inc()
            message = "task %s is not ours any more (its lease ran out, or it was cancelled): the attempt is dropped"
            _log.warning(message, task_id, extra=extra)
        else:
            self._metrics.revoked.inc()
            _log.info(
                "task %s was %s: attempt %d is dropped", task_id, attempt.stop, attempt.claim.attempt, extra=extra
            )


def _expired(attempt: Attempt) -> StopReason | None:
    deadline_ms = attempt.claim.deadline_ms
    if deadline_ms is None or time() + _CLOCK_SLACK_SECONDS < deadline_ms / 1000:
        return None
    return StopReason.EXPIRED
