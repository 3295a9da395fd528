# SPDX-License-Identifier: Apache-2.0
"""The adapter for A2A: JSON-RPC and HTTP+JSON with server-sent events, and the agent cards, on the HTTP port."""

import logging
from typing import Final

from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.types import AgentCard
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agent_runtime.adapters.a2a.addresses import Address, AgentNotFoundError
from agent_runtime.adapters.a2a.bodies import Bodies
from agent_runtime.adapters.a2a.calls import HttpCalls, base_url
from agent_runtime.adapters.a2a.cards import PREFIX, Cards
from agent_runtime.adapters.a2a.handler import Handler
from agent_runtime.adapters.a2a.push import Deliveries, configs, targets
from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.http import errors
from agent_runtime.adapters.http.callers import current_core
from kubeagents_api.errors import KubeagentsError

_AGENT: Final = f"{PREFIX}/{{address}}"


class A2aAdapter:
    """Answers below `/a2a/`, and for the card at the well-known path."""

    def __init__(self, surroundings: Surroundings) -> None:
        _quiet()
        guarded = surroundings.guard is not None
        cards = Cards(surroundings)
        core, store = surroundings.core, surroundings.push_store
        handler = Handler(cards, configs(surroundings))
        app = Bodies(_application(handler, cards, guarded), max_payload_bytes=core.max_payload_bytes)
        self._deliveries = Deliveries(store, core, targets(surroundings)) if store is not None else None
        own = f"{PREFIX}/*{AGENT_CARD_WELL_KNOWN_PATH}"
        surroundings.web.mount(PREFIX, app, public={own})
        surroundings.web.mount(AGENT_CARD_WELL_KNOWN_PATH, app, public={AGENT_CARD_WELL_KNOWN_PATH})

    async def start(self) -> None:
        """Begin with push notifications. The port is shared."""
        if self._deliveries is not None:
            self._deliveries.start()

    async def stop(self, *, grace_seconds: float) -> None:
        """End push notifications; others go on with them. Streams end when the core drains."""
        if self._deliveries is not None:
            await self._deliveries.stop()


def _application(handler: Handler, cards: Cards, guarded: bool) -> Starlette:
    calls = HttpCalls()
    routes: list[BaseRoute] = []
    for path in (PREFIX, f"{PREFIX}/", _AGENT, f"{_AGENT}/"):
        routes += create_jsonrpc_routes(handler, path, context_builder=calls)
    rest = create_rest_routes(handler, context_builder=calls, path_prefix=_AGENT)
    # The others are for tenants in paths, which addresses are here.
    routes += [route for route in rest if isinstance(route, Route)]

    async def card(request: Request) -> Response:
        """The card of an agent, or of the CentralAgent."""
        address = Address.parse(request.path_params.get("address", ""))
        url = base_url(request)
        if guarded:
            return _card(cards.public(address, base_url=url))
        core = current_core()
        return _card(await cards.whole(core, await address.settled(core), base_url=url))

    routes += [Route(path + AGENT_CARD_WELL_KNOWN_PATH, card, methods=["GET"]) for path in ("", _AGENT)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _on_http, KubeagentsError: _on_ours})
    app.router.redirect_slashes = False
    return app


def _card(card: AgentCard) -> Response:
    # Where it says that the agent is depends on where it was asked for, so no cache may give it to others.
    return JSONResponse(MessageToDict(card), headers={"cache-control": "private, no-cache"})


def _on_ours(_: Request, error: Exception) -> Response:
    if isinstance(error, AgentNotFoundError):
        return errors.answer(404, error.code, str(error))
    return errors.refusal(error)


def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    method, path = request.method, request.url.path
    if error.status_code == 405:
        text = f"{method} is not possible at {path}"
        return errors.answer(405, "METHOD_NOT_ALLOWED", text, headers=error.headers)
    text = f"there is nothing of A2A at {path}: an agent's card is at {PREFIX}/<agent>{AGENT_CARD_WELL_KNOWN_PATH}"
    return errors.answer(404, "NOT_FOUND", text)


def _quiet() -> None:
    """The SDK logs each bad request as a fault of its own, with a traceback. What matters is logged here."""
    logging.getLogger("a2a").setLevel(logging.CRITICAL)
