# SPDX-License-Identifier: Apache-2.0
"""The adapter for HTTP: the API and the two pages."""

from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.http.application import build
from agent_runtime.adapters.http.callers import PUBLIC_PATHS, callers_core
from agent_runtime.adapters.http.direct import Direct


class HttpAdapter:
    """Answers on the HTTP port whatever no other adapter does."""

    def __init__(self, surroundings: Surroundings) -> None:
        app = build(callers_core, guarded=surroundings.guard is not None)
        surroundings.web.mount("", Direct(app), public=PUBLIC_PATHS)

    async def start(self) -> None:
        """Nothing to do: the port is shared."""

    async def stop(self, *, grace_seconds: float) -> None:
        """Nothing to do: the port is shared."""
