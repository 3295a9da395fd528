# SPDX-License-Identifier: Apache-2.0
"""Who calls. Over HTTP the port has admitted each request; a WebSocket was admitted once, so its requests are anew."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.envelope import REQUEST_ID
from agent_runtime.security import Guard, GuardedCore
from agent_runtime.telemetry.http_server import Scope

_again: ContextVar[Callable[[], Awaitable[Core]] | None] = ContextVar("mcp_admission", default=None)


async def callers_core() -> Core:
    """The core as whoever sent the request may use it. Raises what `Guard.admit` raises."""
    admit = _again.get()
    return callers.current_core() if admit is None else await admit()


class Admission:
    """Of one connection."""

    def __init__(self, guard: Guard | None, scope: Scope) -> None:
        self._guard = guard
        self._credentials = callers.credentials(scope, request=scope["state"][REQUEST_ID])
        self._core = callers.current_core()

    def apply(self) -> None:
        """Have every request that is handled in this context, and in tasks that it starts, admitted anew."""
        _again.set(self._admit)

    async def _admit(self) -> Core:
        return self._core if self._guard is None else await self._guard.admit(self._credentials)

    async def watch(self) -> None:
        """Ends with UnauthenticatedError when the key is not valid any more; never, if none is asked for."""
        if self._guard is not None and isinstance(self._core, GuardedCore):
            await self._guard.watch(self._core.caller, self._credentials)
