# SPDX-License-Identifier: Apache-2.0
"""What surrounds an attempt, for its handler."""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from agent_runtime.agent.attempt import Attempt, Cancellation
from agent_runtime.agent.messages import Messages
from agent_runtime.agent.process import AgentProcess
from agent_runtime.agent.task import Task
from agent_runtime.queue.base import Partial, Progress
from agent_runtime.telemetry import logs
from kubeagents_api.errors import PayloadTooLargeError, PermanentError
from kubeagents_api.task import ParentOutcome


class Context(Messages):
    """What surrounds an attempt. Worth nothing once the attempt has ended."""

    __slots__ = ("_attempt",)

    def __init__(self, process: AgentProcess, attempt: Attempt) -> None:
        self._process = process
        self._attempt = attempt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger that adds the agent and the task id to each line."""
        return logs.FieldLogger(self._process.log, {"agent": self.agent, "task": self._attempt.claim.id})

    @property
    def cancelled(self) -> Cancellation:
        """Whether, and why, this attempt is told to stop: false until it is. The handler is cancelled then, too."""
        return Cancellation(self._attempt)

    async def progress(self, fraction: float | None, message: str = "") -> None:
        """Say how far the task is: 0 to 1, None if that is not known. The newest one shows in the task's record.

        It is on its way when this returns. If progress is made faster than the queue takes it, only the newest is
        sent. Raises ValueError for another number; asyncio.CancelledError if the attempt is told to stop.
        """
        if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
            raise ValueError(f"the fraction is {fraction}, it must be from 0 to 1, or None")
        await self._say(Progress(fraction, message))

    async def partial(self, value: Any) -> None:
        """Hand out a part of the result, any JSON value. Who follows the task's stream gets all parts, in order.

        It is on its way when this returns; all have arrived before the attempt counts as ended. Waits while many are
        on their way, so that a fast handler does not outrun a slow queue. A part is handed out again if the task is
        tried again; the stream says which attempt it is from.

        Raises PermanentError (code RESULT_NOT_JSON) for what is no JSON, PayloadTooLargeError for more than the
        TaskQueue's `maxPayloadBytes`; asyncio.CancelledError if the attempt is told to stop.
        """
        try:
            data = orjson.dumps(value)
        except TypeError as error:
            refusal = PermanentError(f"a part of the result is {type(value).__name__}, which is not JSON: {error}")
            refusal.code = "RESULT_NOT_JSON"
            raise refusal from None
        if len(data) > self._process.max_payload_bytes:
            raise PayloadTooLargeError(
                f"a part of the result has {len(data)} bytes of JSON, the queue takes "
                f"{self._process.max_payload_bytes}: cut it, or raise the TaskQueue's maxPayloadBytes",
                field="partial",
            )
        await self._say(Partial(data))

    async def parents(self) -> Mapping[str, ParentOutcome]:
        """How the tasks ended that this one depends on, by their ids: state, result, failure.

        They can be read until this task has ended, however long ago they did.
        """
        claim = self._attempt.claim
        return await self._process.queue.parents(claim) if claim.depends_on else {}

    async def _say(self, item: Progress | Partial) -> None:
        attempt = self._attempt
        if attempt.stop is not None:
            raise asyncio.CancelledError(f"the attempt is told to stop: {attempt.stop}")
        if attempt.voice is None:
            attempt.voice = self._process.voice(attempt)
        await attempt.voice.say(item)


class BatchContext(Messages):
    """What surrounds a batch of attempts. Worth nothing once they have ended."""

    __slots__ = ("_attempts",)

    def __init__(self, process: AgentProcess, attempts: Sequence[Attempt]) -> None:
        self._process = process
        self._attempts = {attempt.claim.id: attempt for attempt in attempts}

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger that adds the agent to each line; `of(task).log` adds the task id."""
        return logs.FieldLogger(self._process.log, {"agent": self.agent})

    @property
    def cancelled_ids(self) -> frozenset[str]:
        """The tasks that need not be finished: their results are dropped. When it is all, the handler is cancelled.

        For why, or to wait for it, see `of(task).cancelled`.
        """
        return frozenset(task_id for task_id, attempt in self._attempts.items() if attempt.stop is not None)

    def of(self, task: Task) -> Context:
        """The context of one task of the batch: its progress, partial results, parents, cancellation and log."""
        return Context(self._process, self._attempts[task.id])
