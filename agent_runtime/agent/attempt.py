# SPDX-License-Identifier: Apache-2.0
"""One attempt, as the worker that runs it and the context that its handler holds share it."""

import asyncio
from enum import StrEnum
from time import monotonic
from typing import Protocol

from agent_runtime.queue.base import Claim, Partial, Progress

CANCEL_GRACE_SECONDS = 2.0
"""How long a cancelled handler may take to clean up before it counts as one that ignores its cancellation."""


class StopReason(StrEnum):
    """Why an attempt is told to stop."""

    TIMEOUT = "timeout"
    """It has taken longer than it may. It counts as failed, and is retried by the queue's policy."""
    CANCELLED = "cancelled"
    """Somebody has cancelled the task."""
    EXPIRED = "expired"
    """The task's deadline has passed."""
    LOST = "lost"
    """Its lease ran out, for example because Redis could not be reached: somebody else may have the task now."""
    DRAIN = "drain"
    """The process stops and the drain is over. The task goes back to the queue and the attempt does not count."""


class Voice(Protocol):
    """What an attempt says on its way to the queue."""

    async def say(self, item: Progress | Partial) -> None:
        """Take over an item; waits while too much is on its way."""
        ...

    async def finish(self) -> None:
        """Wait until everything has arrived. Nothing can be said from now on."""
        ...


class Attempt:
    """One claim and the asyncio task that works on it."""

    __slots__ = ("_told", "alarm", "begun_at", "cancelled_at", "claim", "seconds", "stop", "task", "voice")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.begun_at = 0.0
        """Monotonic; 0 until work on it has begun."""
        self.stop: StopReason | None = None
        self.cancelled_at: float | None = None
        """Monotonic: when its asyncio task was cancelled."""
        self.task: asyncio.Task[None] | None = None
        """What works on it; None until work on it has begun."""
        self.seconds = 0.0
        """What its clock was set to; 0 if it has none."""
        self.alarm: asyncio.TimerHandle | None = None
        """Rings when its task's deadline has passed."""
        self.voice: Voice | None = None
        """None until it says something."""
        self._told: asyncio.Event | None = None

    @property
    def ignores_cancellation(self) -> bool:
        """It was cancelled and has not ended."""
        return self.cancelled_at is not None and monotonic() - self.cancelled_at > CANCEL_GRACE_SECONDS

    @property
    def fenced(self) -> bool:
        """The queue takes nothing from it any more."""
        return self.stop in (StopReason.CANCELLED, StopReason.EXPIRED, StopReason.LOST)

    def tell(self, reason: StopReason) -> None:
        """Note why it is to stop, for whoever looks or waits. It must not have been told before."""
        self.stop = reason
        if self._told is not None:
            self._told.set()

    def cancel(self) -> None:
        """Cancel its asyncio task, if there is one yet; who begins it later sees `stop`."""
        if self.task is not None:
            self.cancelled_at = monotonic()
            self.task.cancel()

    async def told(self) -> StopReason:
        """Wait until it is told to stop."""
        if self._told is None:
            self._told = asyncio.Event()
        while self.stop is None:
            await self._told.wait()
        return self.stop


class Cancellation:
    """Whether, and why, an attempt is told to stop: false until it is.

    Threads that a handler has started may look at it; only asyncio tasks may `wait()`.
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __bool__(self) -> bool:
        return self._attempt.stop is not None

    @property
    def reason(self) -> StopReason | None:
        """Why; None as long as it may go on."""
        return self._attempt.stop

    async def wait(self) -> StopReason:
        """Wait until it is told to stop, and return why. For tasks beside the handler, which is cancelled itself."""
        return await self._attempt.told()

    def __repr__(self) -> str:
        return f"Cancellation({self._attempt.stop})"
