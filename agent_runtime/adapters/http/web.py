# SPDX-License-Identifier: Apache-2.0
"""The HTTP port: what all protocols on it have in common, and which of them gets a request.

An adapter mounts an ASGI application under a prefix. Around all of them is the envelope: ids of requests, who calls,
figures, log lines, the last catch. The probes are outside of it.
"""

import re
import ssl
from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.body import BATCH_BYTES, ENVELOPE_BYTES
from agent_runtime.adapters.http.envelope import Envelope
from agent_runtime.security import Guard
from agent_runtime.telemetry.http_server import AsgiApp, HttpServer, Receive, Scope, Send


class PublicPaths:
    """Those that need no key."""

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []

    def add(self, paths: Iterable[str]) -> None:
        """These as well; `*` in one stands for what is between two slashes."""
        for path in paths:
            if "*" in path:
                self._patterns.append(re.compile("[^/]+".join(map(re.escape, path.split("*")))))
            else:
                self._exact.add(path)

    def __contains__(self, path: object) -> bool:
        return path in self._exact or any(pattern.fullmatch(str(path)) for pattern in self._patterns)


class Web:
    """One port for HTTP and for what rides on it."""

    def __init__(
        self,
        *,
        core: Core,
        guard: Guard | None,
        probes: AsgiApp,
        registry: CollectorRegistry,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Without a guard, whoever reaches the port may do everything."""
        self._mounts: list[tuple[str, AsgiApp]] = []
        self._public = PublicPaths()
        envelope = Envelope(
            self._dispatch, core=core, guard=guard, public=self._public, probes=probes, registry=registry
        )
        limit = max(BATCH_BYTES, core.max_payload_bytes + ENVELOPE_BYTES)
        self._server = HttpServer(envelope, host=host, port=port, max_message_bytes=limit, tls=tls)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._server.address

    def mount(self, prefix: str, app: AsgiApp, *, public: Collection[str] = ()) -> None:
        """Let `app` answer what is at the prefix or below it; the longest prefix wins, an empty one takes the rest.

        It gets whole paths. The `public` ones need no key; `*` in one stands for what is between two slashes. Which
        core a caller may use is `agent_runtime.adapters.http.callers.current_core()`, for HTTP as for WebSockets.
        """
        self._mounts.append((prefix, app))
        self._mounts.sort(key=lambda mount: len(mount[0]), reverse=True)
        self._public.add(public)

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if the address cannot be had."""
        await self._server.start()

    async def stop(self, *, grace_seconds: float) -> None:
        """Stop listening, let running requests end within the grace, then cut them."""
        await self._server.stop(grace_seconds=grace_seconds)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        for prefix, app in self._mounts:
            if not prefix or path == prefix or path.startswith(f"{prefix}/"):
                return await app(scope, receive, send)
        raise LookupError(f"no adapter is mounted for {path}")  # the one with an empty prefix always is
