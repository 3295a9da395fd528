# SPDX-License-Identifier: Apache-2.0
"""Calls over gRPC that wait or stream: results, deadlines, cancellation, what a task says, and the drain."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from tests.integration.runtime.conftest import System
from tests.integration.runtime.grpc_wire import (
    ENDPOINTS,
    SECONDS,
    Client,
    connected,
    counted,
    info,
    retry_seconds,
    task,
)
from tests.support.eventually import eventually, eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def central(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    """A CentralAgent that tests leave as it is."""
    with contextlib.ExitStack() as stack:
        system = System(stack, folder=tmp_path_factory.mktemp("central"), redis=redis_server)
        yield system.central(endpoints=ENDPOINTS).ready()


@pytest.fixture
async def client(system: System, central: RuntimeProcess) -> AsyncIterator[Client]:
    async with connected(central) as found:
        yield found


async def state(client: Client, task_id: str) -> Any:
    return (await client.tasks.GetTask(pb.GetTaskRequest(id=task_id), timeout=SECONDS)).state


async def in_state(client: Client, task_id: str, wanted: int) -> None:
    async def look() -> bool:
        try:
            return bool(await state(client, task_id) == wanted)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise

    await eventually_async(look, what=f"{task_id} is {pb.TaskState.Name(wanted)}")


def starts(folder: Path) -> Path:
    """The first file that says a handler has begun."""
    return eventually(lambda: next(folder.glob("started-*"), None), what="the handler runs")  # type: ignore[return-value]


async def test_run_returns_the_task_when_it_has_ended(system: System, client: Client) -> None:
    system.agent().ready()

    call = client.tasks.Run(pb.RunRequest(task=task("hello")), timeout=SECONDS)
    done = await call

    assert (done.state, json.loads(done.result_json)) == (pb.TASK_STATE_SUCCEEDED, "hello")
    assert dict(await call.initial_metadata())["x-task-id"] == done.id


async def test_the_deadline_of_a_run_becomes_that_of_its_task(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.tasks.Run(pb.RunRequest(task=task(id="late", agent="nobody")), timeout=2)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    found = await client.tasks.Result(pb.ResultRequest(id="late"), timeout=SECONDS)
    assert found.state == pb.TASK_STATE_EXPIRED
    assert found.failures[-1].code == "DEADLINE_EXCEEDED"


async def test_a_task_keeps_a_deadline_of_its_own(client: Client) -> None:
    own = task(id="own", agent="nobody")
    own.deadline.FromJsonString("2100-01-01T00:00:00Z")

    with pytest.raises(grpc.aio.AioRpcError):
        await client.tasks.Run(pb.RunRequest(task=own), timeout=1)

    found = await client.tasks.GetTask(pb.GetTaskRequest(id="own"), timeout=SECONDS)
    assert (found.state, found.deadline) == (pb.TASK_STATE_QUEUED, own.deadline)


async def test_a_submission_takes_the_deadline_of_its_call_if_it_asks_for_it(client: Client) -> None:
    plain = await client.submit()
    asked = await client.tasks.Submit(pb.SubmitRequest(task=task(), deadline_from_call=True), timeout=3600)

    found = [await client.tasks.GetTask(pb.GetTaskRequest(id=one), timeout=SECONDS) for one in (plain, asked.id)]
    assert [one.HasField("deadline") for one in found] == [False, True]
    # On its way the time that is left is rounded.
    assert 3500 < found[1].deadline.seconds - found[1].created_at.seconds < 3700


async def test_a_run_that_is_cancelled_cancels_its_task(system: System, client: Client, tmp_path: Path) -> None:
    system.agent("handlers:gate").ready()
    call = client.tasks.Run(pb.RunRequest(task=task(str(tmp_path), id="mine")), timeout=SECONDS)
    await in_state(client, "mine", pb.TASK_STATE_RUNNING)

    call.cancel()

    await in_state(client, "mine", pb.TASK_STATE_CANCELLED)
    found = await client.tasks.GetTask(pb.GetTaskRequest(id="mine"), timeout=SECONDS)
    assert "its caller has cancelled the call" in found.failures[-1].message


async def test_a_run_that_is_cancelled_leaves_a_task_alone_that_others_may_wait_for(
    central: RuntimeProcess, client: Client
) -> None:
    cancelled = counted(central, "CANCELLED", "Tasks/Run")
    shared = task(id="shared", agent="nobody", idempotency_key="shared")
    call = client.tasks.Run(pb.RunRequest(task=shared), timeout=SECONDS)
    await in_state(client, "shared", pb.TASK_STATE_QUEUED)

    call.cancel()

    eventually(lambda: counted(central, "CANCELLED", "Tasks/Run") > cancelled, what="the server knows")
    assert await state(client, "shared") == pb.TASK_STATE_QUEUED


async def test_a_result_is_waited_for_as_long_as_asked(client: Client) -> None:
    task_id = await client.submit(agent="nobody")
    wait = pb.ResultRequest(id=task_id)
    wait.wait.FromMilliseconds(100)

    found = await client.tasks.Result(wait, timeout=SECONDS)
    many = pb.ResultsRequest(ids=[task_id])
    many.wait.FromMilliseconds(100)
    pending = await client.tasks.Results(many, timeout=SECONDS)

    assert found.state == pb.TASK_STATE_QUEUED
    assert (list(pending.pending), len(pending.tasks)) == ([task_id], 0)
    for bad in (-1, 301):
        wait.wait.FromSeconds(bad)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.tasks.Result(wait, timeout=SECONDS)
        assert (caught.value.code(), info(caught.value).metadata["field"]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "wait",
        )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.tasks.Result(pb.ResultRequest(id=task_id), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_running_task_is_cancelled(system: System, client: Client, tmp_path: Path) -> None:
    system.agent("handlers:gate").ready()
    task_id = await client.submit(str(tmp_path))
    await asyncio.to_thread(starts, tmp_path)

    cancelled = await client.tasks.Cancel(pb.CancelRequest(ids=[task_id], reason="no more"), timeout=SECONDS)

    (one,) = cancelled.tasks
    assert (one.id, one.state) == (task_id, pb.TASK_STATE_CANCELLED)
    eventually(lambda: any(tmp_path.glob("cancelled-*")), what="the handler is told")


async def heard(client: Client, task_id: str, *, after: str = "") -> list[Any]:
    """What a task says, to the end."""
    call = client.tasks.Watch(pb.WatchRequest(id=task_id, after=after), timeout=SECONDS)
    return [one async for one in call]


async def test_what_a_task_says_is_heard_while_it_runs_and_from_any_offset_on(
    system: System, central: RuntimeProcess, client: Client, tmp_path: Path
) -> None:
    system.agent("speakers:speak").ready()
    task_id = await client.submit({"folder": str(tmp_path)})
    async with asyncio.timeout(SECONDS):
        live = client.tasks.Watch(pb.WatchRequest(id=task_id))
        begun = [await live.read(), await live.read()]
        live.cancel()  # a connection that breaks
    (tmp_path / "open").touch()

    async with connected(central) as other:
        rest = await heard(other, task_id, after=begun[-1].item.offset)
    whole = await heard(client, task_id)

    assert begun + rest == whole
    assert [one.WhichOneof("what") for one in whole] == ["item"] * 4 + ["end"]
    assert whole[-1].end.state == pb.TASK_STATE_SUCCEEDED
    progress, part, text, _ = [one.item for one in whole[:-1]]
    assert (progress.kind, part.kind) == (pb.StreamItem.KIND_PROGRESS, pb.StreamItem.KIND_PARTIAL)
    assert json.loads(progress.data_json) == {"fraction": 0.25, "message": "begun"}
    assert [json.loads(one.data_json) for one in (part, text)] == [{"part": 1}, "two\nlines"]


async def test_what_cannot_be_watched_is_refused(client: Client) -> None:
    task_id = await client.submit()
    for request, code in (
        (pb.WatchRequest(id="nobody"), grpc.StatusCode.NOT_FOUND),
        (pb.WatchRequest(id=task_id, after="no offset"), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.tasks.Watch(request, timeout=SECONDS).read()
        assert caught.value.code() is code


async def test_a_process_that_is_told_to_stop_answers_what_waits_and_ends_streams(
    system: System, tmp_path: Path
) -> None:
    central = system.central(endpoints=ENDPOINTS).ready()
    async with connected(central) as client:
        task_id = await client.submit(agent="nobody")
        events = client.queues.Events(pb.EventsRequest())
        watch = client.tasks.Watch(pb.WatchRequest(id=task_id))
        result = client.tasks.Result(pb.ResultRequest(id=task_id))
        run = client.tasks.Run(pb.RunRequest(task=task(agent="nobody", id="run")))
        await in_state(client, "run", pb.TASK_STATE_QUEUED)
        worker = pb.Worker(agent="outside", instance="o-1")
        next_task = client.work.NextTask(iter([pb.NextTaskRequest(worker=worker, credit=1)]))
        healthy: Any = health_pb2_grpc.HealthStub(client.channel)
        health = healthy.Watch(health_pb2.HealthCheckRequest(service="kubeagents.v1.Tasks"))
        async with asyncio.timeout(SECONDS):
            assert (await health.read()).status == SERVING
            assert {(await events.read()).task, (await events.read()).task} == {task_id, "run"}

            central.signal(signal.SIGTERM)

            assert (await result).state == pb.TASK_STATE_QUEUED
            for call in (watch.read(), events.read(), run, next_task.read()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
                assert info(caught.value).reason == "DRAINING"
                assert retry_seconds(caught.value) >= 1
            assert (await health.read()).status == NOT_SERVING
    assert central.exit_code() == 0
    assert [line for line in central.lines if line["level"] in ("error", "unstructured")] == []


async def test_a_call_that_runs_when_the_process_stops_still_ends(system: System) -> None:
    queue = system.queue()
    limits = queue.limits.model_copy(update={"max_depth": 1, "when_full": "Block", "block_seconds": 30})
    central = system.central(queue.model_copy(update={"limits": limits}), endpoints=ENDPOINTS).ready()
    async with connected(central) as client:
        await client.submit(agent="nobody", id="first")
        waits_for_room = asyncio.create_task(client.submit(agent="nobody", id="second"))
        await in_flight(client, "second")

        central.signal(signal.SIGTERM)
        other = system.central()  # the one that stops takes no new calls
        assert (await asyncio.to_thread(other.delete, "/v1/queues/main/tasks/first")).status_code == 200

        assert await waits_for_room == "second"
    assert central.exit_code() == 0


async def in_flight(client: Client, task_id: str) -> None:
    """Calls are handled in the order in which they arrive: one later than another shows that it has begun."""
    with pytest.raises(grpc.aio.AioRpcError):
        await client.tasks.GetTask(pb.GetTaskRequest(id=task_id), timeout=SECONDS)


async def test_any_replica_answers_for_any_task(system: System, tmp_path: Path) -> None:
    system.agent("speakers:speak").ready()
    one, two = (system.central(instance=name, endpoints=ENDPOINTS).ready() for name in ("hub-1", "hub-2"))
    async with connected(one) as first, connected(two) as second:
        task_id = await first.submit({"folder": str(tmp_path)})
        async with asyncio.timeout(SECONDS):
            watch = first.tasks.Watch(pb.WatchRequest(id=task_id))
            begun = [await watch.read(), await watch.read()]

            one.signal(signal.SIGKILL)

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ended(watch)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        (tmp_path / "open").touch()
        rest = await heard(second, task_id, after=begun[-1].item.offset)

    assert rest[-1].end.state == pb.TASK_STATE_SUCCEEDED


async def ended(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_health_is_told_for_each_service(client: Client) -> None:
    health: Any = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", "kubeagents.v1.Tasks", "kubeagents.v1.Queues", "kubeagents.v1.Work"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
        assert answer.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_server_describes_itself(client: Client) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="kubeagents.v1.Work"),
    ]

    services, file = [one async for one in stub.ServerReflectionInfo(iter(asked), timeout=SECONDS)]

    names = {one.name for one in services.list_services_response.service}
    assert {"kubeagents.v1.Tasks", "kubeagents.v1.Queues", "kubeagents.v1.Work", "grpc.health.v1.Health"} <= names
    assert pb.DESCRIPTOR.serialized_pb in file.file_descriptor_response.file_descriptor_proto


def test_a_port_that_is_taken_is_said_at_the_start(system: System, redis_server: RedisServer) -> None:
    central = system.central(endpoints={"http": 0, "grpc": redis_server.port})

    assert central.exit_code() == 78
    assert f"cannot listen on 127.0.0.1:{redis_server.port} for gRPC" in central.termination()["message"]
