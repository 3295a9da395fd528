# SPDX-License-Identifier: Apache-2.0
"""Ends attempts whose time is over, and sees to it that the queue notices deadlines.

A timer for each attempt would cost more than all else that is done for one. Attempts that may take equally long stand
in one line, in the order in which they began, and only the first of a line is looked at.
"""

import asyncio
from collections.abc import Callable
from time import monotonic, time

from agent_runtime.agent.attempt import Attempt, StopReason

_ALARM_AGAIN_SECONDS = 1.0
_IDLE_LINES = 16
"""Lines that are kept though nobody stands in them. Most queues have one or two."""


class Clocks:
    """Looks after attempts from `start` to `stop`.

    `on_deadline` is called once a task's deadline has passed by the clock of this machine, and each second from then on
    until its attempt ends: only the queue can say that it has expired.
    """

    def __init__(self, *, on_timeout: Callable[[Attempt, StopReason], None], on_deadline: Callable[[], None]) -> None:
        self._on_timeout = on_timeout
        self._on_deadline = on_deadline
        self._loop = asyncio.get_running_loop()
        self._lines: dict[float, dict[Attempt, float]] = {}
        """By how long they may take: the attempts, and when their time is over."""
        self._timers: dict[float, asyncio.TimerHandle] = {}
        """Of each line."""

    def start(self, attempt: Attempt, seconds: float) -> None:
        """Stop the attempt when it has taken that long."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = {}
            self._look_in(seconds - (monotonic() - attempt.begun_at), seconds)
        line[attempt] = attempt.begun_at + seconds
        attempt.seconds = seconds
        if attempt.claim.deadline_ms is not None:
            left = attempt.claim.deadline_ms / 1000 - time()
            attempt.alarm = self._loop.call_later(max(0.0, left), self._ring, attempt)

    def stop(self, attempt: Attempt) -> None:
        """It has ended."""
        line = self._lines.get(attempt.seconds)
        if line is not None:
            line.pop(attempt, None)
            if not line and len(self._lines) > _IDLE_LINES:
                del self._lines[attempt.seconds]
                self._timers.pop(attempt.seconds).cancel()
        if attempt.alarm is not None:
            attempt.alarm.cancel()

    def _look_in(self, wait: float, seconds: float) -> None:
        self._timers[seconds] = self._loop.call_later(max(0.0, wait), self._look, seconds)

    def _look(self, seconds: float) -> None:
        """Stop the attempts of a line whose time is over, and come back when that of the next one is."""
        line = self._lines[seconds]
        now = monotonic()
        late = []
        for attempt, over in line.items():
            if over > now:
                self._look_in(over - now, seconds)
                break
            late.append(attempt)
        else:
            del self._lines[seconds], self._timers[seconds]
        for attempt in late:
            line.pop(attempt, None)
            self._on_timeout(attempt, StopReason.TIMEOUT)

    def _ring(self, attempt: Attempt) -> None:
        self._on_deadline()
        attempt.alarm = self._loop.call_later(_ALARM_AGAIN_SECONDS, self._ring, attempt)
