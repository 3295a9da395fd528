# SPDX-License-Identifier: Apache-2.0
"""A2A in each of its bindings, by the client of its SDK."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import grpc
import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import Client as SdkClient
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
)
from a2a.utils.errors import A2AError
from google.protobuf import json_format, struct_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from kubeagents_api.endpoints import Endpoint
from tests.conformance.protocols.driver import BrokenError, Client, Driver, Errand, Outcome, RefusedError, Said
from tests.conformance.protocols.drivers.overheard import Overheard, code_in
from tests.conformance.protocols.features import Feature
from tests.support.eventually import eventually_async

OURS = "kubeagents.dev/"
EVERYBODY = "@main"
"""Address of all Agents of the queue: each message says which one it is for."""
_OFFERS: Mapping[Feature, str] = {
    Feature.ROUND_TRIP: "`SendMessage`; the result is the artifact `result`",
    Feature.STREAM: "`SendStreamingMessage`: status updates, and artifacts `partial-<attempt>`",
    Feature.CANCEL: "`CancelTask`",
    Feature.DEADLINE: "metadata `kubeagents.dev/deadline`",
    Feature.PRIORITY: "metadata `kubeagents.dev/priority`",
    Feature.IDEMPOTENCY: "the `messageId`",
    Feature.LARGE: "`PAYLOAD_TOO_LARGE`",
    Feature.MALFORMED: "an error of the binding, with a `code` or `reason`",
    Feature.UNAUTHENTICATED: "`UNAUTHENTICATED`; `Authorization: Bearer` or `x-api-key`",
    Feature.FORBIDDEN: "`FORBIDDEN`",
    Feature.DRAIN: "the task as it is",
    Feature.RECONNECT: "`SubscribeToTask` says all again; offsets are in the metadata",
    Feature.REPLICAS: "any replica answers",
}
_LACKS: Mapping[Feature, str] = {Feature.BATCH: "a message is one task"}


class A2aDriver(Driver):
    """A binding that rides on HTTP."""

    endpoint = "a2a"
    client = "the A2A SDK"
    offers = _OFFERS
    lacks = _LACKS

    def __init__(self, name: str, binding: str) -> None:
        self.name = name  # type: ignore[misc] # one class for both bindings
        self.title = f"A2A, {binding}"  # type: ignore[misc]
        self._binding = binding

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[Client]:
        """A client that has read the card."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        overheard = Overheard()
        async with httpx.AsyncClient(
            headers=headers, trust_env=False, timeout=90, event_hooks={"response": [overheard]}
        ) as http:
            base = f"http://127.0.0.1:{port}/a2a/{EVERYBODY}"
            card = await A2ACardResolver(http, base).get_agent_card()

            def made(streaming: bool) -> SdkClient:
                config = ClientConfig(
                    streaming=streaming, httpx_client=http, supported_protocol_bindings=[self._binding]
                )
                return ClientFactory(config).create(card)

            rest = self._binding == "HTTP+JSON"
            yield _A2aHttpClient(made(False), made(True), overheard, http, base, rest=rest)


class A2aGrpcDriver(Driver):
    """The binding with a port of its own."""

    name = "a2a-grpc"
    title = "A2A, gRPC"
    endpoint = "a2a"
    client = "the A2A SDK"
    offers = _OFFERS
    lacks = _LACKS

    @property
    def carrier(self) -> Endpoint:
        """gRPC."""
        return "grpc"

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[Client]:
        """A client that knows where it is: cards are on HTTP."""
        url = f"127.0.0.1:{port}"
        card = AgentCard(
            name=EVERYBODY,
            supported_interfaces=[
                AgentInterface(url=url, protocol_binding="GRPC", protocol_version="1.0", tenant=EVERYBODY)
            ],
            capabilities=AgentCapabilities(streaming=True),
        )
        interceptors: list[Any] = [] if key is None else [_UnaryKey(key), _StreamKey(key)]
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(url, options=options, interceptors=interceptors) as channel:

            def made(streaming: bool) -> SdkClient:
                config = ClientConfig(
                    streaming=streaming,
                    grpc_channel_factory=lambda _: channel,
                    supported_protocol_bindings=["GRPC"],
                )
                return ClientFactory(config).create(card)

            yield _A2aGrpcClient(made(False), made(True), Overheard(), channel)


class _A2aClient(Client):
    def __init__(self, asking: SdkClient, hearing: SdkClient, overheard: Overheard) -> None:
        self._asking = asking
        self._hearing = hearing
        self._overheard = overheard

    async def submit(self, errand: Errand) -> str:
        return (await self._send(errand, now=True)).id

    async def run(self, errand: Errand) -> Outcome:
        return _outcome(await self._send(errand, now=False))

    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        async def final() -> Outcome:
            with self._translating():
                found = _outcome(await self._asking.get_task(GetTaskRequest(id=task)))
            assert found.state not in ("queued", "running", "scheduled"), found
            return found

        return await eventually_async(final, what=f"task {task} is final", timeout=seconds)

    async def cancel(self, task: str, *, reason: str) -> None:
        with self._translating():
            await self._asking.cancel_task(CancelTaskRequest(id=task))

    async def listen(self, errand: Errand) -> AsyncIterator[Said]:
        async for said in self._heard(self._hearing.send_message(_message(errand))):
            yield said

    async def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        skipping = bool(after)
        async for said in self._heard(self._hearing.subscribe(SubscribeToTaskRequest(id=task))):
            if not skipping and said.kind != "task":
                yield said
            skipping = skipping and said.offset != after

    async def _heard(self, answers: AsyncIterator[StreamResponse]) -> AsyncIterator[Said]:
        with self._translating():
            async for answer in answers:
                if (said := _said(answer)) is not None:
                    yield said

    async def _send(self, errand: Errand, *, now: bool) -> Task:
        request = _message(errand)
        request.configuration.return_immediately = now
        with self._translating():
            (answer,) = [answer async for answer in self._asking.send_message(request)]
        assert answer.HasField("task"), answer
        return answer.task

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """The SDK drops the codes that it does not know: they are in what it was told itself."""
        try:
            yield
        except A2AError as error:
            code = code_in(error.data) or self._overheard.code()
            if isinstance(error.__cause__, grpc.aio.AioRpcError):
                code = code or _reason(error.__cause__)
            if code is None:
                raise BrokenError(repr(error)) from error
            raise RefusedError(code, str(error)) from error


class _A2aHttpClient(_A2aClient):
    def __init__(
        self,
        asking: SdkClient,
        hearing: SdkClient,
        overheard: Overheard,
        http: httpx.AsyncClient,
        url: str,
        *,
        rest: bool,
    ) -> None:
        super().__init__(asking, hearing, overheard)
        self._http = http
        self._url = f"{url}/message:send" if rest else url
        self._rest = rest

    async def malformed(self) -> Mapping[str, str]:
        said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": 1}]}

        def call(message: Any) -> bytes:
            params = {"message": message}
            whole = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
            return json.dumps(params if self._rest else whole).encode()

        bodies = {
            "no JSON": b"{",
            "a list": b"[]",
            "half a character": b'{"a": "\xc3"}',
            "no parts": call({**said, "parts": []}),
            "a part that is none": call({**said, "parts": [{"raw": 5}]}),
            "no message id": call({**said, "messageId": ""}),
            "a priority that does not exist": call({**said, "metadata": {f"{OURS}priority": 10}}),
            "nesting without end": b"[" * 100_000,
        }
        found = {}
        for what, body in bodies.items():
            headers = {"a2a-version": "1.0", "content-type": "application/json"}
            answer = await self._http.post(self._url, content=body, headers=headers)
            assert answer.status_code < 500, (what, answer.text)
            error = answer.json()["error"]
            assert error["code"] not in (-32603, 500), (what, error)
            # What the SDK refuses has a number only.
            found[what] = code_in(error) or f"RPC{-error['code']}"
        return found


class _A2aGrpcClient(_A2aClient):
    def __init__(self, asking: SdkClient, hearing: SdkClient, overheard: Overheard, channel: grpc.aio.Channel) -> None:
        super().__init__(asking, hearing, overheard)
        self._channel: Any = channel

    async def malformed(self) -> Mapping[str, str]:
        def message(**fields: Any) -> bytes:
            said = Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="x")])
            for name, value in fields.items():
                said.ClearField(name)
                json_format.ParseDict({name: value}, said)
            return bytes(SendMessageRequest(message=said, tenant=EVERYBODY).SerializeToString())

        messages = {
            "no message": b"\xff\xff\xff",
            "half a character": b"\x0a\x03\x0a\x01\xc3",
            "an empty one": SendMessageRequest(tenant=EVERYBODY).SerializeToString(),
            "no parts": message(parts=[]),
            "a priority that does not exist": message(metadata={f"{OURS}priority": 10}),
        }
        call = self._channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")
        found = {}
        for what, content in messages.items():
            try:
                await call(content, timeout=60, metadata=(("a2a-version", "1.0"),))
            except grpc.aio.AioRpcError as error:
                found[what] = _reason(error) or error.code().name
            else:
                raise AssertionError(f"{what} was taken")
        return found


class _UnaryKey(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_signed(details, self._key), request)


class _StreamKey(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_signed(details, self._key), request)


def _signed(details: Any, key: str) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {key}"))
    return details._replace(metadata=metadata)


def _message(errand: Errand) -> SendMessageRequest:
    wire = {name: value for name, value in errand.to_wire().items() if name not in ("payload", "idempotencyKey")}
    said = Message(
        message_id=errand.idempotency_key or uuid.uuid4().hex,
        role=Role.ROLE_USER,
        parts=[Part(data=json_format.ParseDict(errand.payload, struct_pb2.Value()))],
    )
    json_format.ParseDict({OURS + name: value for name, value in wire.items()}, said.metadata)
    return SendMessageRequest(message=said)


def _outcome(task: Task) -> Outcome:
    state = json_format.MessageToDict(task.metadata)[f"{OURS}state"]
    results = [artifact for artifact in task.artifacts if artifact.artifact_id == "result"]
    return Outcome(task.id, state, _value(results[0].parts[0]) if results else None)


def _value(part: Part) -> Any:
    return json_format.MessageToDict(part.data) if part.HasField("data") else part.text


def _said(answer: StreamResponse) -> Said | None:
    match answer.WhichOneof("payload"):
        case "task":
            return Said("", "task", answer.task.id)
        case "artifact_update":
            update = answer.artifact_update
            offset = json_format.MessageToDict(update.metadata).get(f"{OURS}offset", "")
            if update.artifact.artifact_id.startswith("partial-"):
                return Said(offset, "partial", _value(update.artifact.parts[0]))
        case "status_update":
            metadata = json_format.MessageToDict(answer.status_update.metadata)
            if f"{OURS}state" in metadata:
                return Said("", "end", metadata[f"{OURS}state"])
            about = json_format.MessageToDict(answer.status_update.status.message.metadata)
            return Said(metadata[f"{OURS}offset"], "progress", {"fraction": about[f"{OURS}fraction"]})
    return None


def _reason(error: grpc.aio.AioRpcError) -> str | None:
    metadata: Any = error.trailing_metadata() or ()
    for name, value in metadata:
        if name == "grpc-status-details-bin":
            info = ErrorInfo()
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return None
