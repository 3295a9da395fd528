# SPDX-License-Identifier: Apache-2.0
"""Ends attempts whose time is over, and sees to it that the queue notices deadlines."""

import asyncio
from collections.abc import Callable, Sequence
from time import time

from agent_runtime.agent.attempt import Attempt, StopReason

_ALARM_AGAIN_SECONDS = 1.0


class Clocks:
    """Sets the clocks of attempts. `on_deadline` is called once a task's deadline has passed by the clock of this
    machine, and each second from then on until its attempt ends: only the queue can say that it has expired."""

    def __init__(self, *, on_timeout: Callable[[Attempt, StopReason], None], on_deadline: Callable[[], None]) -> None:
        self._on_timeout = on_timeout
        self._on_deadline = on_deadline
        self._loop = asyncio.get_running_loop()

    def set_timeout(self, attempts: Sequence[Attempt], seconds: float) -> None:
        """Stop the attempts, which run together, then."""
        timer = self._loop.call_later(max(0.0, seconds), self._time_is_over, attempts)
        for attempt in attempts:
            attempt.timer = timer

    def set_deadline(self, attempt: Attempt) -> None:
        """Look after the deadline of its task, if that has one."""
        if attempt.claim.deadline_ms is not None:
            left = attempt.claim.deadline_ms / 1000 - time()
            attempt.alarm = self._loop.call_later(max(0.0, left), self._ring, attempt)

    def _time_is_over(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._on_timeout(attempt, StopReason.TIMEOUT)

    def _ring(self, attempt: Attempt) -> None:
        self._on_deadline()
        attempt.alarm = self._loop.call_later(_ALARM_AGAIN_SECONDS, self._ring, attempt)
