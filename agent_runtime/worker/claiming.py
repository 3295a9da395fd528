# SPDX-License-Identifier: Apache-2.0
"""Takes tasks from the queue whenever there is room for them.

One claim is under way at a time, for all the room there is. Under load that would leave this process idle while Redis
works, and Redis idle while this process works. So as soon as a large claim comes back full, there are two, each for
half of the room; when one comes back with less than it asked for, there is one again.
"""

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic, time

from agent_runtime.queue.base import Worker, WorkerQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.worker.backoff import Backoff
from agent_runtime.worker.slots import Slots
from kubeagents_api.errors import CordonedError, QueueUnavailableError

CLAIM_WAIT_SECONDS = 5.0
"""How long one claim waits for work."""
_LARGEST_CLAIM = 256
_SMALLEST_HALF = 64
"""With less room than twice this, two claims would cost more than they save."""
_STALE_SECONDS = 15.0
"""A claim that has not come back after this long is a sign of trouble: it waits for 5 s at most."""


class Claiming:
    """The claim loops.

    `room` is set whenever there may be room again. `full` says that no more may be taken, whatever room the slots have.
    `on_quiet` is called once they are paused and no claim is under way any more.
    """

    def __init__(
        self,
        queue: WorkerQueue,
        *,
        worker: Worker,
        concurrency: int,
        slots: Slots,
        link: Link,
        room: asyncio.Event,
        full: Callable[[], bool],
        on_quiet: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._slots = slots
        self._link = link
        self._full = full
        self._on_quiet = on_quiet
        half = concurrency // 2
        self._limit = min(half if half >= _SMALLEST_HALF else concurrency, _LARGEST_CLAIM)
        self._pairs = half >= _SMALLEST_HALF
        self._stopped = False
        self.paused = False
        """Nothing is taken for the time being. Set by `pause`, and by the queue's refusal."""
        self._room = room
        self._rush = asyncio.Event()
        """There is more in the queue than one claim at a time brings."""
        self._asked = 0
        """Room that is kept for claims under way."""
        self._backoff = Backoff()
        self._works = False
        """The last claim came back."""
        self._answered_at: float | None = None
        """When a claim last came back, or no more could be taken: all slots were full, or claims were paused."""
        self.turned_at = monotonic()
        """When the claim loop last made a turn."""

    @property
    def trouble(self) -> str | None:
        """Why no tasks are being taken though they could be; None if there is nothing wrong."""
        if self.paused:
            return None
        if not self._works or self._answered_at is None:
            return "no claim has come back yet"
        silent = monotonic() - self._answered_at
        if self._slots.free > 0 and silent > _STALE_SECONDS:
            return f"no claim has come back for {silent:.0f} s"
        return None

    @property
    def answered_at_ms(self) -> int | None:
        """When the queue last answered a claim, or no more could be taken, by our clock; None: never."""
        if self._answered_at is None:
            return None
        return round((time() - (monotonic() - self._answered_at)) * 1000)

    def pause(self) -> None:
        """Take nothing more until `resume`."""
        if self.paused:
            return
        self.paused = True
        if not self._asked:
            self._on_quiet()

    def resume(self) -> None:
        """Take tasks again."""
        self.paused = False
        self._room.set()

    def stop(self) -> None:
        """Take nothing more. The loops must be cancelled, too."""
        self._stopped = True

    async def run(self) -> None:
        """Claim until cancelled."""
        while not self._stopped:
            self.turned_at = monotonic()
            if not (limit := self._free()):
                self._room.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLAIM_WAIT_SECONDS):
                        await self._room.wait()
                self._answered_at = monotonic()
                continue
            # The first claim does not wait for work, so that it is known at once whether claiming works.
            await self._claim(limit, wait_seconds=CLAIM_WAIT_SECONDS if self._works else 0.0)

    async def run_second(self) -> None:
        """The second loop: claims while there is a rush, until cancelled."""
        while not self._stopped:
            await self._rush.wait()
            if limit := self._free():
                await self._claim(limit, wait_seconds=0.0)
            else:
                self._room.clear()
                await self._room.wait()

    def _free(self) -> int:
        return 0 if self.paused or self._full() else max(0, min(self._slots.free - self._asked, self._limit))

    async def _claim(self, limit: int, *, wait_seconds: float) -> None:
        try:
            await self._take(limit, wait_seconds=wait_seconds)
        finally:
            if self.paused and not self._asked:
                self._on_quiet()

    async def _take(self, limit: int, *, wait_seconds: float) -> None:
        self._asked += limit
        try:
            claims = await self._queue.claim(self._worker, limit=limit, wait_seconds=wait_seconds)
        except QueueUnavailableError as error:
            self._link.failed(error)
            self._works = False
            self._rush.clear()
            await asyncio.sleep(self._backoff.pause())
            return
        except CordonedError:
            self._answered()
            self._rush.clear()
            self.paused = True
            return
        finally:
            self._asked -= limit
        self._answered()
        if len(claims) < limit:
            self._rush.clear()
        elif self._pairs and limit >= _SMALLEST_HALF:
            self._rush.set()
        if claims and self._stopped:  # the cancellation came too late to stop the claim
            self._slots.given_back += claims
        elif claims:
            self._slots.begin(claims)
            await asyncio.sleep(0)  # let them begin: what does nothing is over by then, and its slot free

    def _answered(self) -> None:
        self._link.answered()
        self._backoff.reset()
        self._works = True
        self._answered_at = monotonic()
