# SPDX-License-Identifier: Apache-2.0
"""What attempts say while they run, on its way to the queue.

Each attempt that says something has a buffer and, while that is not empty, one asyncio task that empties it: one call
at a time, each with everything that has been said since the last one. A handler that says much waits when the buffer is
full. While Redis does not answer the buffer keeps what it has; an attempt ends only once everything has arrived.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from agent_runtime.agent.attempt import Attempt
from agent_runtime.queue.base import Claim, Outcome, Partial, Progress, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.verdicts import Verdicts
from kubeagents_api.errors import QueueUnavailableError

_BUFFER_ITEMS = 256
_BUFFER_BYTES = 4 * 1024 * 1024
"""What is on its way of one attempt at most. One item may be larger, and then travels alone."""


class Speech:
    """Gives attempts their voices. `on_lost` is told of those whose words the queue does not want any more."""

    def __init__(self, queue: WorkerQueue, *, link: Link, on_lost: Callable[[Claim], None]) -> None:
        self._queue = queue
        self._link = link
        self._on_lost = on_lost

    def voice(self, attempt: Attempt) -> "BufferedVoice":
        """The voice of an attempt."""
        return BufferedVoice(attempt, queue=self._queue, link=self._link, on_lost=self._on_lost)


class BufferedVoice:
    """One attempt's words. See the module."""

    def __init__(self, attempt: Attempt, *, queue: WorkerQueue, link: Link, on_lost: Callable[[Claim], None]) -> None:
        self._attempt = attempt
        self._queue = queue
        self._link = link
        self._on_lost = on_lost
        self._waiting: deque[Progress | Partial] = deque()
        self._bytes = 0
        """Of what waits and what is in flight."""
        self._sender: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        """Set whenever something has arrived, or never will."""
        self._trouble: Exception | None = None
        self._silenced = False

    async def say(self, item: Progress | Partial) -> None:
        """See Voice.say. Raises asyncio.CancelledError if the queue does not want to hear it any more."""
        while self._speakable() and self._full():
            self._moved.clear()
            await self._moved.wait()
        if isinstance(item, Progress) and self._waiting and isinstance(self._waiting[-1], Progress):
            self._bytes -= _size(self._waiting.pop())  # overtaken by the newer one
        self._waiting.append(item)
        self._bytes += _size(item)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def finish(self) -> None:
        """See Voice.finish. Raises what kept it from arriving, if that is not the connection."""
        self._silenced = True
        try:
            while self._sender is not None:
                self._moved.clear()
                await self._moved.wait()
        finally:
            if self._sender is not None:
                self._sender.cancel()
        if self._trouble is not None:
            raise self._trouble

    def _speakable(self) -> bool:
        if self._trouble is not None:
            raise self._trouble
        claim = self._attempt.claim
        if self._attempt.stop is not None:
            raise asyncio.CancelledError(f"task {claim.id}: the attempt is told to stop: {self._attempt.stop}")
        if self._silenced:
            raise RuntimeError(f"task {claim.id}: attempt {claim.attempt} has ended, it can say nothing more")
        return True

    def _full(self) -> bool:
        return len(self._waiting) >= _BUFFER_ITEMS or self._bytes >= _BUFFER_BYTES

    async def _send(self) -> None:
        backoff = Backoff()
        try:
            while self._waiting:
                batch = self._take()
                while True:
                    try:
                        held = await self._queue.emit(self._attempt.claim, batch)
                        break
                    except QueueUnavailableError as error:
                        self._link.failed(error)
                        await asyncio.sleep(backoff.pause())
                self._link.answered()
                backoff.reset()
                self._bytes -= sum(map(_size, batch))
                if not held:
                    self._waiting.clear()
                    self._on_lost(self._attempt.claim)
                self._moved.set()
        except Exception as error:
            self._trouble = error
        finally:
            self._sender = None
            self._moved.set()

    def _take(self) -> list[Progress | Partial]:
        batch: list[Progress | Partial] = []
        size = 0
        while self._waiting and (not batch or size + _size(self._waiting[0]) <= _BUFFER_BYTES):
            batch.append(self._waiting.popleft())
            size += _size(batch[-1])
        return batch


def _size(item: Progress | Partial) -> int:
    return len(item.data) if isinstance(item, Partial) else len(item.message)


async def last_words(attempt: Attempt, outcome: Outcome | None, verdicts: Verdicts) -> Outcome | None:
    """Wait until everything that an attempt has said has arrived. Returns how it ended now."""
    if attempt.voice is None:
        return outcome
    while True:
        try:
            await attempt.voice.finish()
        except asyncio.CancelledError:
            if attempt.stop is not None:
                return None
            continue  # the handler has cancelled its own task, which is nobody else's business
        except Exception as error:
            return verdicts.failure(attempt.claim, error)
        return None if attempt.fenced else outcome
