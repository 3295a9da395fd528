# SPDX-License-Identifier: Apache-2.0
"""How many pods share the calls of a principal: each shows itself in Redis now and then."""

import asyncio
import logging
from typing import Final, Protocol

from agent_runtime.security.rates import Rates
from kubeagents_api.errors import QueueUnavailableError

_log = logging.getLogger(__name__)

SHOW_SECONDS: Final = 5.0
GONE_SECONDS: Final = 15.0
"""Who has not shown itself for so long does not count."""


class Place(Protocol):
    """Where pods show themselves: `agent_runtime.queue.access_store.AccessStore`."""

    async def show(self, instance: str, *, gone_seconds: float) -> int: ...


class Peers:
    """Counts the pods of a CentralAgent, and tells the rates."""

    def __init__(self, place: Place, rates: Rates, *, instance: str) -> None:
        self._place = place
        self._rates = rates
        self._instance = instance

    async def run(self) -> None:
        """Until cancelled. While Redis is away, the last number holds."""
        while True:
            try:
                self._rates.share(await self._place.show(self._instance, gone_seconds=GONE_SECONDS))
            except QueueUnavailableError as error:
                _log.debug("the pods of this CentralAgent cannot be counted: %s", error)
            await asyncio.sleep(SHOW_SECONDS)
