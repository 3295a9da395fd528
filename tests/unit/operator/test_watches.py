# SPDX-License-Identifier: Apache-2.0
"""What kopf gets to see of the answers to its list and watch requests when something happens to their connection.

It bears errors of connections and ends with all others. The server says what a test wants.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from kubeagents_operator import watches

PATH = "/api/v1/namespaces/shop/services"


@asynccontextmanager
async def session(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[aiohttp.ClientSession]:
    """As `Watches` makes it, for a server that answers so."""
    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = aiohttp.ClientSession(
        f"http://127.0.0.1:{runner.addresses[0][1]}",
        response_class=watches._response_class(
            {PATH},
            lambda _, __: None,
            lambda _, event: event["object"]["metadata"]["resourceVersion"],
            lambda _, __: None,
        ),
    )
    try:
        yield made
    finally:
        await made.close()
        await runner.cleanup()


def beginning(status: int, begun: bytes = b"{") -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer of which the rest is still on its way."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(begun)
        await asyncio.sleep(60)
        return response

    return answer


# When one watch is refused as unauthorized, kopf closes the session of all. It closes the answers in it that it knows;
# one of which the headers have just come is not among them.


async def test_a_watch_whose_session_is_closed_before_it_is_read_has_lost_its_connection() -> None:
    async with session(beginning(200, b"")) as client:
        answer = await client.get(PATH, params={"watch": "true"})
        await client.close()
        async with answer:
            with pytest.raises(aiohttp.ClientConnectionError):
                await anext(answer.content.iter_chunked(1024))


async def test_a_list_whose_session_is_closed_before_it_is_read_has_lost_its_connection() -> None:
    async with session(beginning(200, b"")) as client:
        answer = await client.get(PATH)
        await client.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await answer.json()


async def test_a_refusal_whose_session_is_closed_while_it_is_read_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watches, "_REFUSAL_TIMEOUT", 0.5)

    async with session(beginning(500)) as client:
        answer = await client.get(PATH, params={"watch": "true"})
        reading = asyncio.ensure_future(answer.json())
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading), 10)
        assert reading.done(), "that was its own patience"


async def test_a_watch_of_a_forgotten_past_gives_its_connection_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_ERROR_PAUSE", 0.0)

    async with session(beginning(410)) as client:
        async with client.get(PATH, params={"watch": "true"}) as answer:
            assert [line async for line in answer.content.iter_chunked(1024)] == [watches._GONE]
        assert answer.closed
