# SPDX-License-Identifier: Apache-2.0
"""Lets submissions that come close together begin together, so that they share one round trip to Redis.

The queue takes all that begins in one turn of the event loop in one round trip. grpc.aio hands over one call in each
turn, so they would go one by one, and the round trips would cost more than all the rest. From five hundred a second on,
who comes while another one is under way waits a moment for others. A lone caller never does, however fast it is.
"""

import asyncio
from collections import deque
from typing import Final

_WINDOW_SECONDS: Final = 0.003
_RECENT: Final = 16
_RECENT_SECONDS: Final = 0.032
"""So many in that time are five hundred in a second."""


class Gathering:
    """Submissions of one process: `async with gathering:` around each."""

    def __init__(self) -> None:
        self._began: deque[float] = deque([float("-inf")] * _RECENT, maxlen=_RECENT)
        self._under_way = 0
        """Those that wait for others are not."""
        self._waiting: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        busy = (self._under_way or self._waiting) and now - self._began[0] < _RECENT_SECONDS
        self._began.append(now)
        if busy:
            if not self._waiting:
                loop.call_later(_WINDOW_SECONDS, self._begin)
            place = loop.create_future()
            self._waiting.append(place)
            await place
        self._under_way += 1

    async def __aexit__(self, *_: object) -> None:
        self._under_way -= 1

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            if not place.done():  # its caller has gone
                place.set_result(None)
