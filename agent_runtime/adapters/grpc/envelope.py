# SPDX-License-Identifier: Apache-2.0
"""Around every call: its id, whose it is, its figures, its log line, its errors, and the last catch.

Messages are taken as bytes and parsed here, because grpc.aio answers what it cannot parse with UNKNOWN, as if the
server were to blame.
"""

import asyncio
import inspect
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from prometheus_client import CollectorRegistry, Counter, Histogram

from agent_runtime.adapters import headers
from agent_runtime.adapters.base import Core
from agent_runtime.adapters.grpc.encryption import client_certificate
from agent_runtime.adapters.grpc.errors import DETAILS_KEY, RefusedError, refusal, status
from agent_runtime.adapters.http import callers
from agent_runtime.security import Credentials, Guard, GuardedCore
from agent_runtime.telemetry import logs
from kubeagents_api.errors import KubeagentsError

_log = logging.getLogger(__name__)

_WORDS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")

Context = Any
"""A grpc.aio.ServicerContext: of bytes, as the envelope does the parsing."""
Message = Any
"""A message of protobuf, whose generated classes have no types that mypy knows."""
Handler = Any
"""A grpc.RpcMethodHandler, which is generic for mypy only."""
Body = Callable[["Call"], Awaitable[Any]]


class Call:
    """One call, as the methods of a service see it."""

    __slots__ = ("_credentials", "_guard", "context", "core")

    def __init__(
        self, core: Core, context: Context, *, guard: Guard | None = None, credentials: Credentials | None = None
    ) -> None:
        """With the guard that has admitted it, and what it was shown."""
        self.core = core
        """As the caller may use it."""
        self.context = context
        self._guard = guard
        self._credentials = credentials

    def queue(self, name: str) -> str:
        """The queue that is meant."""
        return name or self.core.queue_names[0]

    @property
    def author(self) -> str:
        """Who calls."""
        core = self.core
        return core.caller.name if isinstance(core, GuardedCore) else address(self.context.peer())

    @property
    def seconds_left(self) -> float | None:
        """Until its deadline; None if it has none."""
        left: float | None = self.context.time_remaining()
        return left

    async def admitted_again(self) -> Core:
        """The core for one more request in the same stream. Raises what Guard.admit raises."""
        if self._guard is None or self._credentials is None:
            return self.core
        return await self._guard.admit(self._credentials)


class Methods(grpc.GenericRpcHandler):
    """What can be called. Handlers are not registered one by one: the server would wait for each of them anew with
    every call."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add(self, name: str, handler: Handler) -> None:
        """Let a handler answer a method, `/package.Service/Method`."""
        self._handlers[name] = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler for a call; None if there is no such method."""
        return self._handlers.get(handler_call_details.method)


class Envelope:
    """Makes handlers for grpc of the methods of a service."""

    def __init__(self, *, core: Core, guard: Guard | None, registry: CollectorRegistry) -> None:
        """Without a guard, whoever reaches the port may do everything."""
        self._core = core
        self._guard = guard
        self._requests = Counter(
            "kubeagents_grpc_requests_total", "Calls answered.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "kubeagents_grpc_request_seconds",
            "Time from a call to the end of its answer; streams and waits are as long as they last.",
            ["method"],
            registry=registry,
        )
        self._figures: dict[tuple[str, grpc.StatusCode], tuple[Counter, Histogram]] = {}

    def serve(self, methods: Methods, service: ServiceDescriptor, servant: object) -> None:
        """Let `servant` answer the calls of a service. Its methods have the names in snake_case."""
        for method in service.methods:
            function = getattr(servant, _WORDS.sub("_", method.name).lower())
            name = f"/{service.full_name}/{method.name}"
            parse = _parser(GetMessageClass(method.input_type).FromString)
            shape = (method.client_streaming, method.server_streaming)
            methods.add(name, _SHAPES[shape](self, name, function, parse, GetMessageClass(method.output_type)))

    def adopter(self, methods: Methods, *, public: bool = False) -> "Adopter":
        """What generated code takes for a server: `add_XServicer_to_server(servicer, envelope.adopter(methods))`.

        `public` ones need no key. In the others, the caller's core is
        `agent_runtime.adapters.http.callers.current_core()`, as on HTTP.
        """
        return Adopter(self, methods, public=public)

    async def run(self, name: str, context: Context, body: Body, *, public: bool = False) -> Any:
        """Handle one call: what `body` returns for it."""
        started = perf_counter()
        metadata: tuple[tuple[str, str | bytes], ...] = context.invocation_metadata()
        request_id = _request_id(metadata)
        logs.bind({"request": request_id})  # every call is a task of its own
        trailing = ((headers.REQUEST_ID_HEADER, request_id),)
        context.set_trailing_metadata(trailing)
        code = grpc.StatusCode.OK
        try:
            if self._guard is None or public:
                return await body(Call(self._core, context))
            shown = _credentials(metadata, context, request_id)
            core = await self._guard.admit(shown)
            return await body(Call(core, context, guard=self._guard, credentials=shown))
        except asyncio.CancelledError:
            gone = context.time_remaining() == 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if gone else grpc.StatusCode.CANCELLED
            raise
        except KubeagentsError as error:
            code, message, details = _refusal(error, name, request_id)
            await context.abort(code, message, (*trailing, (DETAILS_KEY, details)))
        except grpc.aio.BaseError:
            code = context.code() or grpc.StatusCode.CANCELLED  # aborted, or the client has gone
            raise
        except Exception:
            _log.exception("%s failed", name)
            code, message, details = _internal(request_id)
            await context.abort(code, message, (*trailing, (DETAILS_KEY, details)))
        finally:
            self._record(name, code, perf_counter() - started)

    def _record(self, name: str, code: grpc.StatusCode, seconds: float) -> None:
        figures = self._figures.get((name, code))
        if figures is None:  # looking them up is what is slow about them
            figures = self._requests.labels(name, code.name), self._seconds.labels(name)
            self._figures[name, code] = figures
        requests, duration = figures
        requests.inc()
        duration.observe(seconds)
        if code is not grpc.StatusCode.OK:
            _log.info("%s -> %s in %.1f ms", name, code.name, seconds * 1000)


class Adopter:
    """Makes handlers of services that others have written, and takes the place of a server for them."""

    def __init__(self, envelope: Envelope, methods: Methods, *, public: bool) -> None:
        self._envelope = envelope
        self._methods = methods
        self._public = public

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Nothing: they are the same ones."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Take the handlers of a service."""
        for method, handler in handlers.items():
            name = f"/{service}/{method}"
            self._methods.add(name, self._adopted(name, handler))

    def _adopted(self, name: str, handler: Any) -> Handler:
        function = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        parse = _parser(handler.request_deserializer)
        writes = inspect.isasyncgenfunction(function)

        async def handle(asked: Any, context: Context) -> Any:
            async def body(call: Call) -> Any:
                callers.bind(call.core)
                request = _parsed(asked, parse) if handler.request_streaming else parse(asked)
                if writes:
                    return await _write_all(function(request, context), context)
                return await function(request, context)

            return await self._envelope.run(name, context, body, public=self._public)

        shape = _MAKERS[handler.request_streaming, handler.response_streaming]
        return shape(handle, response_serializer=handler.response_serializer)


Function = Callable[..., Any]
Parse = Callable[[bytes], Message]


def _one_to_one(envelope: Envelope, name: str, function: Function, parse: Parse, answer: Any) -> Handler:
    async def handle(raw: bytes, context: Context) -> Message:
        async def body(call: Call) -> Message:
            return await function(call, parse(raw))

        return await envelope.run(name, context, body)

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=answer.SerializeToString)


def _many_to_one(envelope: Envelope, name: str, function: Function, parse: Parse, answer: Any) -> Handler:
    async def handle(raws: AsyncIterator[bytes], context: Context) -> Message:
        async def body(call: Call) -> Message:
            async with aclosing(_parsed(raws, parse)) as requests:
                return await function(call, requests)

        return await envelope.run(name, context, body)

    return grpc.stream_unary_rpc_method_handler(handle, response_serializer=answer.SerializeToString)


def _one_to_many(envelope: Envelope, name: str, function: Function, parse: Parse, answer: Any) -> Handler:
    async def handle(raw: bytes, context: Context) -> None:
        async def body(call: Call) -> None:
            await _write_all(function(call, parse(raw)), context)

        await envelope.run(name, context, body)

    return grpc.unary_stream_rpc_method_handler(handle, response_serializer=answer.SerializeToString)


def _many_to_many(envelope: Envelope, name: str, function: Function, parse: Parse, answer: Any) -> Handler:
    async def handle(raws: AsyncIterator[bytes], context: Context) -> None:
        async def body(call: Call) -> None:
            async with aclosing(_parsed(raws, parse)) as requests:
                await _write_all(function(call, requests), context)

        await envelope.run(name, context, body)

    return grpc.stream_stream_rpc_method_handler(handle, response_serializer=answer.SerializeToString)


_SHAPES: Final[Mapping[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): _one_to_one,
    (True, False): _many_to_one,
    (False, True): _one_to_many,
    (True, True): _many_to_many,
}
"""By whether the client and the server stream."""
_MAKERS: Final[Mapping[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _parser(parse: Parse) -> Parse:
    def parsed(raw: bytes) -> Message:
        try:
            return parse(raw)
        except DecodeError as error:
            raise RefusedError(f"the message is not what this method takes: {error}", code="INVALID_MESSAGE") from error

    return parsed


async def _parsed(raws: AsyncIterator[bytes], parse: Parse) -> AsyncGenerator[Message, None]:
    async for raw in raws:
        yield parse(raw)


async def _write_all(items: AsyncGenerator[Message, None], context: Context) -> None:
    # Not left to grpc: it would not close the items when the client goes while one is being written.
    async with aclosing(items):
        async for item in items:
            await context.write(item)


def _refusal(error: KubeagentsError, name: str, request_id: str) -> tuple[grpc.StatusCode, str, bytes]:
    try:
        return refusal(error, request_id=request_id)
    except KubeagentsError:
        _log.exception("%s failed", name)
        return _internal(request_id)


def _internal(request_id: str) -> tuple[grpc.StatusCode, str, bytes]:
    message = f"something went wrong in the server; its log has more under request {request_id}"
    return status(grpc.StatusCode.INTERNAL, message, reason="INTERNAL", request_id=request_id)


def _texts(metadata: tuple[tuple[str, str | bytes], ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in metadata if isinstance(value, str)]


def _request_id(metadata: tuple[tuple[str, str | bytes], ...]) -> str:
    return headers.request_id(_texts(metadata)) or os.urandom(16).hex()


def _credentials(metadata: tuple[tuple[str, str | bytes], ...], context: Context, request_id: str) -> Credentials:
    return Credentials(
        protocol="grpc",
        address=address(context.peer()),
        key=headers.api_key(_texts(metadata)),
        certificate=client_certificate(context),
        request=request_id,
    )


def address(peer: str) -> str:
    """`ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711` without the port."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
