# SPDX-License-Identifier: Apache-2.0
"""What must be done by one pod only, and is done by the one that leads."""

import asyncio
import logging
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from agent_runtime.cancellation import end
from agent_runtime.central.schedules import Schedules
from agent_runtime.central.served import ServedQueue
from agent_runtime.leader.base import Elector
from kubeagents_api.errors import QueueUnavailableError

_log = logging.getLogger(__name__)

_FORGET_AFTER_TIMEOUTS = 10
"""An agent process is unhealthy after one timeout without a heartbeat, and forgotten after ten."""


class Duties:
    """Does the leader's work whenever this process leads.

    Neither forgetting a process twice nor firing a schedule twice does any harm, so these duties need the elector's
    word only, not its fencing number.
    """

    def __init__(
        self,
        elector: Elector,
        queues: Sequence[ServedQueue],
        *,
        schedules: Schedules,
        agent_timeout_seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        self._elector = elector
        self._queues = queues
        self._schedules = schedules
        self._agent_timeout_seconds = agent_timeout_seconds
        leading = Gauge("kubeagents_central_leader", "1 while this process leads.", registry=registry)
        leading.set_function(lambda: float(elector.is_leader))

    async def run(self) -> None:
        """Do them until cancelled."""
        while True:
            term = await self._elector.wait_until_leading()
            _log.info("leading, term %d", term)
            async with asyncio.TaskGroup() as group:
                duties = (self._keep_registry(), self._schedules.run())
                running = [group.create_task(duty) for duty in duties]
                await self._elector.wait_until_lost()
                await end(*running)
            _log.info("not leading any more")

    async def _keep_registry(self) -> None:
        while True:
            await self._forget_silent()
            await asyncio.sleep(self._agent_timeout_seconds)

    async def _forget_silent(self) -> None:
        silent = self._agent_timeout_seconds * _FORGET_AFTER_TIMEOUTS
        for served in self._queues:
            if not self._elector.is_leader:
                return
            try:
                forgotten = await served.ask(served.queue.forget_silent(silent_seconds=silent))
            except QueueUnavailableError:
                continue  # `ask` has noted it; the next round is soon enough
            if forgotten:
                names = ", ".join(forgotten)
                _log.warning("forgot agent processes that were silent for over %g s: %s", silent, names)
