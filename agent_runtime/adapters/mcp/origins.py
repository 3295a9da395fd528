# SPDX-License-Identifier: Apache-2.0
"""Web pages of others must not reach the tools through somebody's browser.

On a loopback address only its own names are taken as `Host` and `Origin`, so that a page whose name is made to point
there (DNS rebinding) gets nothing. Elsewhere nobody knows all names of a server, so a page may call the server that it
came from, and no other.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers

from agent_runtime.telemetry.http_server import Scope

_LOCAL: Final = ("127.0.0.1", "localhost", "[::1]")
SETTINGS: Final = TransportSecuritySettings(
    enable_dns_rebinding_protection=True,
    allowed_hosts=[*_LOCAL, *(f"{name}:*" for name in _LOCAL)],
    allowed_origins=[
        f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in _LOCAL for port in ("", ":*")
    ],
)
"""For a server on a loopback address, as the SDK has it."""


def is_local(host: str) -> bool:
    """Whether a server that listens there can be reached from its own machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refused(scope: Scope, *, local: bool) -> bool:
    """Whether a request, or the handshake of a WebSocket, comes from where it should not."""
    headers = Headers(scope=scope)
    host, origin = headers.get("host"), headers.get("origin")
    if not local:
        return origin is not None and urlsplit(origin).netloc != host
    named = [host or "", *([urlsplit(origin).netloc] if origin is not None else [])]
    return any(_without_port(name) not in _LOCAL for name in named)


def _without_port(name: str) -> str:
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdigit() else name
