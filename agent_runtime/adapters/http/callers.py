# SPDX-License-Identifier: Apache-2.0
"""Who sends a request, and the core as that caller may use it."""

from contextvars import ContextVar
from typing import Any, cast

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.headers import AUTHORIZATION_HEADER, KEY_HEADER, api_key
from agent_runtime.adapters.http.errors import RefusedError
from agent_runtime.security import Credentials, GuardedCore, parse_certificate
from agent_runtime.telemetry.http_server import CLIENT_CERTIFICATE, Scope

KEY_SUBPROTOCOL = "key."
"""Before the key in a subprotocol: a browser cannot add headers to the handshake of a WebSocket."""
PUBLIC_PATHS = frozenset({"/", "/docs", "/openapi.json"})
"""The pages, which ask for a key themselves, and the description of the API."""

_SHOWN = {name.encode(): name for name in (KEY_HEADER, AUTHORIZATION_HEADER)}

_core: ContextVar[Core] = ContextVar("core")


class CallersCore:
    """The core for the request that is being handled: for the operations, which are built once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_core.get(), name)


callers_core = cast("Core", CallersCore())
bind, unbind = _core.set, _core.reset


def current_core() -> Core:
    """The core for the request that is being handled: for what outlives the handling, or happens in other tasks."""
    return _core.get()


def guarded() -> GuardedCore:
    """The same, for what exists only where callers are told apart. Raises RefusedError elsewhere."""
    core = _core.get()
    if not isinstance(core, GuardedCore):
        raise RefusedError(
            409,
            "ACCESS_OPEN",
            "nobody is asked for a key here, as in `kubeagents dev`: there are none, and no audit log",
        )
    return core


def name() -> str | None:
    """Who calls, where callers are told apart."""
    core = _core.get()
    return core.caller.name if isinstance(core, GuardedCore) else None


def credentials(scope: Scope, *, request: str) -> Credentials:
    """What came with a request."""
    client = scope.get("client")
    shown = scope.get("state", {}).get(CLIENT_CERTIFICATE)
    return Credentials(
        protocol=str(scope["type"]),
        address=client[0] if client else None,
        key=_key(scope),
        certificate=parse_certificate(shown) if shown is not None else None,
        request=request,
    )


def _key(scope: Scope) -> str | None:
    key = None
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(KEY_SUBPROTOCOL):
            key = offered.removeprefix(KEY_SUBPROTOCOL)
    shown = api_key((_SHOWN[name], value.decode("latin-1")) for name, value in scope["headers"] if name in _SHOWN)
    return shown if shown is not None else key
