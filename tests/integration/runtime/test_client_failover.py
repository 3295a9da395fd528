# SPDX-License-Identifier: Apache-2.0
"""The Python client with several endpoints: one breaks, another one goes on, and what was preferred is taken again."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent_runtime.client import AgentClient, Message
from agent_runtime.queue.keys import Keys
from kubeagents_api.errors import ForbiddenError
from kubeagents_api.task import TaskState
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_client import WIRES, central_of, port_of, url
from tests.integration.runtime.test_outside_agents import AGENT_KEY, VIEWER_KEY, guarded
from tests.support.eventually import eventually_async
from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return central_of(system)


async def until_at(client: AgentClient, endpoint: str) -> None:
    async def there() -> bool:
        return client.endpoint == endpoint

    await eventually_async(there, what=f"the client takes {endpoint}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_central_agent_ends_and_nothing_is_lost_or_done_twice(
    system: System, wire: str, number: signal.Signals
) -> None:
    first, second = central_of(system), central_of(system, "hub-2")
    system.agent("handlers:echo", concurrency=16)
    async with AgentClient([url(first, wire), url(second, wire)]) as client:
        handles = [await client.submit(payload="first")]
        results = asyncio.gather(*(handle.result() for handle in handles))
        calls = [asyncio.create_task(client.submit(payload=number)) for number in range(100)]
        await calls[0]
        first.signal(number)
        calls += [asyncio.create_task(client.submit(payload=number)) for number in range(100, 200)]
        handles = await asyncio.gather(*calls)
        records = await client.wait(handles)
        assert [record.result for record in records] == list(range(200))
        assert await results == ["first"]
        assert client.endpoint == url(second, wire)
    assert second.get("/v1/queues/main").json()["submittedTotal"] == 201


async def test_wires_are_tried_in_order_and_the_preferred_one_is_taken_again(
    system: System, central: RuntimeProcess
) -> None:
    system.agent()
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(TcpProxy(target_port=port_of(central, wire)))
            for wire in ("grpc", "websocket")
        ]
        grpc, websocket = (
            url(central, wire, port=proxy.port) for wire, proxy in zip(("grpc", "websocket"), proxies, strict=True)
        )
        client = await stack.enter_async_context(AgentClient([grpc, websocket, url(central, "http")]))

        async def works() -> None:
            assert await (await client.submit(payload="echo")).result() == "echo"

        await works()
        assert client.endpoint == grpc
        async with proxies[0].refusing():
            await works()
            assert client.endpoint == websocket
            async with proxies[1].refusing():
                await works()
                assert client.endpoint == url(central, "http")
            await until_at(client, websocket)
            await works()
        await until_at(client, grpc)
        await works()


async def test_a_stream_goes_on_by_another_wire_and_comes_back(
    system: System, central: RuntimeProcess, tmp_path: Path
) -> None:
    system.agent("talking:handle")
    async with (
        TcpProxy(target_port=port_of(central, "websocket")) as proxy,
        AgentClient([url(central, "websocket", port=proxy.port), url(central, "http")]) as client,
    ):
        handle = await client.submit(type="speak", payload=str(tmp_path))
        parts = []
        stream = handle.stream()
        async with proxy.refusing():
            for _ in range(4):
                parts.append(await anext(stream))
        await until_at(client, url(central, "websocket", port=proxy.port))
        (tmp_path / "open").touch()
        parts += [part async for part in stream]
        assert [part.data for part in parts if part.kind == "partial"] == [{"part": number} for number in range(6)]


async def received(client: AgentClient, agent: str, *, everywhere: bool, wanted: int) -> Sequence[Message]:
    """So many messages, each acknowledged with what it says."""
    found: list[Message] = []
    async with await client.inbox(agent, everywhere=everywhere) as inbox:
        async for message in inbox:
            async with message:
                found.append(message)
            if len(found) == wanted:
                return found
    raise AssertionError("an inbox has no end")


async def test_a_message_is_received_and_acknowledged(central: RuntimeProcess, wire: str) -> None:
    async with AgentClient(url(central, wire)) as client:
        sent = await client.send_message("desk", {"hello": "you"})
        assert await client.receive_message("elsewhere", timeout_seconds=0.1) is None
        message = await client.receive_message("desk")
        assert message is not None
        assert (message.id, message.type, message.payload) == (sent.id, "message", {"hello": "you"})
        assert await message.ack({"read": True})
        assert await sent.result() == {"read": True}
        assert not await message.ack()

        again = await client.send_message("desk", "fails at first", max_attempts=3)
        first = await client.receive_message("desk")
        assert first is not None
        assert await first.fail("not now", delay_seconds=0)
        second = await client.receive_message("desk")
        assert second is not None
        assert (second.id, second.attempt) == (again.id, 2)
        with pytest.raises(ZeroDivisionError):
            async with second:
                raise ZeroDivisionError("bad luck")
        assert (await again.record()).failures[-1].message == "ZeroDivisionError: bad luck"


async def test_who_listens_on_all_wires_at_once_gets_each_message_once(central: RuntimeProcess) -> None:
    async with AgentClient([url(central, wire) for wire in WIRES]) as client:
        handles = [await client.send_message("desk", number) for number in range(30)]
        found = await received(client, "desk", everywhere=True, wanted=30)
        assert sorted(message.payload for message in found) == list(range(30))
        records = await client.wait(handles)
        assert {(record.state, record.attempts) for record in records} == {(TaskState.SUCCEEDED, 1)}


async def test_a_message_that_is_not_acknowledged_is_given_back_at_the_end(central: RuntimeProcess, wire: str) -> None:
    async with AgentClient(url(central, wire)) as client:
        sent = await client.send_message("desk", 1)
        async with AgentClient(url(central, wire)) as other:
            assert await other.receive_message("desk") is not None
        assert (await sent.record()).state == "queued"
        message = await client.receive_message("desk")
        assert message is not None
        assert message.attempt == 1


async def test_a_message_whose_lease_was_lost_is_not_delivered_again(system: System, wire: str) -> None:
    central = central_of(system, queues=[system.queue(lease_seconds=15)])
    async with (
        TcpProxy(target_port=port_of(central, wire)) as proxy,
        AgentClient(url(central, wire, port=proxy.port)) as client,
    ):
        first = await client.send_message("desk", "first")
        message = await client.receive_message("desk")
        assert message is not None
        async with proxy.refusing():
            with system.redis.client() as redis:  # as if that had lasted for longer than the lease
                redis.zadd(Keys("tests", "main").name("leases"), {first.id: 1})

            async def lost() -> bool:
                stats = central.get("/v1/queues/main").json()
                return bool(stats["running"] == 0)

            await eventually_async(lost, what="the lease is over")
        second = asyncio.create_task(client.receive_message("desk"))

        async def ours_again() -> bool:
            return bool(central.get(f"/v1/queues/main/tasks/{first.id}").json()["attempts"] == 2)

        await eventually_async(ours_again, what="it is given out again")
        assert not second.done()
        assert await message.ack("read once")
        assert await first.result() == "read once"
        await client.send_message("desk", "second")
        found = await second
        assert found is not None
        assert found.payload == "second"


async def test_who_may_not_work_for_an_agent_gets_no_messages(system: System, wire: str, tmp_path: Path) -> None:
    central = guarded(system, tmp_path / "keys")
    async with AgentClient(url(central, wire), key=VIEWER_KEY) as client:
        with pytest.raises(ForbiddenError):
            await client.receive_message("mine")
    async with AgentClient(url(central, wire), key=AGENT_KEY) as client:
        await client.send_message("mine", "hello")
        message = await client.receive_message("mine")
        assert message is not None
        assert await message.ack()
