# SPDX-License-Identifier: Apache-2.0
"""Raw grpcio: channels, stubs of generated code, and what a status says."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2_grpc as stubs
from tests.support.runtime_process import RuntimeProcess

ENDPOINTS = {"http": 0, "grpc": 0}
SECONDS = 60.0
"""The deadline of calls that end by themselves."""


def port(central: RuntimeProcess) -> int:
    """Where it serves gRPC, as it said itself."""
    found: int = next(line["ports"]["grpc"] for line in list(central.lines) if "ports" in line)
    return found


class Client:
    """Somebody with a channel to one process."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        made: Any = stubs  # generated code has no types of functions
        self.tasks: Any = made.TasksStub(channel)
        self.queues: Any = made.QueuesStub(channel)
        self.work: Any = made.WorkStub(channel)

    async def submit(self, payload: Any = None, **fields: Any) -> str:
        """Queue a task; its id."""
        answer = await self.tasks.Submit(pb.SubmitRequest(task=task(payload, **fields)), timeout=SECONDS)
        found: str = answer.id
        return found

    async def result(self, task_id: str) -> Any:
        """The task, once it has ended."""
        return await self.tasks.Result(pb.ResultRequest(id=task_id), timeout=SECONDS)


@contextlib.asynccontextmanager
async def connected(central: RuntimeProcess, *, key: str | None = None) -> AsyncIterator[Client]:
    """A client of a process."""
    options = [("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1)]
    interceptors: list[Any] = (
        [] if key is None else [_OneToOne(key), _OneToMany(key), _ManyToOne(key), _ManyToMany(key)]
    )
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port(central)}", options=options, interceptors=interceptors
    ) as channel:
        yield Client(channel)


def task(payload: Any = None, **fields: Any) -> Any:
    """A new task."""
    return pb.NewTask(payload_json=json.dumps(payload).encode(), **fields)


def info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """What the status says in detail."""
    return _detail(error, ErrorInfo())


def retry_seconds(error: grpc.aio.AioRpcError) -> int:
    """When it says to try again."""
    seconds: int = _detail(error, RetryInfo()).retry_delay.seconds
    return seconds


def _detail(error: grpc.aio.AioRpcError, into: Any) -> Any:
    (raw,) = [value for name, value in error.trailing_metadata() or () if name == "grpc-status-details-bin"]
    status = Status.FromString(raw)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert any(one.Unpack(into) for one in status.details), status
    return into


class _WithKey:
    def __init__(self, key: str) -> None:
        self._key = key

    def _signed(self, details: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {self._key}"))
        return details._replace(metadata=metadata)


class _OneToOne(_WithKey, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._signed(details), request)


class _OneToMany(_WithKey, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._signed(details), request)


class _ManyToOne(_WithKey, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._signed(details), requests)


class _ManyToMany(_WithKey, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._signed(details), requests)


def counted(central: RuntimeProcess, code: str, method: str) -> float:
    """How many calls have ended so, by the metrics of the process."""
    start = f'kubeagents_grpc_requests_total{{code="{code}",method="/kubeagents.v1.{method}"}} '
    lines = central.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))
