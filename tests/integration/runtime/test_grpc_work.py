# SPDX-License-Identifier: Apache-2.0
"""Agents outside of the cluster over gRPC: they register, take tasks, settle them, and send each other messages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from tests.integration.runtime.conftest import System
from tests.integration.runtime.grpc_wire import ENDPOINTS, SECONDS, Client, connected, info, task
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

WORKER = pb.Worker(agent="outside", instance="laptop-1", capabilities=["ocr"])


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


async def claim(client: Client, *, limit: int = 1, worker: Any = WORKER) -> list[Any]:
    answer = await client.work.Claim(pb.ClaimRequest(worker=worker, limit=limit), timeout=SECONDS)
    return list(answer.claims)


def success(claimed: Any, result: Any) -> Any:
    return pb.Outcome(claim=claimed.claim, result_json=json.dumps(result).encode())


async def settle(client: Client, *outcomes: Any) -> list[bool]:
    answer = await client.work.Settle(pb.SettleRequest(outcomes=outcomes), timeout=SECONDS)
    return list(answer.held)


async def running(client: Client) -> int:
    found: int = (await client.queues.Stats(pb.StatsRequest(), timeout=SECONDS)).running
    return found


async def test_a_process_registers_beats_and_signs_off(client: Client) -> None:
    terms = await client.work.Register(pb.RegisterRequest(worker=WORKER), timeout=SECONDS)
    beat = pb.HeartbeatRequest(worker=WORKER, version="1", concurrency=4, running=1)
    beat.started_at.GetCurrentTime()
    beat.interface_json = b'{"description": "Reads scans.", "inputSchema": {"type": "object"}}'
    orders = await client.work.Heartbeat(beat, timeout=SECONDS)
    (seen,) = (await client.queues.Agents(pb.AgentsRequest(), timeout=SECONDS)).instances
    await client.work.Leave(pb.LeaveRequest(worker=WORKER), timeout=SECONDS)

    assert (terms.queue, terms.namespace, terms.lease.seconds, terms.max_payload_bytes) == (
        "main",
        "tests",
        30,
        1 << 20,
    )
    assert terms.agent_timeout.seconds == 3
    assert not orders.cordoned
    assert (seen.agent, seen.instance, list(seen.capabilities), seen.running) == ("outside", "laptop-1", ["ocr"], 1)
    assert seen.started_at.ToMilliseconds() == beat.started_at.ToMilliseconds()
    assert not (await client.queues.Agents(pb.AgentsRequest(), timeout=SECONDS)).instances


async def test_a_task_is_claimed_extended_heard_and_settled(client: Client) -> None:
    deadline = "2100-01-01T00:00:00Z"
    wanted = task({"scan": 1}, capability="ocr", type="read", tenant="acme")
    wanted.deadline.FromJsonString(deadline)
    submitted = await client.tasks.Submit(pb.SubmitRequest(task=wanted), timeout=SECONDS)

    (claimed,) = await claim(client, limit=5)
    emitted = await client.work.Emit(
        pb.EmitRequest(
            claim=claimed.claim,
            items=[
                pb.EmitRequest.Item(progress=pb.EmitRequest.Progress(fraction=0.5, message="half")),
                pb.EmitRequest.Item(partial_json=b'"page 1"'),
            ],
        ),
        timeout=SECONDS,
    )
    extended = await client.work.Extend(pb.ExtendRequest(claims=[claimed.claim]), timeout=SECONDS)
    midway = await client.tasks.GetTask(pb.GetTaskRequest(id=submitted.id), timeout=SECONDS)
    held = await settle(client, success(claimed, ["done"]))
    stale = pb.ClaimRef.FromString(claimed.claim.SerializeToString())
    stale.token = "0" * len(stale.token)
    again = await settle(client, pb.Outcome(claim=stale, result_json=b'"too late"'))
    lost = await client.work.Extend(pb.ExtendRequest(claims=[claimed.claim]), timeout=SECONDS)
    done = await client.result(submitted.id)

    assert (claimed.claim.id, claimed.claim.attempt, claimed.type) == (submitted.id, 1, "read")
    assert (json.loads(claimed.payload_json), claimed.tenant, claimed.deadline) == (
        {"scan": 1},
        "acme",
        wanted.deadline,
    )
    assert emitted.held
    assert (midway.progress.fraction, midway.progress.message) == (0.5, "half")
    assert (held, again) == ([True], [False])
    assert (list(extended.lost), [one.id for one in lost.lost]) == ([], [submitted.id])
    assert (json.loads(done.result_json), done.worker) == (["done"], "laptop-1")


async def test_a_failure_says_whether_to_try_again(client: Client) -> None:
    ids = [await client.submit(agent="outside", id=name) for name in ("again", "never")]
    again, never = await claim(client, limit=2)
    soon = pb.Outcome(claim=again.claim, failure=pb.Outcome.Failure(code="BUSY", message="not now"))
    soon.failure.delay.FromSeconds(3600)
    useless = pb.Outcome.Failure(code="BAD_SCAN", message="it is blank", permanent=True)

    await settle(client, soon, pb.Outcome(claim=never.claim, failure=useless))

    found = [await client.tasks.GetTask(pb.GetTaskRequest(id=one), timeout=SECONDS) for one in ids]
    assert [one.state for one in found] == [pb.TASK_STATE_SCHEDULED, pb.TASK_STATE_FAILED]
    assert [one.failures[0].code for one in found] == ["BUSY", "BAD_SCAN"]


async def test_a_claim_that_is_given_back_costs_no_attempt(client: Client) -> None:
    await client.submit(agent="outside")
    (first,) = await claim(client)
    await client.work.Release(pb.ReleaseRequest(claims=[first.claim]), timeout=SECONDS)
    (second,) = await claim(client)

    assert (second.claim.id, second.claim.attempt) == (first.claim.id, 1)
    assert second.claim.token != first.claim.token


async def test_the_results_of_parents_are_read(client: Client) -> None:
    parent = await client.submit(agent="outside")
    await settle(client, *[success(one, {"n": 1}) for one in await claim(client)])
    await client.submit(agent="outside", depends_on=[parent])
    (child,) = await claim(client)

    found = await client.work.Parents(pb.ParentsRequest(claim=child.claim), timeout=SECONDS)

    assert found.parents[parent].state == pb.TASK_STATE_SUCCEEDED
    assert json.loads(found.parents[parent].result_json) == {"n": 1}


async def test_an_answer_is_never_too_large_for_a_client_that_has_set_nothing(client: Client) -> None:
    for _ in range(6):
        await client.submit("x" * 1_000_000, agent="outside")

    first = await claim(client, limit=10)
    second = await claim(client, limit=10)

    assert (len(first), len(second)) == (3, 3)
    assert {one.claim.attempt for one in (*first, *second)} == {1}


async def test_tasks_are_pushed_as_far_as_there_is_credit(client: Client) -> None:
    ids = [await client.submit(number, agent="outside") for number in range(4)]
    async with asyncio.timeout(SECONDS):
        call = client.work.NextTask()
        await call.write(pb.NextTaskRequest(worker=WORKER, credit=1))
        first = await call.read()
        assert await running(client) == 1
        await call.write(pb.NextTaskRequest(credit=2))
        await call.done_writing()
        rest = [await call.read(), await call.read()]
        assert await call.read() is grpc.aio.EOF

    assert [one.claim.id for one in (first, *rest)] == ids[:3]
    assert (await call.code(), await running(client)) == (grpc.StatusCode.OK, 3)


async def test_a_task_is_pushed_the_moment_it_is_there(client: Client) -> None:
    async with asyncio.timeout(SECONDS):
        call = client.work.NextTask()
        await call.write(pb.NextTaskRequest(worker=WORKER, credit=10))
        await client.work.Claim(pb.ClaimRequest(worker=WORKER, wait={}), timeout=SECONDS)
        late = await client.submit(agent="outside")
        assert (await call.read()).claim.id == late
        call.cancel()


async def test_what_a_worker_did_not_get_is_given_back_when_its_connection_breaks(client: Client) -> None:
    for _ in range(20):
        await client.submit("x" * 1_000_000, agent="outside")
    async with asyncio.timeout(SECONDS):
        call = client.work.NextTask()
        await call.write(pb.NextTaskRequest(worker=WORKER, credit=20))
        await call.read()
        call.cancel()

    async def given_back() -> bool:
        stats = await client.queues.Stats(pb.StatsRequest(), timeout=SECONDS)
        # Written, but not read: those are held until their lease is over.
        assert stats.queued >= 10, stats
        return True

    await eventually_async(given_back, what="what was not written waits again")


async def test_a_stream_of_tasks_that_is_not_what_it_should_be_is_refused(client: Client) -> None:
    for requests in ([], [pb.NextTaskRequest(credit=1)], [pb.NextTaskRequest(worker=pb.Worker(agent="A B"))]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.work.NextTask(iter(requests), timeout=SECONDS).read()
        assert (caught.value.code(), info(caught.value).reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )


async def test_a_cordoned_process_gets_nothing_and_hears_why(client: Client, central: RuntimeProcess) -> None:
    beat = pb.HeartbeatRequest(worker=WORKER, version="1", concurrency=1)
    beat.started_at.GetCurrentTime()
    await client.work.Heartbeat(beat, timeout=SECONDS)
    async with asyncio.timeout(SECONDS):
        call = client.work.NextTask()
        await call.write(pb.NextTaskRequest(worker=WORKER, credit=1))
        path = "/v1/queues/main/cordon"
        answer = await asyncio.to_thread(central.post, path, {"instances": ["laptop-1"], "by": "maria"})
        assert answer.status_code == 200, answer.text

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code(), info(caught.value).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CORDONED")
        assert (await client.work.Heartbeat(beat, timeout=SECONDS)).cordoned


async def test_a_process_is_told_when_its_task_is_cancelled(client: Client) -> None:
    cancelled = []

    async def told() -> bool:
        # Nothing says when it listens, so there is more than one.
        cancelled.append(await client.submit(agent="outside"))
        await claim(client)
        await client.tasks.Cancel(pb.CancelRequest(ids=cancelled[-1:]), timeout=SECONDS)
        return heard.done()

    async def hear() -> list[str]:
        async for revoked in call:
            if revoked.ids:
                return list(revoked.ids)
        return []

    call = client.work.Revoked(pb.RevokedRequest(worker=WORKER), timeout=SECONDS)
    heard = asyncio.create_task(hear())
    await eventually_async(told, what="the process is told")

    assert set(heard.result()) <= set(cancelled)
    assert heard.result()
    call.cancel()


async def test_agents_send_each_other_messages(client: Client) -> None:
    ping, pong = (pb.Worker(agent=name, instance=f"{name}-1") for name in ("ping", "pong"))
    send = pb.StreamMessagesRequest.Send
    async with asyncio.timeout(SECONDS):
        one, two = client.work.StreamMessages(), client.work.StreamMessages()
        await one.write(pb.StreamMessagesRequest(worker=ping, credit=1))
        await two.write(pb.StreamMessagesRequest(worker=pong, credit=1))

        await one.write(pb.StreamMessagesRequest(send=send(number=7, to="pong", payload_json=b'"hi"')))
        sent = (await one.read()).sent
        received = (await two.read()).received
        await two.write(pb.StreamMessagesRequest(settle=success(received, None)))
        settled = (await two.read()).settled
        await two.write(pb.StreamMessagesRequest(send=send(number=1, to="ping", payload_json=b'"ho"')))
        await two.read()
        answer = (await one.read()).received
        one.cancel()
        two.cancel()

    assert (sent.number, sent.id, received.type, received.payload_json) == (7, received.claim.id, "message", b'"hi"')
    assert (settled.id, settled.held) == (sent.id, True)
    assert answer.payload_json == b'"ho"'
    assert (await client.result(sent.id)).state == pb.TASK_STATE_SUCCEEDED


async def test_a_message_that_cannot_be_sent_does_not_end_the_stream(client: Client) -> None:
    send = pb.StreamMessagesRequest.Send
    await client.submit(id="taken")
    wrong = [
        send(number=1, to="Not A Name"),
        send(number=2, to="a", payload_json=b"{"),
        send(number=3, to="a", id="taken"),
        send(number=4, to="a"),
    ]
    async with asyncio.timeout(SECONDS):
        call = client.work.StreamMessages()
        for one in wrong:
            await call.write(pb.StreamMessagesRequest(send=one))
        await call.done_writing()
        answers = [one.sent async for one in call]

    assert [(one.number, one.fault.code, one.fault.field) for one in answers] == [
        (1, "INVALID_REQUEST", "agent"),
        (2, "INVALID_JSON", "payload"),
        (3, "DUPLICATE_TASK", "id"),
        (4, "", ""),
    ]
    assert answers[3].id


@pytest.mark.parametrize(
    ("call", "request_message", "field"),
    [
        ("Settle", pb.SettleRequest(outcomes=[pb.Outcome()]), "outcomes.0.claim.id"),
        ("Extend", pb.ExtendRequest(claims=[pb.ClaimRef(id="a")]), "claims.0.token"),
        ("Emit", pb.EmitRequest(claim=pb.ClaimRef(id="a")), "claim.token"),
        ("Claim", pb.ClaimRequest(worker=WORKER, limit=0), "limit"),
        ("Heartbeat", pb.HeartbeatRequest(worker=WORKER, version="1"), "concurrency"),
        ("Register", pb.RegisterRequest(), "worker.agent"),
    ],
)
async def test_a_bad_call_of_a_worker_is_refused_with_what_is_wrong(
    client: Client, call: str, request_message: Any, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(client.work, call)(request_message, timeout=SECONDS)

    assert (caught.value.code(), info(caught.value).metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
