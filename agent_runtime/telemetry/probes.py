# SPDX-License-Identifier: Apache-2.0
"""`/healthz`, `/readyz` and `/metrics` as a bare ASGI application: an agent pod needs no web framework for that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from agent_runtime.telemetry.http_server import Receive, Scope, Send, error_body, respond

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a probe: whether all is well, and what was found by each check."""

    ok: bool
    checks: Mapping[str, str]
    """Name of the check to `ok`, or to a sentence that says what is wrong."""


def all_of(checks: Mapping[str, str | None]) -> Report:
    """A report that is ok if every check is; None stands for ok."""
    return Report(ok=not any(checks.values()), checks={name: trouble or "ok" for name, trouble in checks.items()})


class Probes:
    """The ASGI application. Anything but the three paths is 404."""

    def __init__(self, *, live: Callable[[], Report], ready: Callable[[], Report], registry: CollectorRegistry) -> None:
        self._reports = {"/healthz": live, "/readyz": ready}
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            body = error_body(f"{scope['method']} is not possible here: use GET", code="METHOD_NOT_ALLOWED")
            await respond(send, 405, body, headers=[(b"allow", b"GET, HEAD")])
        elif path in self._reports:
            report = self._reports[path]()
            content: dict[str, Any] = {"ok": report.ok, "checks": dict(report.checks)}
            await respond(send, 200 if report.ok else 503, orjson.dumps(content))
        elif path == "/metrics":
            await respond(send, 200, generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST.encode())
        else:
            await respond(
                send,
                404,
                error_body(
                    f"there is nothing at {path}; this process has {', '.join(sorted(PROBE_PATHS))}", code="NOT_FOUND"
                ),
            )
