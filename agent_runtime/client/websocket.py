# SPDX-License-Identifier: Apache-2.0
"""WebSocket: all calls and streams share one connection. Frames are JSON texts that carry the id of their call.

A stream is sent no further than it is read: the server may send as many items as it has credit for, and gets new credit
as items are taken out.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Final

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from agent_runtime.cancellation import end
from agent_runtime.client.endpoints import Endpoint, Key, Trust
from agent_runtime.client.faults import UnknownServerError, UnreachableError, from_body, unreachable
from agent_runtime.client.transport import Params, given
from kubeagents_api.errors import KubeagentsError, PayloadTooLargeError

_log = logging.getLogger(__name__)

_PATH: Final = "/v1/ws"
_CONNECT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0
_PING_SECONDS: Final = 10.0
_TOO_BIG: Final = 1009
_CREDIT: Final = 256
"""Items of a stream that may be on their way."""
_MOST_CALLS: Final = 900
"""Calls and streams on one connection; our servers take 1,000. With more there is another connection."""
_MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest frame that is taken: a wait for many results brings them in one."""


class _Answers:
    """What has come for one stream and has not been taken out."""

    def __init__(self) -> None:
        self._frames: deque[dict[str, Any]] = deque()
        self._some = asyncio.Event()
        self._broken: KubeagentsError | None = None

    def put(self, frame: dict[str, Any]) -> None:
        self._frames.append(frame)
        self._some.set()

    def fail(self, error: KubeagentsError) -> None:
        self._broken = error
        self._some.set()

    async def take(self) -> dict[str, Any]:
        """The next frame. What came before the connection broke still counts."""
        while not self._frames:
            if self._broken is not None:
                raise self._broken
            self._some.clear()
            await self._some.wait()
        return self._frames.popleft()


class _Link:
    """One connection, from its handshake to its end."""

    def __init__(self, socket: ClientConnection, endpoint: Endpoint) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._ids = itertools.count(1)
        self._calls: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._sizes: dict[str, int] = {}
        """Of their frames."""
        self._streams: dict[str, _Answers] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self.trouble: KubeagentsError | None = None
        """Why it is of no use any more."""
        self.draining = False
        self._reader = asyncio.create_task(self._read(), name=f"websocket {endpoint}")

    @property
    def usable(self) -> bool:
        """Whether another call may take it."""
        return self.trouble is None and not self.draining and len(self._calls) + len(self._streams) < _MOST_CALLS

    async def call(self, name: str, params: Params) -> dict[str, Any]:
        """The frame that answers a call."""
        if self.trouble is not None:
            raise self.trouble
        number = str(next(self._ids))
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            frame = orjson.dumps({"id": number, "call": name, "params": given(params)})
            self._sizes[number] = len(frame)
            await self._send_text(frame)
            return await answer
        except asyncio.CancelledError:
            self._stop(number)
            raise
        finally:
            self._calls.pop(number, None)
            self._sizes.pop(number, None)

    async def stream(self, name: str, params: Params) -> AsyncGenerator[dict[str, Any], None]:
        """The frames that answer a stream."""
        if self.trouble is not None:
            raise self.trouble
        number = str(next(self._ids))
        answers = self._streams[number] = _Answers()
        taken, ended = 0, False
        try:
            await self._send({"id": number, "call": name, "params": given(params), "credit": _CREDIT})
            while not ended:
                frame = await answers.take()
                ended = "item" not in frame
                yield frame
                taken += 1
                if taken >= _CREDIT // 2:
                    await self._send({"id": number, "more": taken})
                    taken = 0
        finally:
            self._streams.pop(number, None)
            if not ended:
                self._stop(number)

    async def aclose(self) -> None:
        """End it; what is under way fails."""
        await self._socket.close()
        await end(self._reader, *self._stopping)

    def _stop(self, number: str) -> None:
        """Tell the server that nobody waits any more. Whether it hears that does not matter."""
        if self.trouble is None:
            task = asyncio.create_task(self._send_if_possible({"id": number, "stop": True}))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def _send_if_possible(self, frame: dict[str, Any]) -> None:
        try:
            await self._send(frame)
        except UnreachableError:
            _log.debug("%s is gone already", self._endpoint)

    async def _send(self, frame: dict[str, Any]) -> None:
        await self._send_text(orjson.dumps(frame))

    async def _send_text(self, frame: bytes) -> None:
        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed as error:
            if error.rcvd is None or error.rcvd.code != _TOO_BIG:  # otherwise `_read` tells whose fault it is
                raise self._broken(error) from error

    def _broken(self, error: ConnectionClosed) -> UnreachableError:
        reason = f"closed with {error.rcvd.code} {error.rcvd.reason}".rstrip() if error.rcvd else "lost"
        return UnreachableError(f"the connection to {self._endpoint} was {reason}")

    async def _read(self) -> None:
        trouble: KubeagentsError = UnreachableError(f"the connection to {self._endpoint} was ended by us")
        try:
            async for text in self._socket:
                self._received(orjson.loads(text))
            trouble = UnreachableError(f"the connection to {self._endpoint} was closed by the server")
        except ConnectionClosed as error:
            trouble = self._broken(error)
            if error.rcvd is not None and error.rcvd.code == _TOO_BIG:
                self._blame_largest()
        except (ValueError, KeyError, AttributeError) as error:
            trouble = UnknownServerError(f"{self._endpoint} sent what makes no sense: {error}")
            await self._socket.close(1002)
        finally:
            self.trouble = trouble
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(trouble)
            for answers in self._streams.values():
                answers.fail(trouble)

    def _blame_largest(self) -> None:
        """The server does not say which frame was too large for it, so it must be the largest one."""
        number = max(self._sizes, key=lambda one: self._sizes[one], default=None)
        if number is not None and (answer := self._calls.get(number)) is not None and not answer.done():
            size = self._sizes[number]
            answer.set_exception(
                PayloadTooLargeError(
                    f"{self._endpoint} takes no message of {size} bytes: split it, or send a reference to the data"
                )
            )

    def _received(self, frame: dict[str, Any]) -> None:
        number = frame.get("id")
        if number is None:
            if frame.get("notice") == "draining":
                self.draining = True
            elif "error" in frame:
                _log.warning("%s did not understand a frame: %s", self._endpoint, frame["error"])
        elif (answer := self._calls.get(number)) is not None:
            if not answer.done():
                answer.set_result(frame)
        elif (answers := self._streams.get(number)) is not None:
            answers.put(frame)


class WebSocketTransport:
    """A Transport."""

    def __init__(self, endpoint: Endpoint, *, key: Key, trust: Trust) -> None:
        self._endpoint = endpoint
        self._key = key
        self._context = trust.context() if endpoint.secure else None
        self._links: list[_Link] = []
        """The newest one last."""
        self._connecting: asyncio.Task[_Link] | None = None

    @property
    def draining(self) -> bool:
        """See Transport."""
        alive = [link for link in self._links if link.trouble is None]
        return bool(alive) and alive[-1].draining

    async def call(self, name: str, params: Params, *, timeout_seconds: float) -> Any:
        """See Transport."""
        try:
            async with asyncio.timeout(timeout_seconds):
                frame = await (await self._connected()).call(name, params)
        except TimeoutError as error:
            raise UnreachableError(f"{self._endpoint} does not answer") from error
        if "error" in frame:
            raise self._refusal(frame["error"])
        return frame.get("result")

    async def stream(self, name: str, params: Params, *, silence_seconds: float) -> AsyncGenerator[Any, None]:
        """See Transport. The connection itself is watched by pings, so a silence means nothing."""
        del silence_seconds
        frames = (await self._connected()).stream(name, params)
        try:
            async for frame in frames:
                if "error" in frame:
                    raise self._refusal(frame["error"])
                if "end" in frame:
                    return
                yield frame["item"]
        finally:
            await frames.aclose()

    async def probe(self, *, timeout_seconds: float) -> None:
        """See Transport. Who drains is left for a new connection: perhaps another process answers at the address."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._connected()
        except TimeoutError as error:
            raise UnreachableError(f"cannot reach {self._endpoint}: no answer in time", sent=False) from error

    async def reset(self) -> None:
        """See Transport. What is under way on the old connections still ends there."""
        for link in self._links:
            link.draining = True

    async def aclose(self) -> None:
        """See Transport."""
        if self._connecting is not None:
            await end(self._connecting)
        links, self._links = self._links, []
        await asyncio.gather(*(link.aclose() for link in links))

    async def _connected(self) -> _Link:
        """A connection with room for another call. Who needs one at the same time waits for the same one."""
        for link in reversed(self._links):
            if link.usable:
                return link
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._forget_attempt)
        return await asyncio.shield(self._connecting)

    def _forget_attempt(self, attempt: "asyncio.Task[_Link]") -> None:
        self._connecting = None
        if not attempt.cancelled():
            attempt.exception()  # whoever waits has it; if nobody does any more, nobody needs it

    async def _connect(self) -> _Link:
        scheme = "wss" if self._endpoint.secure else "ws"
        path = self._endpoint.path
        uri = f"{scheme}://{self._endpoint.authority}{path if path.endswith(_PATH) else path + _PATH}"
        options: dict[str, Any] = {} if self._context is None else {"ssl": self._context}
        try:
            socket = await connect(
                uri,
                additional_headers=self._key.headers(),
                compression=None,
                open_timeout=_CONNECT_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                max_size=_MOST_BYTES,
                **options,
            )
        except InvalidStatus as error:
            response = error.response
            refusal = from_body(bytes(response.body or b""))
            if refusal is not None and response.status_code != 404:
                raise refusal from error
            raise UnknownServerError(
                f"{self._endpoint} does not offer WebSocket: {uri} answered {response.status_code}"
            ) from error
        except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
            what = str(error) or type(error).__name__
            raise unreachable(self._endpoint, what, sent=False) from error
        link = _Link(socket, self._endpoint)
        self._links = [old for old in self._links if old.trouble is None] + [link]
        return link

    def _refusal(self, body: Any) -> KubeagentsError:
        return from_body(body) or UnknownServerError(f"{self._endpoint} sent an error without a code: {body}")
