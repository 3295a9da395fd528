# SPDX-License-Identifier: Apache-2.0
"""The adapter for ZeroMQ: one ROUTER socket and its peers."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import orjson

from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.calls import errors
from agent_runtime.adapters.calls.errors import InvalidCallError, TooManyCallsError
from agent_runtime.adapters.calls.figures import Figures
from agent_runtime.adapters.zeromq.peer import Peer
from agent_runtime.cancellation import end
from agent_runtime.security import Credentials
from kubeagents_api.errors import KubeagentsError, RuntimeConfigError, UnauthenticatedError

try:
    import zmq
    import zmq.asyncio
except ModuleNotFoundError as error:
    raise RuntimeConfigError(
        "the endpoint zeromq needs pyzmq, which is not installed: install kubeagents[zeromq]"
    ) from error

_log = logging.getLogger(__name__)

MOST_PEERS: Final = 10_000
_MESSAGE_BYTES: Final = 32 * 1024 * 1024
_HEARTBEAT_SECONDS: Final = 5
_SILENT_SECONDS: Final = 15
"""ZeroMQ closes connections that have not answered heartbeats for so long."""
_LOOK_SECONDS: Final = 10.0
"""Between two looks whether peers are still there."""
_UNSENT_MESSAGES: Final = 64
"""To one peer. More wait in its calls."""
_PAUSE_SECONDS: Final = 0.02
"""Before another try to send to a peer that does not take its messages."""
_LINGER_SECONDS: Final = 1


class ZeroMqAdapter:
    """Listens on a port of its own."""

    def __init__(self, surroundings: Surroundings) -> None:
        if surroundings.tls is not None:
            raise RuntimeConfigError("the endpoint zeromq encrypts nothing: leave it out where TLS is on")
        self._core = surroundings.core
        self._guard = surroundings.guard
        self._host, self._port = surroundings.host, surroundings.port
        self._figures = Figures("zeromq", registry=surroundings.registry)
        self._limit = max(_MESSAGE_BYTES, 2 * surroundings.core.max_payload_bytes)
        self._peers: dict[bytes, Peer] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._plain: zmq.Socket[bytes]
        self._socket: zmq.asyncio.Socket
        self._running: list[asyncio.Task[None]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._host, self._port

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if the address cannot be had."""
        self._context = zmq.Context()
        self._plain = self._context.socket(zmq.ROUTER)
        options = {
            zmq.ROUTER_MANDATORY: 1,  # a message to a peer that has gone is an error
            zmq.MAXMSGSIZE: self._limit,
            zmq.SNDHWM: _UNSENT_MESSAGES,
            zmq.HEARTBEAT_IVL: _HEARTBEAT_SECONDS * 1000,
            zmq.HEARTBEAT_TIMEOUT: _SILENT_SECONDS * 1000,
            zmq.HEARTBEAT_TTL: _SILENT_SECONDS * 1000,
            zmq.IPV6: int(":" in self._host),
            zmq.LINGER: _LINGER_SECONDS * 1000,
        }
        for option, value in options.items():
            self._plain.setsockopt(option, value)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self._plain.bind(f"tcp://{host}:{self._port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            self._context = None
            raise RuntimeConfigError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}; free the port or configure another"
            ) from error
        self._port = int(self._plain.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._socket = zmq.asyncio.Socket.from_socket(self._plain)
        self._running = [
            asyncio.create_task(run(), name=f"zeromq-{run.__name__}")
            for run in (self._receive, self._look_after, self._announce)
        ]

    async def stop(self, *, grace_seconds: float) -> None:
        """Let running calls end within the grace, then forget all peers."""
        if self._context is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._running[-1]
                await asyncio.gather(*(peer.session.finish() for peer in self._peers.values()))
        await end(*self._running, *self._background)
        await asyncio.gather(*(self._forget(peer) for peer in list(self._peers.values())))
        self._socket.close()
        self._plain.close()
        await asyncio.to_thread(self._context.term)

    async def _receive(self) -> None:
        while True:
            routing_id, *parts = await self._socket.recv_multipart(copy=False)
            address = str(parts[0].get("Peer-Address")) if parts else None
            peer_id = routing_id.bytes
            try:
                # One that a client chose could be that of somebody who has just gone. Ours begin with a zero.
                if not peer_id.startswith(b"\0"):
                    raise InvalidCallError("do not set a routing id: the server gives you one", code="ROUTING_ID_SET")
                if len(parts) != 1:
                    raise InvalidCallError("a message must have one part: connect with a DEALER socket")
                await self._take(peer_id, parts[0].bytes, address)
            except KubeagentsError as error:
                self._figures.count("", error.code)
                self._send_at_once(peer_id, f'{{"id":null,"error":{errors.body(error)}}}')

    async def _take(self, peer_id: bytes, frame: bytes, address: str | None) -> None:
        peer = self._peers.get(peer_id)
        if peer is not None:
            try:
                peer.take(frame)
            except TooManyCallsError:
                self._spawn(self._forget(peer))
                raise
            return
        hello = _hello(frame)
        if hello is None and self._guard is not None:
            raise UnauthenticatedError('say hello first: {"hello": {"key": "…"}}')
        if len(self._peers) + len(self._background) >= MOST_PEERS:
            raise TooManyCallsError(f"{MOST_PEERS} peers are connected")
        key = hello.get("key") if hello is not None else None
        credentials = Credentials(protocol="zeromq", key=key, address=address)
        # In a task of its own: who asks Redis about a key must not hold up the others.
        self._spawn(self._greet(peer_id, credentials, None if hello is not None else frame))

    async def _greet(self, peer_id: bytes, credentials: Credentials, first: bytes | None) -> None:
        """Make a session for somebody new."""
        caller = None
        try:
            if self._guard is not None:
                caller = (await self._guard.admit(credentials)).caller
        except KubeagentsError as error:
            return self._send_at_once(peer_id, f'{{"id":null,"error":{errors.body(error)}}}')
        if (known := self._peers.get(peer_id)) is not None:  # it has said hello twice
            await self._forget(known)
        peer = Peer(
            peer_id, core=self._core, guard=self._guard, caller=caller, credentials=credentials,
            figures=self._figures, send=self._send, forget=self._forget,
        )  # fmt: skip
        self._peers[peer_id] = peer
        self._send_at_once(peer_id, '{"notice":"hello"}')
        if self._core.draining:
            self._send_at_once(peer_id, '{"notice":"draining"}')
        if first is not None:
            peer.take(first)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it without holding up the other peers."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _announce(self) -> None:
        await self._core.drained()
        for peer_id in list(self._peers):
            self._send_at_once(peer_id, '{"notice":"draining"}')

    async def _look_after(self) -> None:
        """Forget peers that have gone."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for peer in list(self._peers.values()):
                if peer.silent_seconds >= _LOOK_SECONDS:
                    try:
                        await self._send(peer.id, '{"notice":"ping"}', wait=False)
                    except OSError:
                        await self._forget(peer)

    async def _forget(self, peer: Peer) -> None:
        if self._peers.get(peer.id) is peer:
            del self._peers[peer.id]
        await peer.close()

    def _send_at_once(self, peer_id: bytes, frame: str) -> None:
        with contextlib.suppress(zmq.ZMQError):  # it has gone, or takes nothing
            self._put(peer_id, frame)

    async def _send(self, peer_id: bytes, frame: str, *, wait: bool = True) -> None:
        """Raises OSError if the peer has gone."""
        while True:
            try:
                return self._put(peer_id, frame)
            except zmq.Again:
                if not wait:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
            except zmq.ZMQError as error:
                raise BrokenPipeError(error.strerror) from error

    def _put(self, peer_id: bytes, frame: str) -> None:
        # By the plain socket: the other one would let all peers wait for the slowest. Whether something has come
        # meanwhile, which only the other one can hear of, is asked for.
        self._plain.send_multipart((peer_id, frame.encode()), zmq.NOBLOCK)
        self._socket.get(zmq.EVENTS)


def _hello(frame: bytes) -> Mapping[str, Any] | None:
    """What a frame says in it; None for one that is no hello. Raises InvalidCallError for one that is wrong."""
    try:
        fields = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or "hello" not in fields:
        return None
    said = fields["hello"]
    if fields.keys() != {"hello"} or not isinstance(said, dict) or said.keys() - {"key"}:
        raise InvalidCallError('a hello has at most a key: {"hello": {"key": "…"}}')
    if not isinstance(said.get("key", ""), str):
        raise InvalidCallError("a key is a text")
    return said
