# SPDX-License-Identifier: Apache-2.0
"""The attempts that run now: each claim becomes one asyncio task, each task one outcome."""

import asyncio
import enum
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import orjson

from agent_runtime.agent import Context, Handler, Task
from agent_runtime.queue.base import Claim, Failed, Outcome, Succeeded, Worker
from agent_runtime.telemetry import logs
from agent_runtime.worker.metrics import WorkerMetrics
from kubeagents_api.errors import InvalidTaskError, PermanentError, TemporaryError

_log = logging.getLogger(__name__)

CANCEL_GRACE_SECONDS = 2.0
"""How long a cancelled handler may take to clean up before it counts as one that ignores its cancellation."""
_MESSAGE_LIMIT = 4096
"""Characters of an error that are recorded; the log has all of it."""


class Stop(enum.Enum):
    """Why an attempt was cancelled."""

    TIMEOUT = "timeout"
    LOST = "lost"
    DRAIN = "drain"


class Attempt:
    """One claim and the asyncio task that works on it."""

    __slots__ = ("begun_at", "claim", "stop", "stopped_at", "task", "timer")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.begun_at = 0.0
        """Monotonic; 0 until its asyncio task has run for the first time."""
        self.stop: Stop | None = None
        self.stopped_at = 0.0
        self.task: asyncio.Task[None]
        self.timer: asyncio.TimerHandle

    @property
    def ignores_cancellation(self) -> bool:
        """It was told to stop and has not."""
        return self.stop is not None and monotonic() - self.stopped_at > CANCEL_GRACE_SECONDS


class Slots:
    """Runs up to `concurrency` attempts, hands their outcomes to `on_outcome`, and calls `on_room` after each.

    `crashed` gets the exception if this code itself, not a handler, fails.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        handler: Handler,
        worker: Worker,
        queue_name: str,
        max_result_bytes: int,
        metrics: WorkerMetrics,
        on_outcome: Callable[[Outcome], None],
        on_room: Callable[[], None],
    ) -> None:
        self._concurrency = concurrency
        self._handler = handler
        self._worker = worker
        self._queue_name = queue_name
        self._max_result_bytes = max_result_bytes
        self._metrics = metrics
        self._on_outcome = on_outcome
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[str, str], Attempt] = {}
        self._handler_log = logging.getLogger("agent")
        self._empty = asyncio.Event()
        self._empty.set()
        self.given_back: list[Claim] = []
        """Claims of attempts that the drain cancelled."""
        self.crashed: asyncio.Future[None] = self._loop.create_future()
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
        for claim in claims:
            attempt = Attempt(claim)
            self._running[claim.id, claim.token] = attempt
            attempt.timer = self._loop.call_later(claim.timeout_seconds, self.stop, claim, Stop.TIMEOUT)
            attempt.task = self._loop.create_task(self._run(attempt))

    def stop(self, claim: Claim, reason: Stop) -> None:
        """Cancel the attempt, if it still runs and has not been stopped before."""
        attempt = self._running.get((claim.id, claim.token))
        if attempt is None or attempt.stop is not None:
            return
        attempt.stop, attempt.stopped_at = reason, monotonic()
        if attempt.begun_at:  # a task cancelled before its first step would never reach our code
            attempt.task.cancel()

    async def _run(self, attempt: Attempt) -> None:
        claim = attempt.claim
        try:
            attempt.begun_at = monotonic()
            logs.bind({"task": claim.id})
            outcome = await self._outcome(attempt)
            self._metrics.seconds.observe(monotonic() - attempt.begun_at)
            if outcome is not None:
                self._on_outcome(outcome)
            elif attempt.stop is Stop.DRAIN:
                self.given_back.append(claim)
            else:
                self._metrics.lost.inc()
                _log.warning("task %s is not ours any more (its lease ran out): the attempt is dropped", claim.id)
        except BaseException as bug:
            if not self.crashed.done():
                self.crashed.set_exception(bug)
            raise
        finally:
            attempt.timer.cancel()
            del self._running[claim.id, claim.token]
            if not self._running:
                self._empty.set()
            self._on_room()

    async def _outcome(self, attempt: Attempt) -> Outcome | None:
        """How the attempt ended. None: there is nothing to record, because of `attempt.stop`."""
        claim = attempt.claim
        try:
            payload = orjson.loads(claim.payload)
        except orjson.JSONDecodeError as error:
            return Failed(claim, InvalidTaskError.code, f"the payload in the queue is no JSON: {error}", permanent=True)
        failure: BaseException
        try:
            if attempt.stop is None:
                value = await self._handler(self._task(claim, payload), self._context(claim))
                if attempt.stop in (None, Stop.DRAIN):
                    return self._success(claim, value)
            failure = asyncio.CancelledError()
        # SystemExit: a handler that calls sys.exit() fails its task, it does not take the others down with it.
        except (asyncio.CancelledError, Exception, SystemExit) as error:
            failure = error
        if attempt.stop is Stop.TIMEOUT:
            return Failed(claim, "TIMEOUT", f"not done within {claim.timeout_seconds:g} s, so it was cancelled")
        if attempt.stop is not None:
            return None
        return self._failure(claim, failure)

    def _success(self, claim: Claim, value: Any) -> Outcome:
        try:
            result = orjson.dumps(value)
        except TypeError as error:
            message = f"the handler returned {type(value).__name__}, which is not JSON: {error}"
            return self._refused(claim, "RESULT_NOT_JSON", message)
        if len(result) > self._max_result_bytes:
            message = (
                f"the result has {len(result)} bytes of JSON, the queue takes {self._max_result_bytes}: return less, "
                "store it elsewhere and return where, or raise the TaskQueue's maxPayloadBytes"
            )
            return self._refused(claim, "RESULT_TOO_LARGE", message)
        return Succeeded(claim, result)

    def _refused(self, claim: Claim, code: str, message: str) -> Failed:
        _log.warning("task %s failed for good: %s: %s", claim.id, code, message)
        return Failed(claim, code, message, permanent=True)

    def _failure(self, claim: Claim, error: BaseException) -> Failed:
        message = _describe(error)
        attempt = f"attempt {claim.attempt} of {claim.max_attempts}"
        if isinstance(error, PermanentError):
            _log.warning("task %s failed for good in %s: %s", claim.id, attempt, message)
            return Failed(claim, error.code, message[:_MESSAGE_LIMIT], permanent=True)
        if isinstance(error, TemporaryError):
            _log.info("task %s asks for another try in %s: %s", claim.id, attempt, message)
            return Failed(claim, error.code, message[:_MESSAGE_LIMIT], delay_seconds=error.delay)
        _log.warning("task %s failed in %s: %s", claim.id, attempt, message, exc_info=error)
        return Failed(claim, "FAILED", message[:_MESSAGE_LIMIT])

    def _task(self, claim: Claim, payload: Any) -> Task:
        return Task(
            id=claim.id,
            type=claim.type,
            payload=payload,
            priority=claim.priority,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            timeout_seconds=claim.timeout_seconds,
        )

    def _context(self, claim: Claim) -> Context:
        worker = self._worker
        return Context(
            agent=worker.agent,
            instance=worker.instance,
            queue=self._queue_name,
            log=logs.FieldLogger(self._handler_log, {"agent": worker.agent, "task": claim.id}),
        )


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # a handler's exception class may have a faulty __str__
        text = f"(its text cannot be had: {type(broken).__name__})"
    name = type(error).__name__
    return f"{name}: {text}" if text else name
