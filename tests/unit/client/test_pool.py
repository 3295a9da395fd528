# SPDX-License-Identifier: Apache-2.0
"""Which way a call takes, with transports that break as they are told."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_runtime.client import pool as pools
from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import UnknownServerError, UnreachableError
from agent_runtime.client.pool import Backoff, Pool
from agent_runtime.client.transport import Params
from kubeagents_api.errors import (
    InvalidTaskError,
    KubeagentsError,
    QueueUnavailableError,
    TemporaryError,
    UnauthenticatedError,
)


class Wire:
    """A transport that answers with its name, unless it is told otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.draining = False
        self.error: KubeagentsError | None = None
        self.hangs = False
        self.calls = 0
        self.probed = asyncio.Event()
        self.streams: list[asyncio.Queue[Any]] = []

    async def call(self, name: str, params: Params, *, timeout_seconds: float) -> Any:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.name

    async def stream(self, name: str, params: Params, *, silence_seconds: float) -> AsyncGenerator[Any, None]:
        if self.error is not None:
            raise self.error
        items: asyncio.Queue[Any] = asyncio.Queue()
        self.streams.append(items)
        yield (self.name, params["after"])
        while (item := await items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def probe(self, *, timeout_seconds: float) -> None:
        self.probed.set()
        if self.error is not None:
            raise self.error

    async def reset(self) -> None:
        self.error = None

    async def aclose(self) -> None:
        pass


def down(name: str, *, sent: bool = True) -> UnreachableError:
    return UnreachableError(f"{name} is down", sent=sent)


@pytest.fixture
async def wires(monkeypatch: pytest.MonkeyPatch) -> dict[str, Wire]:
    found = {name: Wire(name) for name in ("a", "b", "c")}
    monkeypatch.setattr(pools, "_transport", lambda endpoint, **_: found[endpoint.host])
    monkeypatch.setattr(pools, "_FIRST_PAUSE_SECONDS", 0.001)
    return found


@asynccontextmanager
async def pool_of(*names: str, key: Key | None = None) -> AsyncIterator[Pool]:
    pool = Pool([Endpoint.parse(f"http://{name}") for name in names], key=key or Key(), trust=Trust())
    try:
        yield pool
    finally:
        await pool.aclose()


async def call(pool: Pool, *, seconds: float = 20, on_doubt: Callable[[], None] = lambda: None) -> Any:
    return await pool.call("any", {}, timeout_seconds=seconds, on_doubt=on_doubt)


async def test_the_first_that_works_is_taken_and_the_preferred_one_again_once_it_does(wires: dict[str, Wire]) -> None:
    wires["a"].error, wires["b"].error = down("a"), down("b")
    async with pool_of("a", "b", "c") as pool:
        assert await call(pool) == "c"
        wires["a"].probed.clear()
        wires["a"].error = None
        await wires["a"].probed.wait()
        await asyncio.sleep(0)
        assert await call(pool) == "a"


async def test_an_error_of_the_server_is_not_tried_elsewhere(wires: dict[str, Wire]) -> None:
    wires["a"].error = InvalidTaskError("no", field="id")
    async with pool_of("a", "b") as pool:
        with pytest.raises(InvalidTaskError):
            await call(pool)
    assert wires["b"].calls == 0


async def test_only_a_call_that_may_have_been_carried_out_is_in_doubt(wires: dict[str, Wire]) -> None:
    doubts: list[str] = []
    wires["a"].error = down("a", sent=False)
    async with pool_of("a", "b") as pool:
        await call(pool, on_doubt=lambda: doubts.append("a"))
        assert doubts == []
        wires["b"].error = down("b")
        wires["a"].error = None
        await call(pool, on_doubt=lambda: doubts.append("b"))
    assert doubts in (["b"], [])  # the probe of a may have come first


async def test_a_call_waits_until_something_works(wires: dict[str, Wire]) -> None:
    wires["a"].error = down("a")
    async with pool_of("a") as pool:
        waiting = asyncio.create_task(call(pool))
        await wires["a"].probed.wait()
        wires["a"].error = None
        assert await waiting == "a"


async def test_when_nothing_works_the_error_names_all(wires: dict[str, Wire]) -> None:
    wires["a"].error, wires["b"].error = down("a"), down("b", sent=False)
    async with pool_of("a", "b") as pool:
        with pytest.raises(UnreachableError, match="no CentralAgent can be reached: a is down; b is down") as error:
            await call(pool, seconds=0.05)
        assert error.value.sent


async def test_what_is_no_central_agent_is_not_waited_for(wires: dict[str, Wire]) -> None:
    wires["a"].error = UnknownServerError("a is a shop")
    async with pool_of("a") as pool:
        with pytest.raises(UnknownServerError, match="a is a shop"):
            await call(pool, seconds=3600)


async def test_a_server_without_its_redis_is_passed_over(wires: dict[str, Wire]) -> None:
    wires["a"].error = QueueUnavailableError("no Redis")
    async with pool_of("a", "b") as pool:
        assert await call(pool) == "b"
        wires["b"].error = QueueUnavailableError("nor here")
        with pytest.raises(QueueUnavailableError, match="no"):
            await call(pool, seconds=3600)


async def test_who_drains_is_asked_only_if_there_is_nobody_else(wires: dict[str, Wire]) -> None:
    async with pool_of("a", "b") as pool:
        wires["a"].draining = True
        assert await call(pool) == "b"
        wires["b"].error = down("b")
        assert await call(pool) == "a"


async def test_a_call_that_is_turned_away_by_a_server_that_drains_goes_elsewhere(wires: dict[str, Wire]) -> None:
    error = TemporaryError("bye")
    error.code = "DRAINING"
    wires["a"].error = error
    async with pool_of("a", "b") as pool:
        assert await call(pool) == "b"


async def test_a_server_that_hangs_is_given_up_when_a_probe_fails(
    wires: dict[str, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "CHECK_SECONDS", 0.01)
    wires["a"].hangs = True
    async with pool_of("a", "b") as pool:
        waiting = asyncio.create_task(call(pool))
        await wires["a"].probed.wait()
        assert not waiting.done()  # it lives
        wires["a"].error = down("a")
        assert await waiting == "b"


async def test_a_stream_goes_on_after_its_last_item_and_moves_back(wires: dict[str, Wire]) -> None:
    after = "0"
    async with pool_of("a", "b") as pool:
        stream = pool.stream("watch", lambda: {"after": after}, timeout_seconds=20)
        assert await anext(stream) == ("a", "0")
        after = "1"
        wires["a"].error = down("a")
        wires["a"].streams[0].put_nowait(wires["a"].error)
        assert await anext(stream) == ("b", "1")
        after = "2"
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        wires["a"].error = None
        assert await coming == ("a", "2")
        wires["a"].streams[-1].put_nowait(None)
        assert [item async for item in stream] == []


async def test_a_key_from_a_file_is_read_again_when_it_is_refused(wires: dict[str, Wire], tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    wires["a"].error = UnauthenticatedError("who are you")
    async with pool_of("a", key=Key(file=file)) as pool:
        with pytest.raises(UnauthenticatedError):
            await call(pool)
        file.write_text("new")
        assert await call(pool) == "a"


def test_pauses_grow_at_random_up_to_a_bound() -> None:
    backoff = Backoff()
    pauses = [[backoff.pause() for _ in range(12)] for _ in range(200)]
    bounds = [max(column) for column in zip(*pauses[:1], strict=True)]
    assert all(0 <= pause <= 5 for run in pauses for pause in run)
    assert bounds[0] <= 0.1
    backoff.reset()
    assert backoff.pause() <= 0.1


def test_an_endpoint_whose_library_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(endpoint: Endpoint, **_: Any) -> Wire:
        if endpoint.protocol == "grpc":
            raise ModuleNotFoundError("no grpc", name="grpc")
        return Wire(endpoint.host)

    monkeypatch.setattr(pools, "_transport", missing)
    both = [Endpoint.parse("grpc://a"), Endpoint.parse("http://b")]
    assert [way.endpoint.host for way in Pool(both, key=Key(), trust=Trust()).ways] == ["b"]
    with pytest.raises(EndpointError, match="grpc://a needs the library grpc"):
        Pool(both[:1], key=Key(), trust=Trust())
