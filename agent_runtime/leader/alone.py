# SPDX-License-Identifier: Apache-2.0
"""Leadership without rivals: the one CentralAgent process of `kubeagents dev`."""

import asyncio
import time


class AloneElector:
    """Leads from `start` to `stop`."""

    def __init__(self, *, identity: str) -> None:
        self.identity = identity
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()
        self._term = 0

    @property
    def is_leader(self) -> bool:
        """True from `start` to `stop`."""
        return self._leading.is_set()

    @property
    def fencing(self) -> int:
        """Milliseconds since 1970 at the start: greater than in every earlier process that had these queues."""
        return self._term

    @property
    def holder(self) -> str | None:
        """This process, while it leads."""
        return self.identity if self.is_leader else None

    async def start(self) -> None:
        """Lead."""
        self._term = max(self._term + 1, int(time.time() * 1000))
        self._lost.clear()
        self._leading.set()

    async def stop(self) -> None:
        """Lead no more."""
        self._leading.clear()
        self._lost.set()

    async def wait_until_leading(self) -> int:
        """Wait for `start`."""
        await self._leading.wait()
        return self._term

    async def wait_until_lost(self) -> None:
        """Wait for `stop`."""
        await self._lost.wait()
