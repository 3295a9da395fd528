# SPDX-License-Identifier: Apache-2.0
"""The page about handlers shows what works: its code is run as it stands there."""

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.agent import Context, Task
from agent_runtime.testing import memory_queue, outcome, result, running
from kubeagents_api.agent import AgentSpec
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import RetryPolicy
from tests.support.eventually import eventually_async

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "write-handlers.md"
ONE_TRY = RetryPolicy(max_attempts=1)


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What its blocks define, one after the other."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - that it runs is the test
    return names


async def test_what_the_payload_is_is_checked_and_shown(page: dict[str, Any]) -> None:
    async with memory_queue() as queue, running(page["pack"], queue, agent="packer"):
        assert await result(queue, TaskRequest(payload={"items": ["a", "b"], "express": True})) == "2 items, express"
        refused = await outcome(queue, TaskRequest(payload={"items": []}))
        (shown,) = await queue.interfaces()
    assert refused.failures[0].code == "INVALID_PAYLOAD"
    assert "items: List should have at least 1 item" in refused.failures[0].message
    assert (shown.description, shown.input_schema["required"]) == ("Packs an order.", ["items"])


@pytest.mark.parametrize("name", ["test_it_counts", "test_a_payload_without_a_page_fails_at_once"])
async def test_the_tests_on_the_page_pass(page: dict[str, Any], name: str) -> None:
    await page[name]()


async def test_the_page_says_how_to_fail(page: dict[str, Any]) -> None:
    async with memory_queue(retry=ONE_TRY) as queue, running(page["fetch"], queue):
        assert await result(queue, TaskRequest(payload={"page": "home"})) == "content of home"
        busy = await outcome(queue, TaskRequest(payload={"page": "busy"}))
    assert (busy.state, busy.failures[-1].message) == ("dead", "TemporaryError: the server is busy")


async def test_the_page_says_how_to_hand_out_parts(page: dict[str, Any]) -> None:
    async with memory_queue() as queue, running(page["translate"], queue):
        record = await outcome(queue, TaskRequest(payload={"lines": ["a", "b"]}))
        parts = [item.data async for item in queue.stream(record.id) if item.kind == "partial"]
    assert (record.result, parts) == ("A\nB", ["A", "B"])


async def test_the_page_says_how_to_stop(page: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    begun = asyncio.Event()

    async def told() -> bool:
        return "stopping: cancelled" in caplog.text

    async def train(task: Task, ctx: Context) -> Any:
        begun.set()
        return await page["train"](task, ctx)

    async with memory_queue() as queue, running(train, queue):
        assert await result(queue, TaskRequest(payload={"seconds": 0})) == "trained"
        begun.clear()
        (task_id,) = await queue.submit([TaskRequest(payload={"seconds": 3600})])
        await begun.wait()
        await queue.cancel([task_id], by="the test")
        await eventually_async(told, what="the handler is told")


async def test_the_page_says_how_to_stop_a_thread(page: dict[str, Any]) -> None:
    async with memory_queue() as queue, running(page["add_up"], queue):
        assert await result(queue, TaskRequest(payload=[1, 2, 3])) == 6


async def test_the_page_says_how_agents_work_together(page: dict[str, Any]) -> None:
    async with (
        memory_queue() as queue,
        running(page["delegate"], queue, agent="boss"),
        running(count_or_reload(page["count"]), queue, agent="counter"),
        running(page["total"], queue, agent="adder"),
    ):
        job = TaskRequest(id="job", agent="boss", payload={"texts": ["a b c", "d e"]})
        answer = await result(queue, job)
        (summary,) = await queue.wait([answer["sum"]], timeout_seconds=20)
    assert (answer["answer"], answer["told"], summary.result) == ({"words": 2}, 1, 5)


def count_or_reload(count: Any) -> Any:
    async def handle(task: Any, ctx: Any) -> Any:
        return None if "reload" in task.payload else await count(task, ctx)

    return handle


async def test_the_page_says_how_to_take_several_tasks(page: dict[str, Any]) -> None:
    (manifest,) = (yaml.safe_load(block)["spec"] for block in blocks("yaml"))
    spec = AgentSpec.model_validate({"queueRef": {"name": "tasks"}, **manifest})
    async with memory_queue() as queue:
        ids = await queue.submit([TaskRequest(payload=payload) for payload in ("abc", 1, "de")])
        async with running(page["embed"], queue, batch=spec.batch, concurrency=spec.concurrency):
            records = await queue.wait(ids, timeout_seconds=20)
    assert [record.result for record in records] == [[3, 3], None, [2, 3]]
    assert records[1].failures[-1].message == "PermanentError: the payload must be a text"
