# SPDX-License-Identifier: Apache-2.0
"""Clients of the A2A SDK, over each binding."""

import contextlib
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import Client
from a2a.types import AgentCard, Message, Part, Role, SendMessageRequest, StreamResponse, Task
from google.protobuf import json_format, struct_pb2

from tests.support.runtime_process import RuntimeProcess

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
STATE = "kubeagents.dev/state"


def data(value: Any) -> Part:
    """A data part."""
    return Part(data=json_format.ParseDict(value, struct_pb2.Value()))


def message(*parts: Part, metadata: dict[str, Any] | None = None, **fields: Any) -> SendMessageRequest:
    """A request to send a message; `now` does not wait for the end."""
    now = fields.pop("now", False)
    said = Message(message_id=fields.pop("message_id", uuid.uuid4().hex), role=Role.ROLE_USER, parts=parts, **fields)
    if metadata:
        json_format.ParseDict(metadata, said.metadata)
    request = SendMessageRequest(message=said)
    request.configuration.return_immediately = now
    return request


def plain(found: Any) -> Any:
    """A message of Protocol Buffers as JSON."""
    return json_format.MessageToDict(found)


def headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key is not None else {}


async def card(central: RuntimeProcess, address: str = "", *, key: str | None = None) -> AgentCard:
    """The card of an agent, or of the CentralAgent."""
    base = central.base_url + (f"/a2a/{address}" if address else "")
    async with httpx.AsyncClient(headers=headers(key), trust_env=False, timeout=30) as http:
        return await A2ACardResolver(http, base).get_agent_card()


class _UnaryKey(grpc.aio.UnaryUnaryClientInterceptor):
    """Shows a key with each call."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with_key(details, self.key), request)


class _StreamKey(grpc.aio.UnaryStreamClientInterceptor):
    """The same for streams."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with_key(details, self.key), request)


def _with_key(details: Any, key: str) -> Any:
    metadata = [*(details.metadata or ()), ("authorization", f"Bearer {key}")]
    return details._replace(metadata=metadata)


def _interceptors(key: str | None) -> list[Any]:
    return [_UnaryKey(key), _StreamKey(key)] if key is not None else []


@contextlib.asynccontextmanager
async def client(
    central: RuntimeProcess,
    address: str = "",
    *,
    binding: str = "JSONRPC",
    streaming: bool = False,
    key: str | None = None,
) -> AsyncGenerator[Client, None]:
    """A client that has read the card."""
    found = await card(central, address, key=key)
    async with httpx.AsyncClient(headers=headers(key), trust_env=False, timeout=60) as http:
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            grpc_channel_factory=lambda place: grpc.aio.insecure_channel(place, interceptors=_interceptors(key)),
            supported_protocol_bindings=[binding],
        )
        async with ClientFactory(config).create(found) as connected:
            yield connected


async def sent(client: Client, request: SendMessageRequest) -> Task:
    """Send a message without streaming; the task."""
    (answer,) = [answer async for answer in client.send_message(request)]
    assert answer.HasField("task"), answer
    return answer.task


def outcome(task: Task) -> Any:
    """What the result artifact has: the values of its parts."""
    (artifact,) = [one for one in task.artifacts if one.artifact_id == "result"]
    values = [json_format.MessageToDict(part) for part in artifact.parts]
    return values[0] if len(values) == 1 else values


def told(answer: StreamResponse) -> tuple[str, Any]:
    """What one answer of a stream says, in short."""
    match answer.WhichOneof("payload"):
        case "task":
            return "task", plain(answer.task)["status"]["state"]
        case "status_update":
            return "status", plain(answer.status_update)["status"]["state"]
        case "artifact_update":
            artifact = plain(answer.artifact_update)["artifact"]
            return artifact["artifactId"], [part.get("data", part.get("text")) for part in artifact["parts"]]
    raise AssertionError(answer)
