# SPDX-License-Identifier: Apache-2.0
"""The Python client against real processes: the same on every wire."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.client import AgentClient, NotFinishedError, TaskFailedError, UnknownServerError, UnreachableError
from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.errors import (
    DuplicateTaskError,
    ForbiddenError,
    InvalidTaskError,
    PayloadTooLargeError,
    QueueNotFoundError,
    TaskNotFoundError,
    UnauthenticatedError,
)
from kubeagents_api.model import LocalRef
from kubeagents_api.task import TaskRequest
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually_async
from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy

WIRES = ("grpc", "websocket", "http")

SCHEMES = {"grpc": "grpc", "websocket": "ws", "http": "http"}


def central_of(system: System, instance: str = "hub-1", **changes: Any) -> RuntimeProcess:
    """A CentralAgent that serves every wire."""
    return system.central(instance=instance, endpoints={"http": 0, "websocket": 0, "grpc": 0}, **changes).ready()


def url(central: RuntimeProcess, wire: str, *, port: int | None = None) -> str:
    return f"{SCHEMES[wire]}://127.0.0.1:{port or port_of(central, wire)}"


def port_of(central: RuntimeProcess, wire: str) -> int:
    if wire != "grpc":
        return central.port
    port: int = next(line["ports"]["grpc"] for line in central.lines if "ports" in line)
    return port


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return central_of(system)


async def test_a_task_is_submitted_and_its_result_awaited(system: System, central: RuntimeProcess, wire: str) -> None:
    system.agent("handlers:about", capabilities=["talking"])
    async with AgentClient(url(central, wire)) as client:
        handle = await client.submit(agent="worker", type="greeting", priority=7, payload={"to": "you"})
        result = await handle.result()
        assert (result["type"], result["priority"], result["agent"]) == ("greeting", 7, "worker")
        record = await handle.record()
        assert (record.state, record.payload, handle.queue) == ("succeeded", {"to": "you"}, "main")
        assert await client.result(handle.id) == result
        (agent,) = await client.agents(agent="worker")
        assert (agent.instance, agent.capabilities) == ("worker-1", ["talking"])


async def test_tasks_are_submitted_together_and_awaited_together(
    system: System, central: RuntimeProcess, wire: str
) -> None:
    system.agent()
    async with AgentClient([url(central, wire)], queue="main") as client:
        first = TaskRequest(id="first", payload=1)
        handles = await client.submit_all([first, TaskRequest(payload=2, depends_on=("first",))])
        records = await client.wait(handles)
        assert [record.result for record in records] == [1, 2]
        assert await client.submit_all([]) == []
        keyed = [TaskRequest(idempotency_key="once"), TaskRequest(idempotency_key="once")]
        once, again = await client.submit_all(keyed)
        assert once.id == again.id


async def test_errors_are_what_the_server_raised(system: System, central: RuntimeProcess, wire: str) -> None:
    async with AgentClient(url(central, wire)) as client:
        with pytest.raises(TaskNotFoundError, match="nobody"):
            await client.task("nobody")
        with pytest.raises(InvalidTaskError) as invalid:
            await client.submit(TaskRequest(depends_on=("nobody",)))
        assert (invalid.value.code, bool(invalid.value.field)) == ("INVALID_TASK", True)
        with pytest.raises(InvalidTaskError) as unknown:
            await client.submit(urgent=True)
        assert unknown.value.field == "urgent"
        await client.submit(id="mine")
        with pytest.raises(DuplicateTaskError):
            await client.submit(id="mine")
        with pytest.raises(PayloadTooLargeError):
            await client.submit(payload="x" * 1_100_000)
        with pytest.raises(QueueNotFoundError):
            await client.submit(queue="elsewhere")
        with pytest.raises(TaskNotFoundError):
            await anext(client.stream("nobody"))


async def test_a_task_that_fails_or_takes_too_long_says_so(
    system: System, central: RuntimeProcess, wire: str, tmp_path: Path
) -> None:
    system.agent("handlers:fail")
    async with AgentClient(url(central, wire)) as client:
        handle = await client.submit(payload="permanent")
        with pytest.raises(TaskFailedError, match="never will") as failed:
            await handle.result()
        assert (failed.value.code, failed.value.record.id) == ("FAILED", handle.id)
        slow = await client.submit(payload="slow")
        with pytest.raises(NotFinishedError):
            await slow.result(timeout_seconds=0.1)
        assert await slow.cancel(reason="enough") == "cancelled"
        with pytest.raises(TaskFailedError) as cancelled:
            await slow.result()
        assert cancelled.value.code == "CANCELLED"


async def test_large_payloads_and_many_calls_at_once_travel_on_one_connection(
    system: System, central: RuntimeProcess, wire: str
) -> None:
    system.agent(concurrency=64)
    async with AgentClient(url(central, wire)) as client:
        big = "x" * 1_000_000
        assert await (await client.submit(payload=big)).result() == big
        handles = await asyncio.gather(*(client.submit(payload=number) for number in range(300)))
        records = await client.wait(handles)
        assert [record.result for record in records] == list(range(300))


async def test_what_a_task_says_is_heard_once_though_the_connection_breaks(
    system: System, central: RuntimeProcess, wire: str, tmp_path: Path
) -> None:
    system.agent("speakers:speak")
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        handle = await client.submit(payload={"folder": str(tmp_path)})
        heard = []
        async for item in handle.stream():
            heard.append(item)
            if len(heard) == 2:
                proxy.cut_all()
                (tmp_path / "open").touch()
        assert [item.kind for item in heard] == ["progress", "partial", "partial", "progress"]
        assert [item.data for item in heard[1:3]] == [{"part": 1}, "two\nlines"]
        assert [item.data async for item in handle.stream(after=heard[1].offset)] == [heard[2].data, heard[3].data]


async def test_the_events_of_a_queue_are_heard_once_though_the_connection_breaks(
    central: RuntimeProcess, wire: str
) -> None:
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        await client.submit(id="one")
        heard = []
        async with aclosing(client.events(after="")) as events:
            async for event in events:
                heard.append((event.kind, event.task))
                if len(heard) == 1:
                    proxy.cut_all()
                    await client.submit(id="two")
                else:
                    break
        assert heard == [("submitted", "one"), ("submitted", "two")]


async def test_a_task_is_queued_once_though_the_answer_to_its_submission_is_lost(
    central: RuntimeProcess, wire: str
) -> None:
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        await client.agents()
        proxy.cut_into_reply(after=0)
        handle = await client.submit(type="find me")
        proxy.cut_into_reply(after=0)
        several = await client.submit_all([TaskRequest(type="and me"), TaskRequest(idempotency_key="k")])
        assert proxy.cuts == 2
        assert (await handle.record()).type == "find me"
        assert [(await one.record()).id for one in several] == [one.id for one in several]
        assert central.get("/v1/queues/main").json()["submittedTotal"] == 3


async def test_an_id_of_the_callers_own_is_told_from_that_of_another_task(central: RuntimeProcess, wire: str) -> None:
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        await client.agents()
        proxy.cut_into_reply(after=0)
        assert (await client.submit(id="mine", payload="payload-1")).id == "mine"
        proxy.cut_into_reply(after=0)
        with pytest.raises(DuplicateTaskError):
            await client.submit(id="mine", payload="payload-2")
        assert proxy.cuts == 2


async def test_a_call_waits_for_a_server_that_comes_back(system: System, central: RuntimeProcess, wire: str) -> None:
    system.agent()
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        async with proxy.refusing():
            call = asyncio.create_task(client.submit(payload="late"))

            async def down() -> bool:
                return client.endpoint is None

            await eventually_async(down, what="it has noticed")
        assert await (await call).result() == "late"


async def test_a_call_that_reaches_nobody_ends_with_its_time(wire: str) -> None:
    async with AgentClient(f"{SCHEMES[wire]}://127.0.0.1:1", timeout_seconds=0.3) as client:
        with pytest.raises(UnreachableError, match=r"cannot reach .*127\.0\.0\.1:1") as error:
            await client.submit()
        assert error.value.code == "UNREACHABLE"


async def test_what_is_no_central_agent_is_told_at_once(system: System, wire: str) -> None:
    agent = system.agent().ready()
    async with AgentClient(url(agent, wire, port=agent.port), timeout_seconds=60) as client:
        with pytest.raises(UnknownServerError):
            await client.submit()


async def test_a_key_is_shown_and_one_from_a_file_may_change(system: System, wire: str, tmp_path: Path) -> None:
    keys = {"root": "the-key-of-the-admin", "vera": "the-key-of-a-viewer", "dora": "the-key-of-a-developer"}
    roles: dict[str, Any] = {"root": "admin", "vera": "viewer", "dora": "developer"}
    folder = tmp_path / "keys"
    for name, key in keys.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text(key)
    principals = [Principal(name=name, role=role, keys_from=LocalRef(name=name)) for name, role in roles.items()]
    central = central_of(system, access=AccessSettings(principals=principals), keys_path=str(folder))
    async with AgentClient(url(central, wire)) as client:
        with pytest.raises(UnauthenticatedError):
            await client.submit()
    async with AgentClient(url(central, wire), key=keys["vera"]) as client:
        with pytest.raises(ForbiddenError, match="viewer"):
            await client.submit()
    file = tmp_path / "my-key"
    file.write_text("a-key-that-is-not-valid\n")
    async with AgentClient(url(central, wire), key_file=file) as client:
        with pytest.raises(UnauthenticatedError):
            await client.submit()
        file.write_text(keys["dora"] + "\n")
        assert (await client.submit()).queue == "main"
