# SPDX-License-Identifier: Apache-2.0
"""`kubeagents mcp stdio`, started by a client of MCP as such clients start their servers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import TextResourceContents

from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_mcp import ENDPOINTS, PATIENCE, happens, ours, redis_of_its_own
from tests.support.eventually import eventually, eventually_async
from tests.support.runtime_process import RuntimeProcess

KEY = "the-key-of-the-admin"
COMMAND = ["-m", "agent_runtime.cli.main", "mcp", "stdio"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stdio")
    (folder / "keys" / "dora").mkdir(parents=True)
    (folder / "keys" / "dora" / "key").write_text(KEY)
    return folder


@pytest.fixture(scope="module")
def stage(redis_binary: Path, folder: Path) -> Iterator[System]:
    with redis_of_its_own(redis_binary, folder) as system:
        system.agent("tools:add", name="adder")
        system.agent("tools:report", name="reporter")
        system.agent("tools:gated", name="gated")
        yield system


@pytest.fixture(scope="module")
def central(stage: System) -> RuntimeProcess:
    pod = stage.central(instance="mcp-1", endpoints=ENDPOINTS).ready()
    eventually(lambda: len(pod.get("/v1/agents").json()) == 3, what="all agents are there", timeout=PATIENCE)
    return pod


def bridge(url: str, *options: str, key: str = "") -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=[*COMMAND, "--server", url, *options],
        env={**os.environ, "KUBEAGENTS_KEY": key},
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_agents_are_tools_of_a_client_that_starts_the_command(central: RuntimeProcess, mode: str) -> None:
    heard: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with Client(bridge(central.base_url), mode=mode) as connected:
        assert "gives a task to an agent" in (connected.instructions or "")
        assert [tool.name for tool in (await connected.list_tools()).tools] == ["adder", "gated", "reporter"]
        result = await connected.call_tool("adder", {"numbers": [1, 2]}, meta=ours(priority=8))
        assert result.structured_content == {"sum": 3, "currency": "EUR"}
        assert result.meta is not None
        (content,) = (await connected.read_resource(result.meta["kubeagents.dev/task"]["uri"])).contents
        assert isinstance(content, TextResourceContents)
        assert json.loads(content.text)["priority"] == 8
        assert len((await connected.list_resources()).resources) == 1
        assert len((await connected.list_resource_templates()).resource_templates) == 2
        await connected.call_tool("reporter", {}, progress_callback=on_progress)
        with pytest.raises(MCPError, match="there is no tool 'nobody'"):
            await connected.call_tool("nobody", {})

        async def all_heard() -> bool:
            return heard == ["a quarter", '{"line":1}', "three quarters"]

        await eventually_async(all_heard, what="all progress", timeout=PATIENCE)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_that_is_given_up_is_cancelled(central: RuntimeProcess, tmp_path: Path, mode: str) -> None:
    async with Client(bridge(central.base_url), mode=mode) as connected:
        call = asyncio.create_task(connected.call_tool("gated", {"folder": str(tmp_path)}))
        await happens(tmp_path, "started-")
        call.cancel()
        await happens(tmp_path, "cancelled-")
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_it_shows_a_key_and_goes_on_when_the_server_comes_back(
    stage: System, central: RuntimeProcess, folder: Path
) -> None:
    access = AccessSettings(principals=[Principal(name="dora", role="admin", keys_from=LocalRef(name="dora"))])
    settings: dict[str, Any] = {"endpoints": ENDPOINTS, "access": access, "keys_path": str(folder / "keys")}
    pod = stage.central(instance="mcp-2", **settings).ready()
    url = pod.base_url
    key_file = folder / "keys" / "dora" / "key"
    async with Client(bridge(url, "--key-file", str(key_file))) as connected:
        assert not (await connected.call_tool("adder", {"numbers": [1]})).is_error
        pod.running.kill()
        await asyncio.to_thread(pod.exit_code)
        with pytest.raises(MCPError, match="does not answer"):
            await connected.call_tool("adder", {"numbers": [1]})
        stage.central(instance="mcp-3", **settings, port=pod.port).ready()
        assert not (await connected.call_tool("adder", {"numbers": [1]})).is_error


@pytest.mark.parametrize(
    ("key", "port", "words"),
    [("", 0, "UNAUTHENTICATED|API key"), ("wrong", 0, "API key"), (KEY, 1, "does not answer")],
)
def test_what_cannot_work_is_said_at_once(
    stage: System, folder: Path, tmp_path: Path, key: str, port: int, words: str
) -> None:
    access = AccessSettings(principals=[Principal(name="dora", role="admin", keys_from=LocalRef(name="dora"))])
    url = "http://127.0.0.1:1"
    if not port:
        pod = stage.central(
            instance=f"mcp-{tmp_path.name}", endpoints=ENDPOINTS, access=access, keys_path=str(folder / "keys")
        ).ready()
        url = pod.base_url
    done = subprocess.run(
        [sys.executable, *COMMAND, "--server", url],
        env={**os.environ, "KUBEAGENTS_KEY": key},
        input="",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: "), done.stderr
    assert any(word in done.stderr for word in words.split("|")), done.stderr
    assert "Traceback" not in done.stderr
