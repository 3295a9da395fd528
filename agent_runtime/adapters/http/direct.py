# SPDX-License-Identifier: Apache-2.0
"""The short way for the calls of which there are most.

An operation that takes nothing but the request, at a path without parameters, needs none of what the framework does
before it: of the time that a submission takes in FastAPI, four fifths are looking for a route, dependencies that are
not there, and stacks of contexts that stay empty. Everything else, and what OpenAPI says, stays with the framework.
"""

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

from agent_runtime.adapters.http.errors import refusal
from agent_runtime.telemetry.http_server import Receive, Scope, Send
from kubeagents_api.errors import KubeagentsError


class Direct:
    """An ASGI application in front of a FastAPI."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in app.routes
            if isinstance(route, APIRoute) and _takes_the_request_only(route)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            return await self._app(scope, receive, send)
        scope["route"] = route
        answer: Response
        try:
            answer = await route.endpoint(Request(scope, receive, send))
        except KubeagentsError as error:
            answer = refusal(error)
        await answer(scope, receive, send)


def _takes_the_request_only(route: APIRoute) -> bool:
    needs = route.dependant
    parts = (needs.path_params, needs.query_params, needs.header_params, needs.cookie_params, needs.body_params)
    return needs.request_param_name is not None and not any(parts) and not needs.dependencies
