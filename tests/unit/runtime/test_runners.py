# SPDX-License-Identifier: Apache-2.0
"""What handlers share, and do not: several attempts may run in one asyncio task, one after the other."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from agent_runtime.agent import Context, Task
from agent_runtime.testing import memory_queue, outcome, running
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import RetryPolicy

who: ContextVar[str] = ContextVar("who", default="nobody")
ONE_TRY = RetryPolicy(max_attempts=1)


async def results(handler: Any, *payloads: Any, concurrency: int = 16, **fields: Any) -> list[Any]:
    """What the handler makes of each payload; the last failure's message where it fails."""
    async with memory_queue(retry=ONE_TRY) as queue:
        ids = await queue.submit([TaskRequest(payload=payload, **fields) for payload in payloads])
        async with running(handler, queue, concurrency=concurrency):
            records = await queue.wait(ids, timeout_seconds=20)
    return [record.failures[-1].message if record.failures else record.result for record in records]


async def test_what_a_handler_sets_in_a_context_variable_no_other_sees() -> None:
    async def handle(task: Task, ctx: Context) -> str:
        found = who.get()
        who.set(task.payload)
        if task.payload.startswith("waits"):
            await asyncio.sleep(0)
            found += f", then {who.get()}"
        return found

    payloads = ["a", "waits 1", "b", "waits 2", "c"]
    assert await results(handle, *payloads) == [
        "nobody",
        "nobody, then waits 1",
        "nobody",
        "nobody, then waits 2",
        "nobody",
    ]


async def test_a_handler_that_waits_holds_up_no_other() -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    async def handle(task: Task, ctx: Context) -> None:
        seen.append(task.payload)
        if task.payload == "opens":
            gate.set()
        await gate.wait()

    assert await results(handle, "waits", "waits", "waits", "opens", concurrency=4) == [None] * 4
    assert seen == ["waits", "waits", "waits", "opens"]


async def test_timeouts_and_task_groups_inside_a_handler_work() -> None:
    async def handle(task: Task, ctx: Context) -> Any:
        async def child(number: int) -> int:
            await asyncio.sleep(0)
            return number

        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            async with asyncio.TaskGroup() as group:
                children = [group.create_task(child(number)) for number in range(3)]
            return [one.result() for one in children]

    assert await results(handle, 1, 2, 3) == [[0, 1, 2]] * 3


async def test_handlers_that_wait_do_so_in_tasks_of_their_own() -> None:
    tasks: set[object] = set()

    async def handle(task: Task, ctx: Context) -> None:
        await asyncio.sleep(0)
        tasks.add(asyncio.current_task())

    await results(handle, *range(20), concurrency=2)
    assert len(tasks) == 20


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_cancels_its_own_task_fails_alone(waits: bool) -> None:
    async def handle(task: Task, ctx: Context) -> str:
        if task.payload == "cancels":
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            if waits:
                await asyncio.sleep(0)
        return "done"

    cancelled = "CancelledError" if waits else "done"
    assert await results(handle, "x", "cancels", "x", "x") == ["done", cancelled, "done", "done"]


async def test_a_handler_may_be_any_async_callable() -> None:
    class Answer:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return 42

    def handle(task: Task, ctx: Context) -> Answer:
        return Answer()

    assert await results(handle, 1, 2) == [42, 42]


async def test_handlers_that_never_wait_leave_turns_to_others() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def handle(task: Task, ctx: Context) -> int:
        until = asyncio.get_running_loop().time() + 0.006
        while asyncio.get_running_loop().time() < until:
            pass
        return turns

    counting = asyncio.create_task(count())
    seen = await results(handle, *range(10), concurrency=10)
    counting.cancel()
    assert len(set(seen)) >= 5, "the loop turned between them"


async def test_the_task_says_all_that_was_submitted() -> None:
    tasks: list[Task] = []

    async def handle(task: Task, ctx: Context) -> None:
        tasks.append(task)

    parent = TaskRequest(id="parent")
    request = TaskRequest(id="child", type="kind", payload={"n": 1}, priority=7, tenant="acme", depends_on=["parent"])
    async with memory_queue() as queue, running(handle, queue):
        await queue.submit([parent])
        record = await outcome(queue, request)
    task = tasks[-1]
    assert (task.id, task.type, task.payload, task.priority) == ("child", "kind", {"n": 1}, 7)
    assert (task.attempt, task.max_attempts, task.tenant, task.depends_on) == (1, 3, "acme", ("parent",))
    assert (task.created_at, task.deadline) == (record.created_at, None)
