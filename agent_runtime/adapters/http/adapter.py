# SPDX-License-Identifier: Apache-2.0
"""The adapter for HTTP."""

from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.http.application import build
from agent_runtime.adapters.http.callers import callers_core
from agent_runtime.adapters.http.envelope import Envelope
from agent_runtime.telemetry.http_server import HttpServer


class HttpAdapter:
    """Serves the API, the two pages and the probes on one port."""

    def __init__(self, surroundings: Surroundings) -> None:
        app = Envelope(
            build(callers_core, guarded=surroundings.guard is not None),
            core=surroundings.core,
            guard=surroundings.guard,
            probes=surroundings.probes,
            registry=surroundings.registry,
        )
        self._server = HttpServer(app, host=surroundings.host, port=surroundings.port)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._server.address

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self, *, grace_seconds: float) -> None:
        """Stop listening, let running requests end within the grace, then cut them."""
        await self._server.stop(grace_seconds=grace_seconds)
