# SPDX-License-Identifier: Apache-2.0
"""All ways to all CentralAgents, in order of preference: which one a call takes, and what happens when it breaks.

                 ┌── broke, or does not answer ──► down ── probe, backoff with full jitter ──┐
    takes calls ─┤                                                                           ├──► takes calls
                 └── says that it drains ──► only if nothing better is left ── probe ────────┘

A call takes the first way that takes calls. If it breaks, the call goes on by the next one at once: every call may be
made twice (a submission has its id, a settlement its token). If none is left, it waits until a probe succeeds or its
time is over. So what was preferred is preferred again as soon as it answers a probe; streams move back to it, too.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Any, Final

from agent_runtime.cancellation import end
from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import UnknownServerError, UnreachableError
from agent_runtime.client.transport import Params, Transport
from kubeagents_api.errors import KubeagentsError, QueueUnavailableError, TemporaryError, UnauthenticatedError

_log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 10.0
"""While a server has not answered for so long, it is looked at whether it is alive."""
SILENCE_SECONDS: Final = 60.0
"""A stream on which nothing has come for so long is taken for dead; our servers say something every 15 s."""
_FAIR_SECONDS: Final = 1.0
"""Who has not answered in less time than this may still be well."""
_SHORTEST_SECONDS: Final = 0.001
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0

DRAINING: Final = "DRAINING"
"""Code of the error of a server that is about to stop."""
_TOO_MANY: Final = "TOO_MANY_CALLS"
"""Code of the error of a server that takes no more at once on a connection."""
_BROKEN = (UnreachableError, UnknownServerError)


class Backoff:
    """Pauses at random between nothing and a bound that doubles (full jitter), so that clients do not come in step."""

    def __init__(self) -> None:
        self._bound = _FIRST_PAUSE_SECONDS

    def pause(self) -> float:
        """Seconds to wait now."""
        seconds = random.uniform(0, self._bound)  # noqa: S311 - spreading load is no cryptography
        self._bound = min(_LONGEST_PAUSE_SECONDS, self._bound * 2)
        return seconds

    def reset(self) -> None:
        """It worked: the next trouble begins with a short pause."""
        self._bound = _FIRST_PAUSE_SECONDS


class Way:
    """One endpoint: its transport, and whether calls may take it."""

    def __init__(self, endpoint: Endpoint, transport: Transport, *, on_change: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self._on_change = on_change
        self._backoff = Backoff()
        self._prober: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self.answered_at = float("-inf")
        """When it last showed that it is alive, by the clock of the loop."""
        self.trouble: KubeagentsError | None = None
        """Why calls do not take it."""

    @property
    def up(self) -> bool:
        """Whether calls may take it."""
        return self.trouble is None

    @property
    def welcome(self) -> bool:
        """Whether they should."""
        return self.up and not self.transport.draining

    def worked(self) -> None:
        """A call was answered."""
        self.answered_at = asyncio.get_running_loop().time()
        self._backoff.reset()
        if self.transport.draining:
            self._watch()

    def broke(self, error: KubeagentsError) -> None:
        """It is of no use until a probe says otherwise."""
        if self.trouble is None:
            _log.warning("%s; trying others, and this one again", error)
        self.trouble = error
        self._watch()

    async def aclose(self) -> None:
        """End the connection."""
        await end(*(task for task in (self._prober, self._checking) if task is not None))
        await self.transport.aclose()

    async def check(self) -> None:
        """Probe it, together with whoever wants to know at the same time. Raises what the probe raises."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check(), name=f"check {self.endpoint}")
            self._checking.add_done_callback(lambda check: check.cancelled() or check.exception())  # it has been seen
        await asyncio.shield(self._checking)

    async def _check(self) -> None:
        await self.transport.probe(timeout_seconds=CHECK_SECONDS)
        self.answered_at = asyncio.get_running_loop().time()

    def _watch(self) -> None:
        if self._prober is None or self._prober.done():
            self._prober = asyncio.create_task(self._probe(), name=f"probe {self.endpoint}")

    async def _probe(self) -> None:
        """Look until it is welcome again."""
        while not self.welcome:
            await asyncio.sleep(self._backoff.pause())
            try:
                await self.transport.probe(timeout_seconds=CHECK_SECONDS)
            except _BROKEN as error:
                self.trouble = error
                continue
            except KubeagentsError as error:
                _log.debug("%s answers a probe with %s", self.endpoint, error.code)  # so it can be reached
            if self.trouble is not None:
                _log.info("%s can be reached again", self.endpoint)
            self.trouble = None
            self._on_change()


class _Vigil:
    """Around a call: while its answer takes long, the server is probed, and the call is given up if that fails."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._block = asyncio.timeout(None)
        self._trouble: KubeagentsError | None = None
        self._probing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._block.__aenter__()
        self._timer = self._loop.call_later(CHECK_SECONDS, self._look)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._probing is not None:
            self._probing.cancel()
        try:
            await self._block.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._trouble is None:
                raise
            raise UnreachableError(f"{self._way.endpoint} does not answer any more: {self._trouble}") from None

    def _look(self) -> None:
        silent = self._loop.time() - self._way.answered_at
        if silent < CHECK_SECONDS:
            self._timer = self._loop.call_later(CHECK_SECONDS - silent, self._look)
        else:
            self._probing = self._loop.create_task(self._probe())

    async def _probe(self) -> None:
        try:
            await self._way.check()
        except KubeagentsError as error:
            self._trouble = error
            self._block.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(CHECK_SECONDS, self._look)


class Pool:
    """The ways, and the calls that take them."""

    def __init__(self, endpoints: Sequence[Endpoint], *, key: Key, trust: Trust) -> None:
        """Raises EndpointError if none can be used with what is installed."""
        self._key = key
        self._up = asyncio.Event()
        """Some way takes calls."""
        self._up.set()
        self._moving: dict[asyncio.Timeout, Way] = {}
        """What waits for the next item of a stream, and by which way."""
        self.ways = [
            Way(endpoint, transport, on_change=self._changed)
            for endpoint, transport in _transports(endpoints, key=key, trust=trust)
        ]

    async def call(
        self,
        name: str,
        params: Params,
        *,
        timeout_seconds: float,
        on_doubt: Callable[[], None] = lambda: None,
        only: Way | None = None,
    ) -> Any:
        """The answer, within `timeout_seconds`; by way of `only`, if that is given.

        Calls `on_doubt` if it is made again though an earlier one may have been carried out. Raises UnreachableError
        if no server has answered, otherwise the error of the one that did.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_seconds
        avoid: set[Way] = set()
        crowd = Backoff()
        while True:
            way = only or await self._way(ends_at, avoid)
            left = ends_at - loop.time()
            try:
                async with _Vigil(way):
                    answer = await way.transport.call(name, params, timeout_seconds=max(left, _SHORTEST_SECONDS))
            except _BROKEN as error:
                if left > _FAIR_SECONDS or loop.time() < ends_at:  # otherwise it had no time, which is not its fault
                    self._broke(way, error)
                if only is not None or loop.time() >= ends_at:
                    raise
                if not isinstance(error, UnreachableError) or error.sent:
                    on_doubt()
            except TemporaryError as error:
                if error.code == DRAINING and only is None:
                    self._broke(way, error)
                    continue
                if error.code == _TOO_MANY:
                    await asyncio.sleep(crowd.pause())  # it has not been begun
                    if loop.time() < ends_at:
                        continue
                if not isinstance(error, QueueUnavailableError):
                    raise
                # This CentralAgent does not get through to Redis. Perhaps another one does.
                avoid.add(way)
                if only is not None or all(other in avoid for other in self.ways if other.up):
                    raise
            except UnauthenticatedError:
                if not self._key.renewed():
                    raise
                await self._reset()
            else:
                way.worked()
                return answer

    async def stream(
        self, name: str, params: Callable[[], Params], *, timeout_seconds: float
    ) -> AsyncGenerator[Any, None]:
        """The items of a stream to its end, over as many connections as it takes.

        `params` is asked again whenever it goes on on another connection. Raises the error that a server answers with,
        UnreachableError if none can be reached for `timeout_seconds`.
        """
        loop = asyncio.get_running_loop()
        while True:
            way = await self._way(loop.time() + timeout_seconds, ())
            try:
                async with aclosing(way.transport.stream(name, params(), silence_seconds=SILENCE_SECONDS)) as items:
                    while True:
                        async with asyncio.timeout(None) as block:
                            with self._movable(block, way):
                                try:
                                    item = await anext(items)
                                except StopAsyncIteration:
                                    return
                        way.worked()
                        yield item
            except (*_BROKEN, QueueUnavailableError) as error:
                self._broke(way, error)
            except UnauthenticatedError:
                if not self._key.renewed():
                    raise
                await self._reset()
            except TemporaryError as error:
                if error.code != DRAINING:
                    raise
                self._broke(way, error)
            except TimeoutError:
                _log.info("a stream goes on by a better way than %s", way.endpoint)

    async def aclose(self) -> None:
        """End all connections."""
        await asyncio.gather(*(way.aclose() for way in self.ways))

    def _broke(self, way: Way, error: KubeagentsError) -> None:
        way.broke(error)
        if not any(way.up for way in self.ways):
            self._up.clear()

    def _changed(self) -> None:
        """A way takes calls again."""
        self._up.set()
        best = self.best()
        for block, way in self._moving.items():
            if best is not None and self.ways.index(best) < self.ways.index(way):
                block.reschedule(0)

    def best(self, avoid: Collection[Way] = ()) -> Way | None:
        """The way that a call takes now; one to avoid only if there are no others."""
        ways = [way for way in self.ways if way not in avoid] or self.ways
        return next((way for way in ways if way.welcome), next((way for way in ways if way.up), None))

    async def _way(self, ends_at: float | None, avoid: Collection[Way]) -> Way:
        """The one to take. Waits until there is one."""
        while (way := self.best(avoid)) is None:
            if all(isinstance(way.trouble, UnknownServerError) for way in self.ways):
                raise self._trouble()  # waiting will not help
            try:
                async with asyncio.timeout_at(ends_at):
                    await self._up.wait()
            except TimeoutError:
                raise self._trouble() from None
        return way

    def _trouble(self) -> KubeagentsError:
        troubles = [way.trouble for way in self.ways if way.trouble is not None]
        if len(troubles) == 1 or all(isinstance(trouble, UnknownServerError) for trouble in troubles):
            return troubles[0]
        sent = any(trouble.sent for trouble in troubles if isinstance(trouble, UnreachableError))
        return UnreachableError("no CentralAgent can be reached: " + "; ".join(map(str, troubles)), sent=sent)

    async def _reset(self) -> None:
        for way in self.ways:
            await way.transport.reset()

    @contextmanager
    def _movable(self, block: asyncio.Timeout, way: Way) -> Iterator[None]:
        """While the block waits on the way, it is cut short as soon as there is a better one."""
        self._moving[block] = way
        try:
            yield
        finally:
            del self._moving[block]


def _transports(endpoints: Sequence[Endpoint], *, key: Key, trust: Trust) -> Iterator[tuple[Endpoint, Transport]]:
    missing: list[str] = []
    for endpoint in endpoints:
        try:
            yield endpoint, _transport(endpoint, key=key, trust=trust)
        except ModuleNotFoundError as error:
            missing.append(f"{endpoint} needs the library {error.name}")
            _log.warning("%s is left out: %s is not installed", endpoint, error.name)
    if len(missing) == len(endpoints):
        raise EndpointError(
            f"no endpoint can be used: {'; '.join(missing) or 'none is given'}; "
            "install `kubeagents[client]`, or give the URL of another protocol"
        )


def _transport(endpoint: Endpoint, *, key: Key, trust: Trust) -> Transport:
    # Imported on use: none of the libraries must be there for the others to work.
    match endpoint.protocol:
        case "http":
            from agent_runtime.client.http import HttpTransport

            return HttpTransport(endpoint, key=key, trust=trust)
        case "websocket":
            from agent_runtime.client.websocket import WebSocketTransport

            return WebSocketTransport(endpoint, key=key, trust=trust)
        case "grpc":
            from agent_runtime.client.grpc import GrpcTransport

            return GrpcTransport(endpoint, key=key, trust=trust)
