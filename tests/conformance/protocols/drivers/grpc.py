# SPDX-License-Identifier: Apache-2.0
"""gRPC, by grpcio and the code that protoc makes of the published proto."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2_grpc as stubs
from tests.conformance.protocols.driver import BrokenError, Client, Driver, Errand, Outcome, RefusedError, Said
from tests.conformance.protocols.features import Feature

SECONDS = 90.0
_SUBMIT = "/kubeagents.v1.Tasks/Submit"


class GrpcDriver(Driver):
    """One channel."""

    name = "grpc"
    title = "gRPC"
    endpoint = "grpc"
    client = "grpcio"
    offers: ClassVar = {
        Feature.ROUND_TRIP: "`Tasks.Run`, or `Submit` and `Result`",
        Feature.BATCH: "`Tasks.SubmitBatch`, a client stream",
        Feature.STREAM: "`Tasks.Watch`, a server stream",
        Feature.CANCEL: "`Tasks.Cancel`; also by cancelling `Run`",
        Feature.DEADLINE: "`deadline`; also the deadline of `Run`",
        Feature.PRIORITY: "`priority`",
        Feature.IDEMPOTENCY: "`idempotency_key`, or an `id` of one's own (ALREADY_EXISTS)",
        Feature.LARGE: "INVALID_ARGUMENT over the limit",
        Feature.MALFORMED: "INVALID_ARGUMENT with `google.rpc.ErrorInfo`",
        Feature.UNAUTHENTICATED: "UNAUTHENTICATED; metadata `authorization: Bearer` or `x-api-key`",
        Feature.FORBIDDEN: "PERMISSION_DENIED",
        Feature.DRAIN: "`Result` with the task as it is; UNAVAILABLE with `DRAINING` for `Run` and streams",
        Feature.RECONNECT: "`after`",
        Feature.REPLICAS: "any replica answers",
    }

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[Client]:
        """One channel that shares its connection with no other."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield _GrpcClient(channel, () if key is None else (("authorization", f"Bearer {key}"),))


class _GrpcClient(Client):
    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel: Any = channel
        made: Any = stubs  # generated code has no types of functions
        self._tasks = made.TasksStub(channel)
        self._how: dict[str, Any] = {"metadata": metadata, "timeout": SECONDS}

    async def submit(self, errand: Errand) -> str:
        with _translating():
            answer = await self._tasks.Submit(pb.SubmitRequest(task=_task(errand)), **self._how)
        task: str = answer.id
        return task

    async def submit_batch(self, errands: list[Errand]) -> list[str]:
        async def messages() -> AsyncIterator[pb.SubmitBatchRequest]:
            for errand in errands:
                yield pb.SubmitBatchRequest(tasks=[_task(errand)])

        with _translating():
            return list((await self._tasks.SubmitBatch(messages(), **self._how)).ids)

    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        request = pb.ResultRequest(id=task)
        request.wait.FromMilliseconds(round(seconds * 1000))
        with _translating():
            return _outcome(await self._tasks.Result(request, **self._how))

    async def run(self, errand: Errand) -> Outcome:
        with _translating():
            return _outcome(await self._tasks.Run(pb.RunRequest(task=_task(errand)), **self._how))

    async def cancel(self, task: str, *, reason: str) -> None:
        with _translating():
            await self._tasks.Cancel(pb.CancelRequest(ids=[task], reason=reason), **self._how)

    async def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        with _translating():
            async for said in self._tasks.Watch(pb.WatchRequest(id=task, after=after), **self._how):
                if said.HasField("end"):
                    yield Said("", "end", _state(said.end.state))
                else:
                    kind = pb.StreamItem.Kind.Name(said.item.kind).removeprefix("KIND_").lower()
                    yield Said(said.item.offset, kind, json.loads(said.item.data_json))

    async def malformed(self) -> Mapping[str, str]:
        def request(**fields: Any) -> bytes:
            return bytes(pb.SubmitRequest(task=pb.NewTask(**fields)).SerializeToString())

        messages = {
            "no message": b"\xff\xff\xff",
            "a field that is cut off": b"\x0a\x7f\x01",
            "half a character": b"\x0a\x03\x0a\x01\xc3",
            "a payload that is no JSON": request(payload_json=b"{"),
            "NaN": request(payload_json=b"NaN"),
            "a priority that does not exist": request(priority=10),
            "an id with a blank": request(id="a b"),
            "nesting without end": request(payload_json=b"[" * 100_000 + b"]" * 100_000),
        }
        found = {}
        for what, message in messages.items():
            try:
                with _translating():
                    await self._channel.unary_unary(_SUBMIT)(message, **self._how)
            except RefusedError as error:
                found[what] = error.code
            else:
                raise AssertionError(f"{what} was taken")
        return found


def _task(errand: Errand) -> pb.NewTask:
    task = pb.NewTask(
        id=errand.id,
        agent=errand.agent,
        payload_json=json.dumps(errand.payload).encode(),
        priority=errand.priority,
        idempotency_key=errand.idempotency_key,
    )
    if errand.deadline is not None:
        task.deadline.FromDatetime(errand.deadline)
    return task


def _outcome(task: Any) -> Outcome:
    return Outcome(task.id, _state(task.state), json.loads(task.result_json or b"null"))


def _state(number: Any) -> str:
    return str(pb.TaskState.Name(number)).removeprefix("TASK_STATE_").lower()


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        metadata: Any = error.trailing_metadata() or ()
        details = [value for name, value in metadata if name == "grpc-status-details-bin"]
        if not details:
            raise BrokenError(str(error)) from error
        info = ErrorInfo()
        assert any(detail.Unpack(info) for detail in Status.FromString(details[0]).details)
        raise RefusedError(info.reason, str(error.details())) from error
