# SPDX-License-Identifier: Apache-2.0
"""What the operator sends to an API server, and what it makes of the answers. The server says what a test wants."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry

from kubeagents_operator.cluster import (
    ApiUnavailableError,
    Cluster,
    ConflictError,
    ExistsError,
    NotLeadingError,
    ObjectRefusedError,
)
from kubeagents_operator.keys import Key
from kubeagents_operator.metrics import ApiMetrics
from kubeagents_operator.watched import SERVICE

KEY = Key("Agent", "shop", "echo")


class Server:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = lambda: web.json_response({"kind": "Agent"})
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.method)
        return self.answer()


@pytest.fixture
async def server() -> Server:
    return Server()


@asynccontextmanager
async def cluster(server: Server, *, may_write: Callable[[], bool] = lambda: True) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")) as client:
        made = Cluster(client, may_write=may_write, metrics=ApiMetrics(CollectorRegistry()))
        try:
            yield made
        finally:
            await made.aclose()
            await runner.cleanup()


async def test_nothing_is_written_if_the_lease_runs_out_while_a_connection_is_made(server: Server) -> None:
    answers = iter([True, False])  # asked at first, and with the connection in hand
    async with cluster(server, may_write=lambda: next(answers)) as api:
        with pytest.raises(NotLeadingError):
            await api.patch_status(KEY, uid="1", patch={})
    assert server.asked == []


async def test_who_does_not_lead_may_read(server: Server) -> None:
    async with cluster(server, may_write=lambda: False) as api:
        assert await api.get(SERVICE, "shop", "echo") == {"kind": "Agent"}
        with pytest.raises(NotLeadingError):
            await api.delete(SERVICE, "shop", "echo", uid="1")
    assert server.asked == ["GET"]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (409, "AlreadyExists", ExistsError),
        (409, "Conflict", ConflictError),
        (403, "Forbidden", ObjectRefusedError),
        (422, "Invalid", ObjectRefusedError),
        (401, "Unauthorized", ApiUnavailableError),
        (500, "InternalError", ApiUnavailableError),
        (504, "Timeout", ApiUnavailableError),
    ],
)
async def test_each_refusal_is_an_error_of_its_kind(
    server: Server, status: int, reason: str, expected: type[Exception]
) -> None:
    server.answer = lambda: web.json_response({"message": "so it is", "reason": reason}, status=status)
    async with cluster(server) as api:
        with pytest.raises(expected, match="so it is") as caught:
            await api.patch_status(KEY, uid="1", patch={})
    assert type(caught.value) is expected


@pytest.mark.parametrize(("header", "delay"), [("7", 7.0), ("soon", None), (None, None)])
async def test_the_api_server_says_when_to_try_again(server: Server, header: str | None, delay: float | None) -> None:
    headers = {"Retry-After": header} if header is not None else {}
    server.answer = lambda: web.json_response({"message": "too many"}, status=429, headers=headers)
    async with cluster(server) as api:
        with pytest.raises(ApiUnavailableError) as caught:
            await api.patch_status(KEY, uid="1", patch={})
    assert caught.value.delay == delay
