# SPDX-License-Identifier: Apache-2.0
"""The tasks extension of MCP: call, leave, and ask another pod later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_mcp import ENDPOINTS, PATIENCE, happens, ours, redis_of_its_own
from tests.support.eventually import eventually, eventually_async
from tests.support.runtime_process import RuntimeProcess

EXTENSION = "io.modelcontextprotocol/tasks"


class Created(Result):
    """What a call becomes."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = "task"
    taskId: str
    status: str


class Details(Result):
    model_config = ConfigDict(extra="allow")


class TaskParams(RequestParams):
    model_config = ConfigDict(extra="allow")


class TaskRequest(Request[TaskParams, str]):
    """tasks/get and so on."""

    name_param = "taskId"


async def unresolved(created: Created, context: ClaimContext) -> CallToolResult:
    raise AssertionError("the tests look at tasks themselves")


class Tasks(ClientExtension):
    """The extension, as far as the tests need it."""

    identifier = EXTENSION

    def claims(self) -> list[ResultClaim[Created]]:
        return [ResultClaim(result_type="task", model=Created, resolve=unresolved)]


@contextlib.asynccontextmanager
async def client(central: RuntimeProcess, *, knows: bool = True) -> AsyncIterator[Client]:
    async with Client(f"{central.base_url}/mcp", extensions=[Tasks()] if knows else None) as connected:
        yield connected


async def ask(connected: Client, method: str, task_id: str) -> dict[str, Any]:
    request = TaskRequest(method=method, params=TaskParams.model_validate({"taskId": task_id, "inputResponses": {}}))
    return (await connected.session.send_request(request, Details)).model_dump(by_alias=True)


@pytest.fixture(scope="module")
def stage(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with redis_of_its_own(redis_binary, tmp_path_factory.mktemp("mcp-tasks")) as system:
        system.agent("tools:gated", name="gated")
        system.agent("tools:anything", name="open")
        yield system


@pytest.fixture(scope="module")
def central(stage: System) -> RuntimeProcess:
    pod = stage.central(instance="mcp-1", endpoints=ENDPOINTS).ready()
    eventually(lambda: len(pod.get("/v1/agents").json()) == 2, what="all agents are there", timeout=PATIENCE)
    return pod


@pytest.fixture(scope="module")
def other(stage: System, central: RuntimeProcess) -> RuntimeProcess:
    return stage.central(instance="mcp-2", endpoints=ENDPOINTS).ready()


async def call_gated(connected: Client, folder: Path, **fields: Any) -> Created:
    """A call that has become a task."""
    created = await connected.session.call_tool(
        "gated", {"folder": str(folder)}, allow_claimed=True, meta=ours(waitSeconds=0, **fields)
    )
    assert isinstance(created, Created), created
    return created


async def test_a_call_becomes_a_task_whose_result_another_pod_has(
    central: RuntimeProcess, other: RuntimeProcess, tmp_path: Path
) -> None:
    async with client(central) as connected:
        assert EXTENSION in (connected.server_capabilities.extensions or {})
        created = await call_gated(connected, tmp_path)
        assert created.status == "working"
        await happens(tmp_path, "started-")
    async with client(other) as connected:

        async def at_the_gate() -> bool:
            found = await ask(connected, "tasks/get", created.taskId)
            return "running 50%: at the gate" in found["statusMessage"]

        await eventually_async(at_the_gate, what="its progress shows", timeout=PATIENCE)
        (tmp_path / "open").touch()

        async def completed() -> dict[str, Any]:
            found = await ask(connected, "tasks/get", created.taskId)
            assert found["status"] == "completed", found
            return found

        found = await eventually_async(completed, what="the task is completed", timeout=PATIENCE)
    assert found["result"]["structuredContent"] == {"by": "gated-1"}
    assert not found["result"]["isError"]
    assert found["_meta"]["kubeagents.dev/task"]["state"] == "succeeded"
    assert found["resultType"] == "complete"
    assert found["ttlMs"] is None


async def test_a_task_is_cancelled_from_another_pod(
    central: RuntimeProcess, other: RuntimeProcess, tmp_path: Path
) -> None:
    async with client(central) as connected:
        deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        created = await call_gated(connected, tmp_path, deadline=deadline)
        await happens(tmp_path, "started-")
    async with client(other) as connected:
        assert 0 < (await ask(connected, "tasks/get", created.taskId))["ttlMs"] <= 3_600_000
        await ask(connected, "tasks/update", created.taskId)
        await ask(connected, "tasks/cancel", created.taskId)
        assert (await ask(connected, "tasks/get", created.taskId))["status"] == "cancelled"
    await happens(tmp_path, "cancelled-")


async def test_what_is_done_in_a_moment_needs_no_task_and_what_fails_is_completed_with_an_error(
    central: RuntimeProcess,
) -> None:
    async with client(central) as connected:
        result = await connected.call_tool("open", {"x": 1}, meta=ours(waitSeconds=PATIENCE))
        assert result.structured_content == {"x": 1}
        created = await connected.session.call_tool(
            "open", {"refuse": "no"}, allow_claimed=True, meta=ours(waitSeconds=0)
        )
        if isinstance(created, Created):  # else it was done within no time at all

            async def ended() -> dict[str, Any]:
                found = await ask(connected, "tasks/get", created.taskId)
                return found if found["status"] != "working" else {}

            found = await eventually_async(ended, what="the task has ended", timeout=PATIENCE)
            assert found["status"] == "completed"
            assert found["result"]["isError"]
            assert found["statusMessage"] == "failed: PermanentError: no"
            assert found["_meta"]["kubeagents.dev/task"]["state"] == "failed"


async def test_a_client_that_does_not_say_that_it_knows_tasks_gets_none_and_may_not_ask(
    central: RuntimeProcess, tmp_path: Path
) -> None:
    async with client(central, knows=False) as connected:
        call = asyncio.create_task(connected.call_tool("gated", {"folder": str(tmp_path)}))
        task_id = (await happens(tmp_path, "started-")).removeprefix("started-")
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            with pytest.raises(MCPError) as refusal:
                await ask(connected, method, f"main/{task_id}")
            assert refusal.value.code == -32021
            assert refusal.value.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        (tmp_path / "open").touch()
        assert (await call).structured_content == {"by": "gated-1"}


async def test_a_task_that_is_not_there_is_named(central: RuntimeProcess) -> None:
    async with client(central) as connected:
        for task_id in ("main/none", "none", "nowhere/x", "main/x/y", "/", ""):
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                with pytest.raises(MCPError) as refusal:
                    await ask(connected, method, task_id)
                assert refusal.value.code == -32602


async def test_an_older_client_knows_no_such_methods(central: RuntimeProcess) -> None:
    async with Client(f"{central.base_url}/mcp", mode="legacy") as connected:
        with pytest.raises(MCPError) as refusal:
            await ask(connected, "tasks/get", "main/none")
    assert refusal.value.code == -32601
