# SPDX-License-Identifier: Apache-2.0
"""Who may do what over gRPC."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.access import AccessSettings, Principal, RequestLimit, Role
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.integration.runtime.grpc_wire import ENDPOINTS, SECONDS, connected, info, retry_seconds, task
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

ADMIN, DEVELOPER, VIEWER = "the-key-of-the-admin", "the-key-of-a-developer", "the-key-of-a-viewer"
AGENT, BUSY = "the-key-of-an-agent-1", "the-key-of-a-busy-one"
KEYS = {"root": ADMIN, "dora": DEVELOPER, "vera": VIEWER, "outside": AGENT, "busy": BUSY}


def principal(name: str, role: Role, **more: Any) -> Principal:
    return Principal(name=name, role=role, keys_from=LocalRef(name=name), **more)


ACCESS = AccessSettings(
    principals=[
        principal("root", "admin"),
        principal("dora", "developer"),
        principal("vera", "viewer"),
        principal("outside", "agent", agents=["outside"]),
        principal("busy", "viewer", rate_limit=RequestLimit(requests=3, per_seconds=3600)),
    ]
)


@pytest.fixture(scope="module")
def central(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    """A CentralAgent that asks for keys."""
    folder: Path = tmp_path_factory.mktemp("central")
    for name, key in KEYS.items():
        (folder / "keys" / name).mkdir(parents=True)
        (folder / "keys" / name / "key").write_text(key)
    with contextlib.ExitStack() as stack:
        system = System(stack, folder=folder, redis=redis_server)
        yield system.central(endpoints=ENDPOINTS, access=ACCESS, keys_path=str(folder / "keys")).ready()


@pytest.fixture(autouse=True)
def empty(system: System) -> None:
    """Each test begins with an empty Redis."""


async def refused(call: Any, code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error: grpc.aio.AioRpcError = caught.value
    assert (error.code(), info(error).reason) == (code, reason), error
    return error


async def forbidden(call: Any) -> None:
    await refused(call, grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")


@pytest.mark.parametrize("metadata", [("authorization", f"Bearer {DEVELOPER}"), ("x-api-key", DEVELOPER)])
async def test_a_key_opens_the_door(central: RuntimeProcess, metadata: tuple[str, str]) -> None:
    async with connected(central) as client:
        answer = await client.tasks.Submit(pb.SubmitRequest(task=task()), metadata=[metadata], timeout=SECONDS)

    assert answer.id


@pytest.mark.parametrize("key", [None, "-", "not-a-key-of-anybody", "ka_abcdefghijkl_" + "x" * 43])
async def test_without_a_valid_key_there_is_nothing(central: RuntimeProcess, key: str | None) -> None:
    worker = pb.Worker(agent="outside", instance="o-1")
    async with connected(central, key=key) as client:
        calls = [
            client.tasks.Submit(pb.SubmitRequest(task=task()), timeout=SECONDS),
            client.tasks.SubmitBatch(iter([pb.SubmitBatchRequest(tasks=[task()])]), timeout=SECONDS),
            client.queues.Events(pb.EventsRequest(), timeout=SECONDS).read(),
            client.work.NextTask(iter([pb.NextTaskRequest(worker=worker, credit=1)]), timeout=SECONDS).read(),
        ]
        for call in calls:
            error = await refused(call, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert "x" * 43 not in str(error)
    async with connected(central, key=ADMIN) as admin:
        assert (await admin.queues.Stats(pb.StatsRequest(), timeout=SECONDS)).submitted_total == 0

    def noted() -> bool:
        headers = {"authorization": f"Bearer {ADMIN}"}
        found = httpx.get(f"{central.base_url}/v1/audit?limit=1000", headers=headers, trust_env=False, timeout=30)
        entries = [one for one in found.json()["entries"] if one["protocol"] == "grpc"]
        return len(entries) >= 4 and {one["address"] for one in entries} == {"127.0.0.1"}

    eventually(noted, what="the audit log has it")


async def test_health_needs_no_key(central: RuntimeProcess) -> None:
    async with connected(central) as client:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_roles_differ(central: RuntimeProcess) -> None:
    async with (
        connected(central, key=VIEWER) as viewer,
        connected(central, key=DEVELOPER) as developer,
        connected(central, key=ADMIN) as admin,
    ):
        await forbidden(viewer.tasks.Submit(pb.SubmitRequest(task=task()), timeout=SECONDS))
        await developer.submit(id="one")
        assert (await viewer.tasks.GetTask(pb.GetTaskRequest(id="one"), timeout=SECONDS)).id == "one"
        await forbidden(developer.queues.Pause(pb.GateRequest(by="root"), timeout=SECONDS))
        await forbidden(developer.work.Register(_register("outside"), timeout=SECONDS))
        await forbidden(viewer.work.Settle(pb.SettleRequest(), timeout=SECONDS))
        assert list((await admin.queues.Pause(pb.GateRequest(), timeout=SECONDS)).paused_by) == ["root"]
        (done,) = (await developer.tasks.Cancel(pb.CancelRequest(ids=["one"], by="root"), timeout=SECONDS)).tasks
        assert done.state == pb.TASK_STATE_CANCELLED
        found = [await admin.queues.Events(pb.EventsRequest(), timeout=SECONDS).read()]
        assert found[0].task == "one"


def _register(agent: str) -> Any:
    return pb.RegisterRequest(worker=pb.Worker(agent=agent, instance=f"{agent}-1"))


async def test_an_agent_works_for_its_own_agents_only(central: RuntimeProcess) -> None:
    async with connected(central, key=AGENT) as agent, connected(central, key=DEVELOPER) as developer:
        await agent.work.Register(_register("outside"), timeout=SECONDS)
        await forbidden(agent.work.Register(_register("billing"), timeout=SECONDS))
        other = pb.Worker(agent="billing", instance="b-1")
        await forbidden(agent.work.Claim(pb.ClaimRequest(worker=other), timeout=SECONDS))
        requests = iter([pb.NextTaskRequest(worker=other, credit=1)])
        await forbidden(agent.work.NextTask(requests, timeout=SECONDS).read())
        requests = iter([pb.StreamMessagesRequest(worker=other, credit=1)])
        await forbidden(agent.work.StreamMessages(requests, timeout=SECONDS).read())
        task_id = await developer.submit(agent="outside")
        own = pb.Worker(agent="outside", instance="outside-1")
        (claimed,) = (await agent.work.Claim(pb.ClaimRequest(worker=own), timeout=SECONDS)).claims

    assert claimed.claim.id == task_id


async def test_who_may_not_submit_cannot_send_messages_either(central: RuntimeProcess) -> None:
    send = pb.StreamMessagesRequest.Send(number=1, to="outside")
    async with connected(central, key=VIEWER) as viewer, connected(central, key=DEVELOPER) as developer:
        answers = []
        for client in (viewer, developer):
            call = client.work.StreamMessages(iter([pb.StreamMessagesRequest(send=send)]), timeout=SECONDS)
            answers += [one.sent async for one in call]

    assert [one.fault.code for one in answers] == ["FORBIDDEN", ""]


async def test_who_calls_too_often_is_told_when_to_come_back(central: RuntimeProcess) -> None:
    async with connected(central, key=BUSY) as busy:
        for _ in range(3):
            await busy.queues.Stats(pb.StatsRequest(), timeout=SECONDS)
        error = await refused(
            busy.queues.Stats(pb.StatsRequest(), timeout=SECONDS), grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"
        )

    assert retry_seconds(error) > 1


async def test_streams_end_when_their_key_is_revoked(central: RuntimeProcess) -> None:
    made = await asyncio.to_thread(make_key, central)
    worker = pb.Worker(agent="outside", instance="o-1")
    async with connected(central, key=made["key"]) as client, asyncio.timeout(SECONDS):
        first = await client.submit(agent="nobody")
        events, next_task = client.queues.Events(pb.EventsRequest()), client.work.NextTask()
        await next_task.write(pb.NextTaskRequest(worker=worker, credit=1))
        assert (await events.read()).task == first

        await asyncio.to_thread(revoke_key, central, made["id"])

        for call in (events, next_task):
            await refused(_drained(call), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


def make_key(central: RuntimeProcess) -> dict[str, Any]:
    wanted = {"principal": "nightly", "role": "admin"}
    headers = {"authorization": f"Bearer {ADMIN}"}
    answer = httpx.post(f"{central.base_url}/v1/keys", json=wanted, headers=headers, trust_env=False, timeout=30)
    made: dict[str, Any] = answer.json()
    return made


def revoke_key(central: RuntimeProcess, key: str) -> None:
    headers = {"authorization": f"Bearer {ADMIN}"}
    answer = httpx.delete(f"{central.base_url}/v1/keys/{key}", headers=headers, trust_env=False, timeout=30)
    assert answer.status_code == 204, answer.text


async def _drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
