# SPDX-License-Identifier: Apache-2.0
"""HTTP and server-sent events, by httpx."""

import contextlib
from collections.abc import AsyncIterator

import httpx

from tests.conformance.protocols.driver import BrokenError, Driver, RefusedError, Said, code_of
from tests.conformance.protocols.drivers.rest import JSON, OFFERS, RestClient, said


class HttpDriver(Driver):
    """HTTP with keep-alive."""

    name = "http"
    title = "HTTP, SSE"
    endpoint = "http"
    client = "httpx"
    offers = OFFERS

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[RestClient]:
        """A pool of connections."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=90, trust_env=False
        ) as client:
            yield _HttpClient(client)


class _HttpClient(RestClient):
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = JSON
    ) -> tuple[int, bytes]:
        headers = {} if body is None else {"content-type": content_type}
        try:
            answer = await self._client.request(method, path, content=body, headers=headers)
        except httpx.TransportError as error:
            raise BrokenError(repr(error)) from error
        return answer.status_code, answer.content

    async def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        headers = {"accept": "text/event-stream", **({"last-event-id": after} if after else {})}
        try:
            async with self._client.stream("GET", f"/v1/queues/main/tasks/{task}/stream", headers=headers) as answer:
                if answer.status_code != 200:
                    raise RefusedError(code_of(await answer.aread()))
                async for item in said(answer.aiter_lines()):
                    yield item
        except httpx.TransportError as error:
            raise BrokenError(repr(error)) from error
