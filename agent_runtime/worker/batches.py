# SPDX-License-Identifier: Apache-2.0
"""Runs a handler that takes several tasks at a time.

Claims gather until there are enough for a batch, or the first of them has waited for long enough. Each keeps its own
lease. One whose task is cancelled while it gathers is left out; later it shows in `ctx.cancelled_ids`, and what the
handler returns for it is dropped. Once nobody wants any of them any more, the handler is cancelled.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import orjson

from agent_runtime.agent import BatchContext, BatchHandler, StopReason, Task
from agent_runtime.agent.attempt import Attempt
from agent_runtime.agent.process import AgentProcess
from agent_runtime.queue.base import Outcome
from agent_runtime.telemetry import logs
from agent_runtime.worker.clocks import Clocks
from agent_runtime.worker.speech import last_words
from agent_runtime.worker.verdicts import Verdicts
from kubeagents_api.agent import BatchSettings
from kubeagents_api.errors import PermanentError

BAD_RESULTS = "BATCH_RESULT_INVALID"
"""Code of all tasks of a batch whose handler did not return as many results as it was given tasks."""


@dataclass(eq=False, slots=True)
class _Batch:
    """Attempts that the handler was given together."""

    attempts: list[Attempt]
    tasks: list[Task] = field(default_factory=list)
    work: "asyncio.Task[None] | None" = None


class Batches:
    """Gathers attempts and runs them together."""

    def __init__(
        self,
        handler: BatchHandler,
        settings: BatchSettings,
        *,
        concurrency: int,
        process: AgentProcess,
        verdicts: Verdicts,
        clocks: Clocks,
        on_end: Callable[[Attempt, Outcome | None], None],
        crashed: "asyncio.Future[None]",
    ) -> None:
        self._handler = handler
        self._enough = min(settings.max_tasks, concurrency)
        self._wait_seconds = settings.wait_seconds
        self._process = process
        self._verdicts = verdicts
        self._clocks = clocks
        self._on_end = on_end
        self._crashed = crashed
        self._loop = asyncio.get_running_loop()
        self._gathering: list[Attempt] = []
        self._patience: asyncio.TimerHandle | None = None
        self._running: dict[Attempt, _Batch] = {}

    def begin(self, attempts: Sequence[Attempt]) -> None:
        """Work on the attempts, as soon as there are enough for a batch or they have waited long enough."""
        self._gathering += attempts
        while len(self._gathering) >= self._enough:
            self._start(self._gathering[: self._enough])
        if not self._gathering:
            return
        if self._wait_seconds == 0:
            self.hurry()
        elif self._patience is None:
            self._patience = self._loop.call_later(self._wait_seconds, self.hurry)

    def hurry(self) -> None:
        """Wait for no more: begin with what there is."""
        if self._gathering:
            self._start(self._gathering)

    def stop(self, attempt: Attempt) -> None:
        """It has been told to stop."""
        batch = self._running.get(attempt)
        if batch is None:
            self._gathering.remove(attempt)
            self._on_end(attempt, self._verdicts.stopped(attempt))
        elif batch.work is not None and all(member.stop is not None for member in batch.attempts):
            for member in batch.attempts:
                member.cancelled_at = monotonic()
            batch.work.cancel()

    def _start(self, attempts: list[Attempt]) -> None:
        self._gathering = self._gathering[len(attempts) :]
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        batch = _Batch(attempts)
        self._running.update(dict.fromkeys(attempts, batch))
        batch.work = self._loop.create_task(self._work(batch))
        if self._gathering and self._wait_seconds:
            self._patience = self._loop.call_later(self._wait_seconds, self.hurry)

    async def _work(self, batch: _Batch) -> None:
        try:
            self._decode(batch)
            outcomes = await self._outcomes(batch) if batch.attempts else []
            for attempt in batch.attempts:
                self._clocks.stop(attempt)
            for attempt, outcome in zip(batch.attempts, outcomes, strict=True):
                self._end(attempt, await last_words(attempt, outcome, self._verdicts))
        except BaseException as bug:
            if not self._crashed.done():
                self._crashed.set_exception(bug)
            raise

    def _decode(self, batch: _Batch) -> None:
        """Make tasks of the claims. What cannot be worked on leaves the batch."""
        whole, batch.attempts = batch.attempts, []
        for attempt in whole:
            try:
                payload = orjson.loads(attempt.claim.payload)
            except orjson.JSONDecodeError as error:
                self._end(attempt, self._verdicts.unreadable(attempt.claim, error))
                continue
            if attempt.stop is not None:
                self._end(attempt, self._verdicts.stopped(attempt))
                continue
            attempt.begun_at = monotonic()
            batch.attempts.append(attempt)
            batch.tasks.append(Task.of(attempt.claim, payload))

    async def _outcomes(self, batch: _Batch) -> Sequence[Outcome | None]:
        """What becomes of each attempt."""
        attempts = batch.attempts
        logs.bind({"batch": len(attempts)})
        seconds = min(attempt.claim.timeout_seconds for attempt in attempts)
        for attempt in attempts:
            self._clocks.start(attempt, seconds)
        failure: BaseException
        try:
            results = await self._handler(list(batch.tasks), BatchContext(self._process, attempts))
            if isinstance(results, list | tuple) and len(results) == len(attempts):
                return [
                    self._outcome(attempt, result, batch_seconds=seconds)
                    for attempt, result in zip(attempts, results, strict=True)
                ]
            failure = _bad_results(results, len(attempts))
        # SystemExit: a handler that calls sys.exit() fails its tasks, it does not take the others down with it.
        except (asyncio.CancelledError, Exception, SystemExit) as error:
            failure = error
        failures = iter(self._verdicts.failures([a.claim for a in attempts if a.stop is None], failure))
        return [
            next(failures) if a.stop is None else self._verdicts.stopped(a, batch_seconds=seconds) for a in attempts
        ]

    def _outcome(self, attempt: Attempt, result: Any, *, batch_seconds: float) -> Outcome | None:
        if attempt.stop not in (None, StopReason.DRAIN):
            return self._verdicts.stopped(attempt, batch_seconds=batch_seconds)
        if isinstance(result, BaseException):
            if attempt.stop is not None:
                return None
            return self._verdicts.failure(attempt.claim, result)
        return self._verdicts.success(attempt.claim, result)

    def _end(self, attempt: Attempt, outcome: Outcome | None) -> None:
        del self._running[attempt]
        self._on_end(attempt, outcome)


def _bad_results(results: Any, wanted: int) -> PermanentError:
    what = f"{len(results)} results" if isinstance(results, list | tuple) else f"{type(results).__name__}, no list"
    error = PermanentError(f"the batch handler returned {what} for {wanted} tasks: return a list with one for each")
    error.code = BAD_RESULTS
    return error
