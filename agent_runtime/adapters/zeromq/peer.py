# SPDX-License-Identifier: Apache-2.0
"""One peer of the ROUTER socket."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls.errors import TooManyCallsError
from agent_runtime.adapters.calls.figures import Figures
from agent_runtime.adapters.calls.session import Session
from agent_runtime.cancellation import end
from agent_runtime.security import Caller, Credentials, Guard
from kubeagents_api.errors import UnauthenticatedError

MOST_FRAMES: Final = 4096
"""That have come and wait, because the peer does not take its answers."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""All of them together, unless it is one alone."""


class Peer:
    """A session, and the frames for it: a ROUTER socket cannot leave those of one peer unread."""

    def __init__(
        self,
        peer_id: bytes,
        *,
        core: Core,
        guard: Guard | None,
        caller: Caller | None,
        credentials: Credentials,
        figures: Figures,
        send: "Callable[[bytes, str], Awaitable[None]]",
        forget: "Callable[[Peer], Awaitable[None]]",
    ) -> None:
        self.id = peer_id
        self._core = core
        self._guard = guard
        self._caller = caller
        self._credentials = credentials
        self._send = send
        self._forget = forget
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._heard_at = time.monotonic()
        by = caller.name if caller is not None else credentials.address or "unknown"
        self.session = Session(admit=self._admit, send=self._send_text, by=by, figures=figures)
        self._reading = asyncio.create_task(self._read())
        self._watching = asyncio.create_task(self._watch())

    @property
    def silent_seconds(self) -> float:
        """How long nothing has come from it."""
        return time.monotonic() - self._heard_at

    def take(self, frame: bytes) -> None:
        """Take a frame. Raises TooManyCallsError if it would have to wait with too many others."""
        self._heard_at = time.monotonic()
        if self._frames and (len(self._frames) >= MOST_FRAMES or self._bytes + len(frame) > MOST_BYTES):
            raise TooManyCallsError("you send calls and do not take their answers, and are forgotten: begin anew")
        self._frames.append(frame)
        self._bytes += len(frame)
        self._some.set()

    async def close(self) -> None:
        """It has gone, or may not call any more."""
        await end(*({self._reading, self._watching} - {asyncio.current_task()}))
        await self.session.close()

    async def _read(self) -> None:
        while True:
            await self._some.wait()
            while self._frames:
                frame = self._frames.popleft()
                self._bytes -= len(frame)
                await self.session.receive(frame)
            self._some.clear()

    async def _watch(self) -> None:
        """Forget it if its key is not valid any more."""
        if self._guard is None or self._caller is None:
            return
        try:
            await self._guard.watch(self._caller, self._credentials)
        except UnauthenticatedError as error:
            await self.session.fail(error)
            await self._forget(self)

    async def _admit(self) -> Core:
        return self._core if self._guard is None else await self._guard.admit(self._credentials)

    async def _send_text(self, text: str) -> None:
        await self._send(self.id, text)
