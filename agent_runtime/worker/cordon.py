# SPDX-License-Identifier: Apache-2.0
"""Whether this process is to take nothing new, and that it says so.

    takes tasks ──told so, by a heartbeat's answer or a claim's refusal──► cordoned ──no claim under way──► says so
         ▲                                                                                                     │
         └──── the queue knows that it says so no more ◄── says so no more ◄── told otherwise ─────────────────┘

What others rely on: as long as the last heartbeat that the queue has says `cordoned`, no claim of the process is under
way and none begins. So before it takes tasks again, a heartbeat that does not say so must have been accepted. And
`running` says 0 only once all outcomes are recorded: who reads both may end the process, and no work is lost or done
twice.
"""

import asyncio
import logging
from collections.abc import Callable

from agent_runtime.queue.base import Beat, Orders
from agent_runtime.worker.claiming import Claiming
from agent_runtime.worker.metrics import WorkerMetrics
from agent_runtime.worker.settlement import Settlement
from agent_runtime.worker.slots import Slots

_log = logging.getLogger(__name__)


class Cordon:
    """Stops and resumes the claims as the queue orders. `beat_now` is called whenever there is something to say."""

    def __init__(
        self,
        *,
        claiming: Claiming,
        slots: Slots,
        settlement: Settlement,
        metrics: WorkerMetrics,
        beat_now: Callable[[], None],
    ) -> None:
        self._claiming = claiming
        self._slots = slots
        self._settlement = settlement
        self._beat_now = beat_now
        self._quiet = asyncio.Event()
        """It is cordoned, and no claim is under way."""
        self._resumed = asyncio.Event()
        self._silent = False
        """It has been told otherwise, and says no more that it is cordoned."""
        metrics.cordoned.set_function(lambda: claiming.paused)

    @property
    def holds(self) -> bool:
        """Whether nothing is taken because of it."""
        return self._claiming.paused

    @property
    def said(self) -> bool:
        """Whether a heartbeat shall say so now."""
        return self._quiet.is_set() and not self._silent

    @property
    def unrecorded(self) -> int:
        """Outcomes that count as running, since ending the process now could lose them."""
        return self._settlement.pending if self.holds else 0

    def answered(self, beat: Beat, orders: Orders) -> None:
        """A heartbeat was accepted, and this was the answer."""
        if orders.cordoned:
            if self._silent:
                self._silent = False
                self._beat_now()
            self._claiming.pause()
        elif self.holds and beat.cordoned:
            self._silent = True
            self._beat_now()
        elif self.holds:
            self._silent = False
            self._quiet.clear()
            self._resumed.set()
            _log.info("taking tasks again: the process is not cordoned any more")
            self._claiming.resume()

    def quiet(self) -> None:
        """Claims have been stopped, and none is under way any more."""
        if self._quiet.is_set():
            return
        _log.info("cordoned: the process takes no new tasks; %d are running", self._slots.running)
        self._resumed.clear()
        self._quiet.set()
        self._slots.work.hurry()  # no more will come for a batch that gathers
        self._beat_now()

    async def run(self) -> None:
        """Say so as soon as nothing runs any more, until cancelled."""
        while True:
            await self._quiet.wait()
            await self._slots.all_ended()
            await self._settlement.flushed()
            self._beat_now()
            await self._resumed.wait()
