# SPDX-License-Identifier: Apache-2.0
"""Agents as tools of MCP: a client of the official SDK against real processes."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ResourceLink, TextContent, TextResourceContents, Tool

from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually, eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

ENDPOINTS = {"http": 0, "mcp": 0}
PATIENCE = 60.0
MODES = ["auto", "legacy"]
"""Versions since 2026-07-28, and those before."""


@contextlib.asynccontextmanager
async def client(central: RuntimeProcess, mode: Any = "auto", **settings: Any) -> AsyncIterator[Client]:
    """A client of one pod."""
    async with Client(f"{central.base_url}/mcp", mode=mode, **settings) as connected:
        yield connected


@contextlib.contextmanager
def redis_of_its_own(binary: Path, folder: Path) -> Iterator[System]:
    """A system that shares its Redis with nobody."""
    folder.joinpath("redis").mkdir()
    with RedisServer(binary, folder / "redis") as redis, contextlib.ExitStack() as stack:
        yield System(stack, folder=folder, redis=redis)


@pytest.fixture(scope="module")
def stage(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """What the tests share, and leave as it is."""
    with redis_of_its_own(redis_binary, tmp_path_factory.mktemp("mcp")) as system:
        yield system


@pytest.fixture(scope="module")
def central(stage: System) -> RuntimeProcess:
    """One pod, and agents that are tools."""
    stage.agent("tools:add", name="adder", capabilities=["sums"])
    for name, handler in {"gated": "gated", "open": "anything", "reporter": "report", "shouter": "shout"}.items():
        stage.agent(f"tools:{handler}", name=name)
    central = stage.central(instance="mcp-1", endpoints=ENDPOINTS).ready()
    eventually(lambda: len(central.get("/v1/agents").json()) == 5, what="all agents are there", timeout=PATIENCE)
    return central


@pytest.fixture(scope="module")
def other(stage: System, central: RuntimeProcess) -> RuntimeProcess:
    """Another pod."""
    return stage.central(instance="mcp-2", endpoints=ENDPOINTS).ready()


@pytest.fixture
def system(redis_binary: Path, tmp_path: Path) -> Iterator[System]:
    """What a test has for itself."""
    folder = tmp_path / "system"
    folder.mkdir()
    with redis_of_its_own(redis_binary, folder) as system:
        yield system


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def ours(**fields: Any) -> Any:
    """Fields of the task, as metadata."""
    return {f"kubeagents.dev/{name}": value for name, value in fields.items()}


def said(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


async def tool_names(connected: Client) -> list[str]:
    return [tool.name for tool in (await connected.list_tools()).tools]


async def tool_of(connected: Client, name: str) -> Tool:
    return next(tool for tool in (await connected.list_tools()).tools if tool.name == name)


async def appear(connected: Client, *names: str) -> None:
    """Return once these are the tools."""

    async def there() -> bool:
        found = await tool_names(connected)
        assert found == sorted(names), found
        return True

    await eventually_async(there, what=f"the tools {names}", timeout=PATIENCE)


async def happens(folder: Path, beginning: str) -> str:
    """Return once a handler has left a file whose name begins so."""

    async def there() -> str:
        found = [name for name in os.listdir(folder) if name.startswith(beginning)]
        assert found, f"there is only {os.listdir(folder)}"
        return found[0]

    return await eventually_async(there, what=f"a file {beginning}", timeout=PATIENCE)


async def resource(connected: Client, uri: str) -> Any:
    """What a resource of JSON says."""
    (content,) = (await connected.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_is_a_tool_that_says_what_it_takes_and_returns_what_its_handler_does(
    central: RuntimeProcess, mode: str
) -> None:
    async with client(central, mode) as connected:
        tool = await tool_of(connected, "adder")
        assert tool.description == "Adds numbers up."
        assert tool.input_schema["required"] == ["numbers"]
        result = await connected.call_tool("adder", {"numbers": [1, 2, 3], "currency": "USD"})
    assert not result.is_error
    assert result.structured_content == {"sum": 6, "currency": "USD"}
    assert text_of(result) == '{"sum":6,"currency":"USD"}'


async def test_what_a_handler_does_not_say_is_open(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        tool = await tool_of(connected, "open")
        assert tool.input_schema == {"type": "object"}
        given = {"any": ["thing", None, {"deep": None}]}
        assert (await connected.call_tool("open", given)).structured_content == given


@pytest.mark.parametrize("mode", MODES)
async def test_a_payload_that_is_no_object_is_one_argument(central: RuntimeProcess, mode: str) -> None:
    async with client(central, mode) as connected:
        tool = await tool_of(connected, "shouter")
        assert tool.input_schema["properties"] == {"payload": {"type": "string"}}
        result = await connected.call_tool("shouter", {"payload": "hello"})
        assert text_of(result) == "HELLO"
        assert result.structured_content == ("HELLO" if mode == "auto" else {"result": "HELLO"})
        with pytest.raises(MCPError, match="one argument, 'payload'"):
            await connected.call_tool("shouter", {"text": "hello"})


async def test_a_capability_is_a_tool_that_any_agent_with_it_serves(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        result = await connected.call_tool("sums", {"numbers": [4, 5]})
    assert result.structured_content == {"sum": 9, "currency": "EUR"}


async def test_what_has_the_same_name_in_two_queues_is_told_apart_by_the_queue(system: System) -> None:
    main, orders = system.queue(), system.queue("orders", index=1)
    central = system.central(main, orders, instance="mcp-1", endpoints=ENDPOINTS).ready()
    system.agent("tools:anything", name="twin", capabilities=["only-here"])
    system.agent("tools:anything", name="twin", instance="twin-2", queue=system.queue("orders"))
    async with client(central) as connected:
        await appear(connected, "main.twin", "only-here", "orders.twin")
        for queue in ("main", "orders"):
            result = await connected.call_tool(f"{queue}.twin", {"about": "me"})
            assert said(result)["queue"] == queue
        with pytest.raises(MCPError, match=r"in several queues: main\.twin, orders\.twin"):
            await connected.call_tool("twin", {})


async def test_an_agent_that_comes_later_is_a_tool_as_soon_as_it_is_there(system: System) -> None:
    central = system.central(instance="mcp-1", endpoints=ENDPOINTS).ready()
    async with client(central) as connected:
        await appear(connected)
        with pytest.raises(MCPError, match="there is no tool 'adder'"):
            await connected.call_tool("adder", {"numbers": []})
        system.agent("tools:add", name="adder")
        await appear(connected, "adder")
        assert said(await connected.call_tool("adder", {"numbers": [1]}))["sum"] == 1


async def test_a_task_that_fails_is_a_result_that_says_so(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        failed = await connected.call_tool("open", {"refuse": "not on a Sunday"})
        wrong = await connected.call_tool("adder", {"numbers": "many"})
    assert failed.is_error
    assert wrong.is_error
    assert said(failed)["code"] == "FAILED"
    assert "not on a Sunday" in text_of(failed)
    assert said(wrong)["code"] == "INVALID_PAYLOAD"
    assert "numbers: Input should be a valid list" in text_of(wrong)


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_task_says_arrives_as_progress_and_as_messages(central: RuntimeProcess, mode: str) -> None:
    heard: list[tuple[float, float | None, str | None]] = []
    messages: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def on_message(params: Any) -> None:
        messages.append(params.data)

    async with client(central, mode, logging_callback=on_message, log_level="info") as connected:
        result = await connected.call_tool("reporter", {}, progress_callback=on_progress)

        async def all_heard() -> bool:
            return len(heard) == 3 and len(messages) == 1

        await eventually_async(all_heard, what="all that was said has arrived")
    assert result.structured_content == ("all of it" if mode == "auto" else {"result": "all of it"})
    assert [message for _, _, message in heard] == ["a quarter", '{"line":1}', "three quarters"]
    assert [progress for progress, _, _ in heard] == sorted({progress for progress, _, _ in heard})
    assert heard[0][:2] == (0.25, 1.0)
    assert messages == [{"line": 1}]


async def test_the_other_fields_of_a_task_come_as_metadata_and_a_repeated_key_is_the_same_task(
    central: RuntimeProcess,
) -> None:
    meta = ours(priority=7, tenant="acme", idempotencyKey="once")
    async with client(central) as connected:
        first = await connected.call_tool("open", {"about": "me"}, meta=meta)
        again = await connected.call_tool("open", {"about": "me"}, meta=meta)
        with pytest.raises(MCPError, match=r"kubeagents\.dev/priority: Input should be") as refusal:
            await connected.call_tool("open", {"about": "me"}, meta=ours(priority=99))
        with pytest.raises(MCPError, match="decided by the tool"):
            await connected.call_tool("open", {"about": "me"}, meta=ours(agent="x"))
    assert first.structured_content == again.structured_content
    assert (said(first)["priority"], said(first)["tenant"]) == (7, "acme")
    assert refusal.value.data == {"code": "INVALID_TASK", "field": "_meta.kubeagents.dev/priority"}


async def test_a_task_expires_at_its_deadline(central: RuntimeProcess, tmp_path: Path) -> None:
    deadline = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    async with client(central) as connected:
        meta: Any = {"kubeagents.dev/deadline": deadline}
        result = await connected.call_tool("gated", {"folder": str(tmp_path)}, meta=meta)
    assert result.is_error
    assert said(result)["code"] == "DEADLINE_EXCEEDED"


async def test_a_client_that_gives_up_cancels_its_task(central: RuntimeProcess, tmp_path: Path) -> None:
    async with client(central) as connected:
        call = asyncio.create_task(connected.call_tool("gated", {"folder": str(tmp_path)}))
        await happens(tmp_path, "started-")
        call.cancel()
        await happens(tmp_path, "cancelled-")
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_an_older_client_that_loses_its_connection_has_not_cancelled(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    async with client(central, "legacy") as connected:
        call = asyncio.create_task(connected.call_tool("gated", {"folder": str(tmp_path)}))
        task_id = (await happens(tmp_path, "started-")).removeprefix("started-")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    (tmp_path / "open").touch()
    assert final(central, task_id)[0]["state"] == "succeeded"


async def test_a_call_that_shall_not_wait_is_answered_with_where_the_result_will_be(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    meta: Any = {"kubeagents.dev/waitSeconds": 0}
    async with client(central, "legacy") as connected:
        result = await connected.call_tool("gated", {"folder": str(tmp_path)}, meta=meta)
        link = next(content for content in result.content if isinstance(content, ResourceLink))
        (tmp_path / "open").touch()
        final(central, said(result)["id"])
        record = await resource(connected, str(link.uri))
    assert (record["state"], record["result"]) == ("succeeded", {"by": "gated-1"})


async def test_queues_and_tasks_are_resources(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        (queue,) = (await connected.list_resources()).resources
        templates = [one.uri_template for one in (await connected.list_resource_templates()).resource_templates]
        assert templates == ["kubeagents://queues/{queue}/tasks/{task}", "kubeagents://queues/{queue}"]
        (task_id,) = submit(central, {"x": 1}, agent="nobody")
        assert (await resource(connected, str(queue.uri)))["queued"] == 1
        assert (await resource(connected, f"{queue.uri}/tasks/{task_id}"))["payload"] == {"x": 1}
        for unknown in (
            f"{queue.uri}/tasks/none",
            "kubeagents://queues/none",
            "kubeagents://else",
            "file:///etc/passwd",
        ):
            with pytest.raises(MCPError) as refusal:
                await connected.read_resource(unknown)
            assert refusal.value.code == -32602


async def test_a_mebibyte_goes_there_and_back(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        given = {"text": "x" * (1024 * 1024 - 100)}
        assert (await connected.call_tool("open", given)).structured_content == given
        with pytest.raises(MCPError) as refusal:
            await connected.call_tool("open", {"text": "x" * (1024 * 1024 + 100)})
        assert refusal.value.data["code"] == "PAYLOAD_TOO_LARGE"


async def test_two_replicas_serve_one_client_by_turns(central: RuntimeProcess, other: RuntimeProcess) -> None:
    turns = itertools.cycle([central.port, other.port])

    async def to_the_next(request: httpx2.Request) -> None:
        request.url = request.url.copy_with(port=next(turns))

    for mode in MODES:
        async with (
            httpx2.AsyncClient(event_hooks={"request": [to_the_next]}, timeout=60) as http,
            Client(streamable_http_client(f"{central.base_url}/mcp", http_client=http), mode=mode) as connected,
        ):
            for number in range(6):
                result = await connected.call_tool("adder", {"numbers": [number]})
                assert said(result)["sum"] == number


async def test_a_call_that_waits_when_the_pod_stops_says_where_the_task_goes_on(system: System, tmp_path: Path) -> None:
    central = system.central(instance="mcp-1", endpoints=ENDPOINTS).ready()
    other = system.central(instance="mcp-2", endpoints=ENDPOINTS).ready()
    system.agent("tools:gated", name="gated")
    async with client(central) as connected:
        await appear(connected, "gated")
        call = asyncio.create_task(connected.call_tool("gated", {"folder": str(tmp_path)}))
        await happens(tmp_path, "started-")
        central.signal(signal.SIGTERM)
        with pytest.raises(MCPError, match="goes on: read its result at kubeagents://") as cut:
            await call
    assert cut.value.data["code"] == "DRAINING"
    assert await asyncio.to_thread(central.exit_code) == 0
    (tmp_path / "open").touch()
    queue, task_id = cut.value.data["taskId"].split("/")
    assert final(other, task_id)[0]["result"] == {"by": "gated-1"}
    async with client(other) as connected:
        assert (await resource(connected, f"kubeagents://queues/{queue}/tasks/{task_id}"))["state"] == "succeeded"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff\xfe", 400, -32700),
        (b"[]", 400, -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "tools/list"}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', 400, None),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "no/such", "params": %META%}', 404, -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": %META%}', 400, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}', 400, -32600),
        (b"[" * 100_000, 400, -32700),
    ],
)
def test_what_is_no_request_is_refused_with_an_error_of_json_rpc(
    central: RuntimeProcess, body: bytes, status: int, code: int | None
) -> None:
    meta = {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    }
    content = body.replace(b"%META%", json.dumps(meta).encode())
    method = re.search(rb'"method": "([^"]+)"', content)
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method[1].decode() if method else "tools/list",
    }
    answer = httpx.post(f"{central.base_url}/mcp", content=content, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert code is None or error["code"] == code, error
    assert "Traceback" not in answer.text
    older = {name: value for name, value in headers.items() if not name.startswith("mcp-")}
    answer = httpx.post(f"{central.base_url}/mcp", content=content, headers=older, timeout=60, trust_env=False)
    assert answer.status_code < 500, answer.text
    assert not central.logged("went wrong"), central.lines


def test_a_web_page_of_somebody_else_gets_nothing(central: RuntimeProcess) -> None:
    url = f"{central.base_url}/mcp"
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}

    def status(**headers: str) -> int:
        sent = {"accept": "application/json, text/event-stream", **headers}
        return httpx.post(url, json=body, headers=sent, timeout=60, trust_env=False).status_code

    assert status(origin="http://evil.example") == 403
    assert status(host="evil.example") == 421
    assert status(origin="http://localhost:3000") == 200
    assert httpx.post(f"{url}/more", json=body, timeout=60, trust_env=False).status_code == 404
    assert httpx.post(url, content=b"x" * (2 * 1024 * 1024), timeout=60, trust_env=False).status_code == 413
