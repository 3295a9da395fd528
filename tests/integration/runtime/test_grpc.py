# SPDX-License-Identifier: Apache-2.0
"""Tasks, queues and errors over gRPC, with nothing but grpcio and the generated code."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

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
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess


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


async def refused(call: Any, code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
    """Await a call that must fail so."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error: grpc.aio.AioRpcError = caught.value
    assert (error.code(), info(error).reason) == (code, reason), error
    assert info(error).domain == "kubeagents.dev"
    return error


async def test_a_task_is_submitted_and_its_result_read(system: System, client: Client) -> None:
    system.agent().ready()

    submitted = await client.tasks.Submit(pb.SubmitRequest(task=task({"n": [1, None]}, type="sum")), timeout=SECONDS)
    done = await client.result(submitted.id)

    assert (submitted.queue, submitted.state, submitted.merged) == ("main", pb.TASK_STATE_QUEUED, False)
    assert done.state == pb.TASK_STATE_SUCCEEDED
    assert json.loads(done.result_json) == json.loads(done.payload_json) == {"n": [1, None]}
    assert (done.type, done.attempts, done.worker, done.priority) == ("sum", 1, "worker-1", 5)
    assert done.created_at.seconds <= done.started_at.seconds <= done.finished_at.seconds
    assert not done.HasField("deadline")


async def test_everything_that_a_task_may_have_arrives(client: Client) -> None:
    parent = await client.submit(1)
    wanted = task(
        2,
        id="mine",
        queue="main",
        agent="billing",
        priority=0,
        max_attempts=4,
        depends_on=[parent],
        on_parent_failure=pb.PARENT_FAILURE_POLICY_RUN,
        tenant="acme",
        idempotency_key="one",
    )
    wanted.timeout.FromMilliseconds(1500)
    wanted.deadline.FromJsonString("2100-01-01T00:00:00Z")

    submitted = await client.tasks.Submit(pb.SubmitRequest(task=wanted), timeout=SECONDS)
    found = await client.tasks.GetTask(pb.GetTaskRequest(id="mine"), timeout=SECONDS)

    assert (submitted.id, submitted.state) == ("mine", pb.TASK_STATE_BLOCKED)
    for name in ("id", "queue", "agent", "priority", "max_attempts", "depends_on", "on_parent_failure", "tenant"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.idempotency_key == "one"
    assert found.timeout.ToMilliseconds() == 1500
    assert found.deadline == wanted.deadline
    assert (found.waits_for, found.state) == (1, pb.TASK_STATE_BLOCKED)


async def test_a_task_with_the_key_of_an_earlier_one_is_merged_with_it(client: Client) -> None:
    first = await client.tasks.Submit(pb.SubmitRequest(task=task(1, idempotency_key="k")), timeout=SECONDS)
    second = await client.tasks.Submit(pb.SubmitRequest(task=task(2, idempotency_key="k")), timeout=SECONDS)

    assert (second.id, first.merged, second.merged) == (first.id, False, True)


async def test_a_batch_is_queued_whole_when_its_stream_ends(system: System, client: Client) -> None:
    system.agent().ready()

    async def parts() -> AsyncIterator[Any]:
        yield pb.SubmitBatchRequest(tasks=[task(0), task(1)])
        yield pb.SubmitBatchRequest(tasks=[task(2)])

    batch = await client.tasks.SubmitBatch(parts(), timeout=SECONDS)
    done = await client.tasks.Results(pb.ResultsRequest(ids=batch.ids), timeout=SECONDS)

    assert [json.loads(one.result_json) for one in done.tasks] == [0, 1, 2]
    assert not done.pending


async def test_of_a_batch_with_a_bad_task_nothing_is_queued(client: Client) -> None:
    async def parts() -> AsyncIterator[Any]:
        yield pb.SubmitBatchRequest(tasks=[task(0)])
        yield pb.SubmitBatchRequest(tasks=[task(1, priority=99)])

    error = await refused(
        client.tasks.SubmitBatch(parts(), timeout=SECONDS), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )

    assert info(error).metadata["field"] == "tasks.1.priority"
    assert (await client.queues.Stats(pb.StatsRequest(), timeout=SECONDS)).queued == 0


async def test_of_a_batch_that_is_broken_off_nothing_is_queued(client: Client) -> None:
    for _ in range(100):  # for a moment it looks as if the stream had just ended
        call = client.tasks.SubmitBatch()
        await call.write(pb.SubmitBatchRequest(tasks=[task(0)]))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    whole = client.tasks.SubmitBatch(iter([pb.SubmitBatchRequest(tasks=[task(1)])]), timeout=SECONDS)
    assert len((await whole).ids) == 1
    assert (await client.queues.Stats(pb.StatsRequest(), timeout=SECONDS)).submitted_total == 1


async def test_an_empty_batch_and_one_for_two_queues_are_refused(client: Client) -> None:
    async def parts(*tasks: Any) -> AsyncIterator[Any]:
        yield pb.SubmitBatchRequest(tasks=tasks)

    for batch in (parts(), parts(task(queue="main"), task(queue="other"))):
        await refused(
            client.tasks.SubmitBatch(batch, timeout=SECONDS), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        )


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"priority": 10}, "INVALID_REQUEST", "priority"),
        ({"id": "no spaces"}, "INVALID_REQUEST", "id"),
        ({"id": ""}, "INVALID_REQUEST", "id"),
        ({"agent": "Not A Name"}, "INVALID_REQUEST", "agent"),
        ({"max_attempts": 0}, "INVALID_REQUEST", "max_attempts"),
        ({"on_parent_failure": 17}, "INVALID_REQUEST", "on_parent_failure"),
        ({"depends_on": ["a", "a"]}, "INVALID_REQUEST", ""),
        ({"depends_on": ["nobody"]}, "INVALID_TASK", "depends_on"),
        ({"payload_json": b"{"}, "INVALID_JSON", "payload"),
        ({"payload_json": b"NaN"}, "INVALID_JSON", "payload"),
        ({"payload_json": b"\xff"}, "INVALID_JSON", "payload"),
        ({"payload_json": b'"' + b"x" * 1_048_577 + b'"'}, "PAYLOAD_TOO_LARGE", "payload"),
    ],
)
async def test_a_bad_task_is_refused_with_what_is_wrong(
    client: Client, fields: dict[str, Any], reason: str, field: str
) -> None:
    call = client.tasks.Submit(pb.SubmitRequest(task=pb.NewTask(**fields)), timeout=SECONDS)

    error = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, reason)

    assert info(error).metadata.get("field", "") == field
    assert reason != "INVALID_REQUEST" or field in (error.details() or "")


async def test_what_is_not_there_or_not_possible_has_its_own_status(system: System, client: Client) -> None:
    await client.submit(id="once")

    await refused(
        client.tasks.Submit(pb.SubmitRequest(task=task(id="once"))), grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_TASK"
    )
    await refused(client.tasks.GetTask(pb.GetTaskRequest(id="no")), grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    await refused(client.queues.Stats(pb.StatsRequest(queue="no")), grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    gates = await client.queues.Close(pb.GateRequest(by="maria"), timeout=SECONDS)
    assert list(gates.closed_by) == ["maria"]
    await refused(
        client.tasks.Submit(pb.SubmitRequest(task=task())), grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_CLOSED"
    )
    assert not (await client.queues.Open(pb.GateRequest(by="maria"), timeout=SECONDS)).closed_by


async def test_what_is_wrong_is_said_in_short_however_long_it_is(client: Client) -> None:
    deep = pb.NewTask(payload_json=b"[" * 1000 + b"]" * 1000)
    long = pb.StatsRequest(queue="ä" * 100_000)

    await refused(client.tasks.Submit(pb.SubmitRequest(task=deep)), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    await refused(client.queues.Stats(long), grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")


async def test_a_full_queue_says_when_to_try_again(system: System) -> None:
    queue = system.queue()
    limits = queue.limits.model_copy(update={"max_depth": 1})
    central = system.central(queue.model_copy(update={"limits": limits}), endpoints=ENDPOINTS).ready()
    async with connected(central) as client:
        await client.submit()

        error = await refused(
            client.tasks.Submit(pb.SubmitRequest(task=task())), grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"
        )

    assert retry_seconds(error) >= 1


async def test_a_queue_that_does_not_answer_is_unavailable(system: System) -> None:
    central = system.central(urls=["redis://127.0.0.1:1/0"], endpoints=ENDPOINTS)
    eventually(lambda: any("ports" in line for line in list(central.lines)), what="the process listens")
    async with connected(central) as client:
        error = await refused(
            client.tasks.GetTask(pb.GetTaskRequest(id="a"), timeout=SECONDS),
            grpc.StatusCode.UNAVAILABLE,
            "QUEUE_UNAVAILABLE",
        )

    assert retry_seconds(error) >= 1


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\xff\xff", b"\x00" * 100, b"\x0a\x05\x08"])
async def test_what_is_no_message_is_refused_and_the_server_goes_on(client: Client, raw: bytes) -> None:
    for method in ("Tasks/Submit", "Queues/Stats"):
        call = client.channel.unary_unary(f"/kubeagents.v1.{method}")
        await refused(call(raw, timeout=SECONDS), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    watch = client.channel.unary_stream("/kubeagents.v1.Tasks/Watch")(raw, timeout=SECONDS)
    await refused(watch.read(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    batch = client.channel.stream_unary("/kubeagents.v1.Tasks/SubmitBatch")(iter([raw]), timeout=SECONDS)
    await refused(batch, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    for name in ("grpc.health.v1.Health/Check", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
        call = client.channel.stream_stream(f"/{name}")(iter([raw]), timeout=SECONDS)
        await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")

    await client.submit("still there")


async def test_a_method_that_does_not_exist_is_unimplemented(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.channel.unary_unary("/kubeagents.v1.Tasks/Nothing")(b"", timeout=SECONDS)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_payload_of_a_mebibyte_comes_back_whole(system: System, client: Client) -> None:
    system.agent().ready()
    text = "x" * (1_048_576 - 2)

    done = await client.result(await client.submit(text))

    assert json.loads(done.result_json) == text


async def test_a_call_has_an_id_that_the_caller_may_choose(client: Client) -> None:
    chosen = client.tasks.Submit(pb.SubmitRequest(task=task()), metadata=[("x-request-id", "mine-1")])
    await chosen
    made = client.tasks.Submit(pb.SubmitRequest(task=task(priority=99)), metadata=[("x-request-id", "not a word")])
    error = await refused(made, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")

    assert dict(await chosen.trailing_metadata())["x-request-id"] == "mine-1"
    assert dict(error.trailing_metadata() or ())["x-request-id"] == info(error).metadata["request_id"] != "not a word"


async def test_queues_and_agents_are_seen(system: System, client: Client) -> None:
    system.agent().ready()
    await client.submit(agent="nobody", id="waits")

    (queue,) = (await client.queues.List(pb.ListRequest(), timeout=SECONDS)).queues
    (agent,) = (await client.queues.Agents(pb.AgentsRequest(agent="worker"), timeout=SECONDS)).instances
    nobody = await client.queues.Agents(pb.AgentsRequest(agent="nobody"), timeout=SECONDS)

    assert (queue.queue, queue.queued, dict(queue.unroutable_targets)) == ("main", 1, {"agent/nobody": 1})
    assert queue.waiting_since["agent/nobody"].seconds > 0
    assert (agent.instance, agent.concurrency, agent.healthy) == ("worker-1", 4, True)
    assert agent.last_beat_at.seconds >= agent.started_at.seconds > 0
    assert not nobody.instances


async def test_dead_tasks_are_listed_replayed_and_purged(system: System, client: Client) -> None:
    system.agent("handlers:fail").ready()
    ids = [await client.submit("error", max_attempts=1) for _ in range(3)]
    await client.tasks.Results(pb.ResultsRequest(ids=ids), timeout=SECONDS)

    page = await client.queues.Dead(pb.DeadRequest(limit=2), timeout=SECONDS)
    rest = await client.queues.Dead(pb.DeadRequest(limit=2, cursor=page.next), timeout=SECONDS)
    fitting = await client.queues.Dead(pb.DeadRequest(filter=pb.DeadFilter(code="no such")), timeout=SECONDS)
    replayed = await client.queues.Replay(pb.DeadSelection(filter=pb.DeadFilter(ids=ids[:1])), timeout=SECONDS)
    await client.tasks.Results(pb.ResultsRequest(ids=ids), timeout=SECONDS)
    again = await client.tasks.GetTask(pb.GetTaskRequest(id=ids[0]), timeout=SECONDS)
    purged = await client.queues.Purge(pb.DeadSelection(all=True), timeout=SECONDS)

    assert {one.id for one in (*page.tasks, *rest.tasks)} == set(ids)
    assert (len(page.tasks), len(rest.tasks), rest.next, len(fitting.tasks)) == (2, 1, "", 0)
    assert page.tasks[0].failures[0].message.endswith("bad value")
    assert list(replayed.ids) == ids[:1]
    assert (again.state, again.replays) == (pb.TASK_STATE_DEAD, 1)
    assert set(purged.ids) == set(ids)
    for nothing in (pb.DeadSelection(), pb.DeadSelection(filter=pb.DeadFilter())):
        await refused(client.queues.Purge(nothing), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_events_come_as_they_happen_and_go_on_after_an_offset(client: Client) -> None:
    first = await client.submit()
    async with asyncio.timeout(SECONDS):
        call = client.queues.Events(pb.EventsRequest())
        seen = await call.read()
        second = await client.submit()
        later = await call.read()
        call.cancel()
        again = await client.queues.Events(pb.EventsRequest(after=seen.offset)).read()

    assert [(one.kind, one.task) for one in (seen, later)] == [("submitted", first), ("submitted", second)]
    assert again == later


async def test_the_process_counts_calls_by_method_and_status(central: RuntimeProcess, client: Client) -> None:
    wanted = [("OK", "Tasks/Submit"), ("NOT_FOUND", "Tasks/GetTask")]
    before = [counted(central, *one) for one in wanted]

    await client.submit()
    await refused(client.tasks.GetTask(pb.GetTaskRequest(id="no")), grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")

    assert [counted(central, *one) for one in wanted] == [count + 1 for count in before]
    assert 'kubeagents_grpc_request_seconds_count{method="/kubeagents.v1.Tasks/Submit"}' in central.get("/metrics").text
