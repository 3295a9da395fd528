# SPDX-License-Identifier: Apache-2.0
"""Who may do what over MCP."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kubeagents_api.access import AccessSettings
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_access import ACCESS, ADMIN, BILLING, BUSY, DEVELOPER, KEYS, ORDERS, VIEWER
from tests.integration.runtime.test_mcp import ENDPOINTS, PATIENCE, happens, redis_of_its_own
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess


@pytest.fixture(scope="module")
def central(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    """A pod that asks for keys. The Agents billing and open are in the queue main, packing in orders."""
    folder = tmp_path_factory.mktemp("mcp-access")
    for name, key in KEYS.items():
        (folder / "keys" / name).mkdir(parents=True)
        (folder / "keys" / name / "key").write_text(key)
    with redis_of_its_own(redis_binary, folder) as system:
        system.agent("tools:add", name="billing", capabilities=["sums"])
        system.agent("tools:gated", name="gated")
        system.agent("tools:anything", name="packing", queue=system.queue("orders"))
        pod = pod_of(system, folder).ready()

        def all_there() -> bool:
            answer = httpx.get(f"{pod.base_url}/v1/agents", headers={"x-api-key": ADMIN}, trust_env=False)
            return len(answer.json()) == 3

        eventually(all_there, what="all agents are there", timeout=PATIENCE)
        yield pod


def pod_of(system: System, folder: Path) -> RuntimeProcess:
    queues = (system.queue(), system.queue("orders", index=1))
    return system.central(*queues, instance="mcp-1", endpoints=ENDPOINTS, access=ACCESS, keys_path=str(folder / "keys"))


@contextlib.asynccontextmanager
async def client(central: RuntimeProcess, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as http,
        Client(streamable_http_client(f"{central.base_url}/mcp", http_client=http), mode=mode) as connected,
    ):
        yield connected


def said(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
def test_who_shows_no_key_gets_no_further_than_the_door(central: RuntimeProcess, headers: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = httpx.post(f"{central.base_url}/mcp", json=body, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("key", "tools"),
    [
        (ADMIN, ["billing", "gated", "packing", "sums"]),
        (DEVELOPER, ["billing", "gated", "packing", "sums"]),
        (BILLING, ["billing"]),
        (ORDERS, ["packing"]),
        (VIEWER, []),
    ],
)
async def test_only_what_a_caller_may_use_is_a_tool(central: RuntimeProcess, key: str, tools: list[str]) -> None:
    for mode in ("auto", "legacy"):
        async with client(central, key, mode) as connected:
            assert [tool.name for tool in (await connected.list_tools()).tools] == tools


async def test_a_tool_that_is_not_listed_cannot_be_called_and_others_tasks_cannot_be_read(
    central: RuntimeProcess,
) -> None:
    async with client(central, DEVELOPER) as connected:
        result = await connected.call_tool("packing", {"box": 1})
        assert result.meta is not None
        uri = result.meta["kubeagents.dev/task"]["uri"]
        assert len((await connected.list_resources()).resources) == 2
    async with client(central, BILLING) as connected:
        assert said(await connected.call_tool("billing", {"numbers": [1, 2]}))["sum"] == 3
        for name in ("gated", "packing", "sums", "main.sums"):
            with pytest.raises(MCPError, match="there is no tool"):
                await connected.call_tool(name, {})
        with pytest.raises(MCPError, match="there is no task"):
            await connected.read_resource(uri)
    async with client(central, ORDERS) as connected:
        (queue,) = (await connected.list_resources()).resources
        assert str(queue.uri) == "kubeagents://queues/orders"
        with pytest.raises(MCPError) as refusal:
            await connected.read_resource("kubeagents://queues/main")
        assert (refusal.value.code, refusal.value.data) == (-32003, {"code": "FORBIDDEN"})
    async with client(central, VIEWER) as connected:
        with pytest.raises(MCPError, match="there is no tool"):
            await connected.call_tool("billing", {"numbers": [1]})


@contextlib.asynccontextmanager
async def websocket(central: RuntimeProcess, key: str | None, **more: Any) -> AsyncIterator[ClientConnection]:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    url = central.base_url.replace("http://", "ws://") + "/mcp/ws"
    options: dict[str, Any] = {"subprotocols": ["mcp"], "max_size": None, "proxy": None, "open_timeout": 60, **more}
    async with connect(url, additional_headers=headers, **options) as connection:
        yield connection


class Wire:
    """JSON-RPC by hand, as a client that is not the SDK would write it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []

    async def send(self, method: str, params: dict[str, Any] | None = None, *, id: Any = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if id is not None:
            message["id"] = id
        await self.connection.send(json.dumps(message))

    async def answer(self, id: Any) -> dict[str, Any]:
        """The answer to a request; what comes before is kept."""
        while True:
            message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE))
            if message.get("id") == id and "method" not in message:
                return message
            self.heard.append(message)

    async def notified(self, method: str) -> dict[str, Any]:
        """What a notification says, as soon as one has come."""
        while True:
            for message in self.heard:
                if message.get("method") == method:
                    params: dict[str, Any] = message["params"]
                    return params
            self.heard.append(json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE)))

    async def ask(self, method: str, params: dict[str, Any] | None = None, *, id: Any) -> dict[str, Any]:
        await self.send(method, params, id=id)
        answer = await self.answer(id)
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def greet(self) -> None:
        """The handshake of the versions that have one."""
        info = {"name": "test", "version": "1"}
        await self.ask(
            "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}, id="hello"
        )
        await self.send("notifications/initialized")


async def test_tools_are_called_over_a_websocket_too(central: RuntimeProcess) -> None:
    async with websocket(central, BILLING) as connection:
        assert connection.subprotocol == "mcp"
        wire = Wire(connection)
        await wire.greet()
        assert [tool["name"] for tool in (await wire.ask("tools/list", id=1))["tools"]] == ["billing"]
        arguments = {"numbers": [20, 22]}
        result = await wire.ask("tools/call", {"name": "billing", "arguments": arguments}, id=2)
        assert result["structuredContent"]["sum"] == 42


async def test_a_websocket_may_speak_the_newer_version(central: RuntimeProcess) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with websocket(central, BILLING) as connection:
        wire = Wire(connection)
        result = await wire.ask("server/discover", {"_meta": meta}, id=1)
        assert result["supportedVersions"] == ["2026-07-28"]
        call = {"name": "billing", "arguments": {"numbers": [1]}, "_meta": meta}
        assert (await wire.ask("tools/call", call, id=2))["structuredContent"]["sum"] == 1


async def test_over_a_websocket_calls_run_side_by_side_are_followed_and_cancelled(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    async with websocket(central, DEVELOPER) as connection:
        wire = Wire(connection)
        await wire.greet()
        call = {"name": "gated", "arguments": {"folder": str(tmp_path)}, "_meta": {"progressToken": "p"}}
        await wire.send("tools/call", call, id=1)
        await happens(tmp_path, "started-")
        assert len((await wire.ask("tools/list", id=2))["tools"]) == 4
        said = await wire.notified("notifications/progress")
        assert (said["progressToken"], said["progress"], said["message"]) == ("p", 0.5, "at the gate")
        await wire.send("notifications/cancelled", {"requestId": 1})
        await happens(tmp_path, "cancelled-")
        await wire.ask("ping", id=3)


async def test_a_websocket_that_is_lost_cancels_what_nobody_waits_for_any_more(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    async with websocket(central, DEVELOPER) as connection:
        wire = Wire(connection)
        await wire.greet()
        await wire.send("tools/call", {"name": "gated", "arguments": {"folder": str(tmp_path)}}, id=1)
        await happens(tmp_path, "started-")
    await happens(tmp_path, "cancelled-")


async def test_what_is_no_message_is_answered_on_a_websocket_with_an_error_and_the_connection_stays(
    central: RuntimeProcess,
) -> None:
    async with websocket(central, DEVELOPER) as connection:
        wire = Wire(connection)
        for text, code in {"{": -32700, "[]": -32600, '"x"': -32600, '{"jsonrpc": "2.0"}': -32600, "": -32700}.items():
            await connection.send(text)
            answer = await wire.answer(None)
            assert answer["error"]["code"] == code, (text, answer)
        await connection.send(b"\xff\x00")
        assert (await wire.answer(None))["error"]["code"] == -32700
        await wire.greet()
        await wire.ask("ping", id=1)


async def test_a_websocket_needs_a_key_the_subprotocol_and_no_web_page_of_others(central: RuntimeProcess) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with websocket(central, None):
            pass
    assert refusal.value.response.status_code == 401
    assert refusal.value.response.headers["www-authenticate"].startswith("Bearer")
    with pytest.raises(InvalidStatus) as refusal:
        async with websocket(central, DEVELOPER, origin="http://evil.example"):
            pass
    assert refusal.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refusal:
        async with websocket(central, DEVELOPER, subprotocols=None):
            pass
    assert refusal.value.response.status_code == 403


async def test_a_websocket_ends_when_its_key_is_revoked(central: RuntimeProcess) -> None:
    admin = {"authorization": f"Bearer {ADMIN}"}
    answer = await asyncio.to_thread(
        httpx.post,
        f"{central.base_url}/v1/keys",
        json={"principal": "temp", "role": "developer"},
        headers=admin,
        timeout=60,
        trust_env=False,
    )
    made = answer.json()
    async with websocket(central, made["key"]) as connection:
        wire = Wire(connection)
        await wire.greet()
        await wire.ask("tools/list", id=1)
        url = f"{central.base_url}/v1/keys/{made['id']}"
        answer = await asyncio.to_thread(httpx.delete, url, headers=admin, timeout=60, trust_env=False)
        assert answer.status_code < 300, answer.text
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "UNAUTHENTICATED")


async def test_every_request_on_a_websocket_counts(central: RuntimeProcess) -> None:
    async with websocket(central, BUSY) as connection:
        wire = Wire(connection)
        await wire.greet()
        for number in (1, 2):  # the handshake was the first of the three that are allowed
            await wire.ask("tools/list", id=number)
        await wire.send("tools/list", id=3)
        error = (await wire.answer(3))["error"]
    assert (error["code"], error["data"]["code"]) == (-32006, "RATE_LIMITED")
    assert error["data"]["retryAfterSeconds"] >= 1


async def test_a_websocket_takes_no_more_requests_than_it_may_have_and_others_after_that(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    async with websocket(central, DEVELOPER) as connection:
        wire = Wire(connection)
        await wire.greet()
        call = {"name": "gated", "arguments": {"folder": str(tmp_path)}}
        for number in range(257):
            await wire.send("tools/call", call, id=number)
        assert (await wire.answer(256))["error"]["data"]["code"] == "TOO_MANY_CALLS"
        (tmp_path / "open").touch()
        await wire.answer(0)
        await wire.ask("tools/list", id=300)


async def test_a_websocket_ends_when_the_pod_stops(redis_binary: Path, tmp_path: Path) -> None:
    with redis_of_its_own(redis_binary, tmp_path) as system:
        pod = system.central(instance="mcp-9", endpoints=ENDPOINTS).ready()
        async with websocket(pod, None) as connection:
            await Wire(connection).greet()
            pod.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), PATIENCE)
        assert await asyncio.to_thread(pod.exit_code) == 0


async def test_an_agent_that_serves_mcp_itself_is_the_only_tool_there(redis_binary: Path, tmp_path: Path) -> None:
    with redis_of_its_own(redis_binary, tmp_path) as system:
        for name in ("root", "dora", "vera"):
            (tmp_path / "keys" / name).mkdir(parents=True)
            (tmp_path / "keys" / name / "key").write_text(KEYS[name])
        access = AccessSettings(principals=[one for one in ACCESS.principals if one.name in ("root", "dora", "vera")])
        settings: dict[str, Any] = {"endpoints": ENDPOINTS, "access": access, "keys_path": str(tmp_path / "keys")}
        system.agent("tools:add", name="other", capabilities=["sums"])
        adder = system.agent("tools:add", name="adder", capabilities=["sums"], **settings).ready()
        async with client(adder, DEVELOPER) as connected:
            assert [tool.name for tool in (await connected.list_tools()).tools] == ["adder"]
            assert said(await connected.call_tool("adder", {"numbers": [1, 2]}))["sum"] == 3
