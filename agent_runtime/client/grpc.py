# SPDX-License-Identifier: Apache-2.0
"""gRPC: all calls and streams share one channel, which keeps its connection itself.

The messages of `kubeagents.v1` say the same as the JSON of the other wires, in other types; `grpc_messages` translates.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from agent_runtime.client import grpc_messages as messages
from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import UnknownServerError, UnreachableError, rebuilt, unreachable
from agent_runtime.client.transport import Params, given
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.errors import KubeagentsError

_log = logging.getLogger(__name__)

_DETAILS: Final = "grpc-status-details-bin"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
"""A HealthCheckResponse that says so."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # When to connect again is decided by the pool.
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # clients with other keys and certificates have other connections
)
_SIGNS_OF_HTTP_1: Final = ("Failed parsing HTTP/2", "http1.x")
_TROUBLES: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN}
)
"""What a call ends with that no CentralAgent has answered."""


@dataclass(frozen=True, slots=True)
class _Method:
    path: str
    request: Callable[[Params], Any]
    response: type[Any]
    answer: Callable[[Any], Any] = messages.decoded


_METHODS: Final[Mapping[str, _Method]] = {
    "submit": _Method(
        "Tasks/Submit", lambda params: pb.SubmitRequest(task=messages.new_task(params["task"])), pb.SubmitResponse
    ),
    "submitBatch": _Method("Tasks/SubmitBatch", messages.batch, pb.SubmitBatchResponse),
    "task": _Method("Tasks/GetTask", lambda params: pb.GetTaskRequest(**params), pb.Task),
    "results": _Method("Tasks/Results", messages.results, pb.ResultsResponse),
    "cancel": _Method("Tasks/Cancel", lambda params: pb.CancelRequest(**params), pb.CancelResponse),
    "stats": _Method("Queues/Stats", lambda params: pb.StatsRequest(**params), pb.QueueStats),
    "queues": _Method(
        "Queues/List", lambda _: pb.ListRequest(), pb.ListResponse, lambda answer: messages.decoded(answer)["queues"]
    ),
    "agents": _Method(
        "Queues/Agents",
        lambda params: pb.AgentsRequest(**params),
        pb.AgentsResponse,
        lambda answer: messages.decoded(answer)["instances"],
    ),
    "work.register": _Method("Work/Register", messages.of_worker(pb.RegisterRequest), pb.Terms),
    "work.beat": _Method("Work/Heartbeat", messages.heartbeat, pb.Orders),
    "work.claim": _Method("Work/Claim", messages.claim, pb.ClaimResponse, messages.claimed),
    "work.extend": _Method("Work/Extend", messages.of_claims(pb.ExtendRequest), pb.ExtendResponse),
    "work.settle": _Method("Work/Settle", messages.settle, pb.SettleResponse),
    "work.release": _Method("Work/Release", messages.of_claims(pb.ReleaseRequest), pb.ReleaseResponse),
    "work.emit": _Method("Work/Emit", messages.emit, pb.EmitResponse),
    "work.parents": _Method("Work/Parents", messages.parents, pb.ParentsResponse),
    "work.leave": _Method("Work/Leave", messages.of_worker(pb.LeaveRequest), pb.LeaveResponse),
}
_STREAMS: Final[Mapping[str, _Method]] = {
    "watch": _Method("Tasks/Watch", lambda params: pb.WatchRequest(**params), pb.WatchResponse),
    "events": _Method("Queues/Events", lambda params: pb.EventsRequest(**params), pb.TaskEvent),
    "work.revoked": _Method("Work/Revoked", messages.of_worker(pb.RevokedRequest), pb.RevokedResponse),
}


class GrpcTransport:
    """A Transport."""

    def __init__(self, endpoint: Endpoint, *, key: Key, trust: Trust) -> None:
        self._endpoint = endpoint
        self._key = key
        self._credentials = _credentials(trust) if endpoint.secure else None
        self._channel: grpc.aio.Channel | None = None
        self._multicallables: dict[str, Any] = {}
        self.draining = False

    async def call(self, name: str, params: Params, *, timeout_seconds: float) -> Any:
        """See Transport."""
        method = _METHODS[name]
        request = method.request(given(params))
        try:
            response = await self._callable(method, request)(
                request, timeout=timeout_seconds, metadata=self._metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from error
        return method.answer(response)

    async def stream(self, name: str, params: Params, *, silence_seconds: float) -> AsyncGenerator[Any, None]:
        """See Transport. The connection itself is watched by pings, so a silence means nothing."""
        del silence_seconds
        method = _STREAMS[name]
        request = method.request(given(params))
        multicallable = self._once(
            method.path,
            lambda channel: channel.unary_stream(
                _full(method.path),
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.response.FromString,
            ),
        )
        call = multicallable(request, metadata=self._metadata())
        try:
            async for response in call:
                if name == "watch":
                    if response.WhichOneof("what") == "end":
                        return
                    yield messages.decoded(response.item)
                else:
                    yield messages.decoded(response)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from error
        finally:
            call.cancel()
        raise UnreachableError(f"{self._endpoint} has cut a stream off")

    async def probe(self, *, timeout_seconds: float) -> None:
        """See Transport."""
        check = self._once(_HEALTH, lambda channel: channel.unary_unary(_HEALTH))
        try:
            answer: bytes = await check(b"", timeout=timeout_seconds, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            if error.code() in _TROUBLES:
                raise self._refusal(error) from error
            self.draining = False  # it is there, though without this service
        else:
            self.draining = answer != _SERVING

    async def reset(self) -> None:
        """See Transport. The key is shown with each call, so there is nothing to do."""

    async def aclose(self) -> None:
        """See Transport."""
        channel, self._channel = self._channel, None
        self._multicallables = {}
        if channel is not None:
            await channel.close()

    def _callable(self, method: _Method, request: Any) -> Any:
        if isinstance(request, AsyncIterator):
            return self._once(
                method.path,
                lambda channel: channel.stream_unary(
                    _full(method.path),
                    request_serializer=pb.SubmitBatchRequest.SerializeToString,
                    response_deserializer=method.response.FromString,
                ),
            )
        return self._once(
            method.path,
            lambda channel: channel.unary_unary(
                _full(method.path),
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.response.FromString,
            ),
        )

    def _once(self, name: str, make: Callable[[grpc.aio.Channel], Any]) -> Any:
        if self._channel is None:
            target = self._endpoint.authority
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(target, self._credentials, options=_OPTIONS)
        if name not in self._multicallables:
            self._multicallables[name] = make(self._channel)
        return self._multicallables[name]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._key.headers().items())

    def _refusal(self, error: grpc.aio.AioRpcError) -> KubeagentsError:
        code, text = error.code(), error.details() or ""
        for name, value in error.trailing_metadata() or ():
            if name == _DETAILS and isinstance(value, bytes) and (told := _told(value, text)) is not None:
                self.draining = told.code == "DRAINING"
                return told
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnreachableError(f"{self._endpoint} does not answer")
        if any(sign in text for sign in _SIGNS_OF_HTTP_1):
            return UnknownServerError(f"{self._endpoint} does not speak gRPC: {text}")
        if code in _TROUBLES:
            sent = not text.startswith("failed to connect")
            return unreachable(self._endpoint, text or code.name, sent=sent)
        return UnknownServerError(f"{self._endpoint} does not look like a CentralAgent: {code.name}: {text}")


def _told(details: bytes, message: str) -> KubeagentsError | None:
    """The error of a CentralAgent, from a google.rpc.Status; None if there is none in it."""
    try:
        status = Status.FromString(details)
    except DecodeError:
        return None
    info, delay = None, None
    for detail in status.details:
        if detail.Is(ErrorInfo.DESCRIPTOR):
            info = ErrorInfo()
            detail.Unpack(info)
        elif detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            detail.Unpack(retry)
            delay = retry.retry_delay.ToTimedelta().total_seconds()
    if info is None:
        return None
    return rebuilt(info.reason, message, details=dict(info.metadata), retry_after=delay)


def _full(path: str) -> str:
    return f"/kubeagents.v1.{path}"


def _credentials(trust: Trust) -> grpc.ChannelCredentials:
    files = (trust.ca_file, trust.cert_key_file or trust.cert_file, trust.cert_file)
    try:
        ca, key, certificate = (file.read_bytes() if file is not None else None for file in files)
    except OSError as error:
        raise EndpointError(f"cannot use the certificates: {error}") from error
    return grpc.ssl_channel_credentials(ca, key, certificate)
