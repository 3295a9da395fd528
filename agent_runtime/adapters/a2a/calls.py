# SPDX-License-Identifier: Apache-2.0
"""What a call brings along besides its message: the core as the caller may use it, whom it is for, who has gone."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from a2a.server.context import ServerCallContext
from a2a.server.routes import ServerCallContextBuilder
from starlette.requests import ClientDisconnect, Request

from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.answers import unless_gone
from agent_runtime.adapters.http.callers import current_core
from agent_runtime.security import GuardedCore
from kubeagents_api.errors import InvalidTaskError

_CALL: Final = "kubeagents"


@dataclass(frozen=True, slots=True)
class Call:
    """One call, whatever the binding."""

    core: Core
    address: str
    """Whom it is for; empty where only its `tenant` tells."""
    base_url: str | None = None
    """Where the caller has found this CentralAgent, over HTTP."""
    request: Request | None = None
    """Over HTTP, where it takes attention to notice that a client hangs up."""

    @classmethod
    def of(cls, context: ServerCallContext) -> "Call":
        """The call that the context is of."""
        call: Call = context.state[_CALL]
        return call

    def put_into(self, context: ServerCallContext) -> ServerCallContext:
        """The context, which is of this call then."""
        context.state[_CALL] = self
        return context

    @property
    def sender(self) -> str:
        """Who calls; empty where nobody is asked."""
        return self.core.caller.name if isinstance(self.core, GuardedCore) else ""

    async def to(self, tenant: str) -> Address:
        """Whom it is for. Raises AgentNotFoundError, QueueNotFoundError, InvalidTaskError."""
        address = Address.parse(self.address or tenant)
        if tenant and self.address and Address.parse(tenant) not in (address, Address()):
            if not address.open:
                raise InvalidTaskError(
                    f"the tenant {tenant[:130]!r} is not {address}, which the URL names", field="tenant"
                )
            address = Address.parse(tenant)
        return await address.settled(self.core)

    @contextlib.asynccontextmanager
    async def unless_gone(self) -> AsyncIterator[None]:
        """Cut the block short when the client hangs up. Raises ClientDisconnect then."""
        if self.request is None:
            yield
            return
        async with unless_gone(self.request) as gone:
            yield
        if gone.expired():
            raise ClientDisconnect


class HttpCalls(ServerCallContextBuilder):
    """Makes the context of a request over HTTP."""

    def build(self, request: Request) -> ServerCallContext:
        """The context of a request; in the task that handles it."""
        call = Call(current_core(), request.path_params.get("address", ""), base_url(request), request)
        return call.put_into(ServerCallContext(state={"headers": dict(request.headers)}))


def base_url(request: Request) -> str:
    """Where the caller has found this CentralAgent: what a proxy says, or what it has asked for itself."""
    scheme = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if scheme not in ("http", "https"):
        scheme = request.url.scheme
    host = request.headers.get("x-forwarded-host", "").partition(",")[0].strip() or request.url.netloc
    return f"{scheme}://{host}"
