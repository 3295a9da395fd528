# SPDX-License-Identifier: Apache-2.0
"""Handlers that take several tasks at a time."""

import asyncio
import logging
import sys
from typing import Any

import pytest

from agent_runtime.agent import BatchContext, StopReason, Task
from agent_runtime.queue.base import TaskQueue
from agent_runtime.testing import memory_queue, running
from agent_runtime.worker import Consumer
from kubeagents_api.agent import BatchSettings
from kubeagents_api.errors import PermanentError, TemporaryError
from kubeagents_api.task import TaskRecord, TaskRequest
from kubeagents_api.task_queue import RetryPolicy
from tests.support.eventually import eventually_async

ONE_TRY = RetryPolicy(max_attempts=1, initial_seconds=0, max_seconds=0)
FOUR = BatchSettings(max_tasks=4, wait_seconds=30)
"""As many as a test submits: a batch begins when they are there."""


async def submitted(queue: TaskQueue, *payloads: Any, **fields: Any) -> list[str]:
    return await queue.submit([TaskRequest(payload=payload, **fields) for payload in payloads])


async def ended(queue: TaskQueue, ids: list[str]) -> list[TaskRecord]:
    records = await queue.wait(ids, timeout_seconds=20)
    assert all(record.state.final for record in records), records
    return records


async def running_tasks(consumer: Consumer, number: int) -> bool:
    return consumer.running == number


def told(record: TaskRecord) -> Any:
    """Its result, or the code and message of its failure."""
    return (record.failures[-1].code, record.failures[-1].message) if record.failures else record.result


async def sizes(tasks: list[Task], ctx: BatchContext) -> list[Any]:
    """How many there were, and the payload of each."""
    return [[len(tasks), task.payload] for task in tasks]


@pytest.mark.parametrize(
    ("settings", "concurrency", "expected"),
    [
        (BatchSettings(max_tasks=4), 16, [4, 4, 4, 4, 4, 4, 4, 4, 2, 2]),
        (BatchSettings(max_tasks=100), 16, [10] * 10),
        (BatchSettings(max_tasks=100, wait_seconds=30), 5, [5] * 10),
        (BatchSettings(max_tasks=8, wait_seconds=0.01), 16, [8] * 8 + [2, 2]),
    ],
    ids=["takes what is there", "all fit", "no more than the concurrency", "the rest waits a little"],
)
async def test_tasks_come_in_batches(settings: BatchSettings, concurrency: int, expected: list[int]) -> None:
    async with memory_queue() as queue:
        ids = await submitted(queue, *range(10))
        async with running(sizes, queue, batch=settings, concurrency=concurrency):
            records = await ended(queue, ids)
    assert [record.result for record in records] == [[size, n] for n, size in enumerate(expected)]


async def test_the_first_task_waits_for_others_only_so_long() -> None:
    async with memory_queue() as queue, running(sizes, queue, batch=BatchSettings(max_tasks=4, wait_seconds=0.1)):
        first = await submitted(queue, 1)
        second = await submitted(queue, 2)
        assert [record.result for record in await ended(queue, first + second)] == [[2, 1], [2, 2]]


async def test_a_drain_does_not_wait_for_a_batch_to_fill() -> None:
    async with memory_queue() as queue:
        async with running(sizes, queue, batch=FOUR, drain_seconds=10) as consumer:
            ids = await submitted(queue, 1)
            await eventually_async(lambda: running_tasks(consumer, 1), what="it gathers")
        assert [record.result for record in await ended(queue, ids)] == [[1, 1]]


async def test_an_element_that_is_an_exception_fails_that_task_only() -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        return ["fine", PermanentError("never"), TemporaryError("not now", delay=0), {1, 2}]

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue, batch=FOUR):
        records = await ended(queue, await submitted(queue, *range(4)))
    assert [record.state for record in records] == ["succeeded", "failed", "dead", "failed"]
    assert [told(record) for record in records[:3]] == [
        "fine",
        ("FAILED", "PermanentError: never"),
        ("UNAVAILABLE", "TemporaryError: not now"),
    ]
    assert records[3].failures[-1].code == "RESULT_NOT_JSON"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1, 2, 3], "the batch handler returned 3 results for 4 tasks: return a list with one for each"),
        (None, "the batch handler returned NoneType, no list for 4 tasks"),
        ({"a": 1}, "the batch handler returned dict, no list for 4 tasks"),
    ],
)
async def test_a_wrong_number_of_results_fails_all_for_good(returned: Any, message: str) -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> Any:
        return returned

    async with memory_queue() as queue, running(handle, queue, batch=FOUR):
        records = await ended(queue, await submitted(queue, *range(4)))
    assert {record.state for record in records} == {"failed"}
    for record in records:
        code, text = told(record)
        assert (code, message in text) == ("BATCH_RESULT_INVALID", True)


@pytest.mark.parametrize(
    ("error", "state", "expected"),
    [
        (PermanentError("never"), "failed", ("FAILED", "PermanentError: never")),
        (ValueError("bad"), "dead", ("FAILED", "ValueError: bad")),
        (SystemExit(3), "dead", ("FAILED", "SystemExit: 3")),
    ],
    ids=["permanent", "error", "exit"],
)
async def test_an_exception_fails_all_and_is_logged_once(
    error: BaseException, state: str, expected: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        raise error

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue, batch=FOUR):
        records = await ended(queue, await submitted(queue, *range(4)))
    assert [(record.state, told(record)) for record in records] == [(state, expected)] * 4
    assert caplog.text.count("a batch of 4 tasks (") == 1


async def test_the_shortest_timeout_ends_the_batch() -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        await asyncio.Event().wait()
        return []

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue, batch=FOUR):
        ids = await submitted(queue, 1, 2, 3)
        ids += await submitted(queue, 4, timeout_seconds=0.05)
        records = await ended(queue, ids)
    assert {told(record) for record in records} == {
        ("TIMEOUT", "the batch was not done within 0.05 s, so it was cancelled")
    }


async def test_a_task_of_a_batch_that_is_cancelled_shows_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    begun = asyncio.Event()
    seen: list[Any] = []

    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        assert ctx.cancelled_ids == frozenset()
        begun.set()
        reason = await ctx.of(tasks[1]).cancelled.wait()
        seen.append((reason, ctx.cancelled_ids == {tasks[1].id}))
        return [task.payload for task in tasks]

    async with memory_queue() as queue, running(handle, queue, batch=FOUR):
        ids = await submitted(queue, *"abcd")
        await begun.wait()
        await queue.cancel([ids[1]], by="the test")
        records = await ended(queue, ids)
    assert seen == [(StopReason.CANCELLED, True)]
    assert [(record.state, record.result) for record in records] == [
        ("succeeded", "a"),
        ("cancelled", None),
        ("succeeded", "c"),
        ("succeeded", "d"),
    ]
    assert caplog.text.count(f"task {ids[1]} was cancelled: attempt 1 is dropped") == 1
    assert "ignores its cancellation" not in caplog.text


async def test_a_batch_that_nobody_wants_any_more_is_cancelled() -> None:
    begun = asyncio.Event()
    stopped = asyncio.Event()

    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled_ids == {task.id for task in tasks}
            stopped.set()
        return []

    async with memory_queue() as queue, running(handle, queue, batch=FOUR):
        ids = await submitted(queue, *range(4))
        await begun.wait()
        await queue.cancel(ids[:3], by="the test")
        await asyncio.sleep(0)
        assert not stopped.is_set()
        await queue.cancel(ids[3:], by="the test")
        await asyncio.wait_for(stopped.wait(), 5)


async def test_a_task_that_is_cancelled_while_it_gathers_is_left_out() -> None:
    async with memory_queue() as queue, running(sizes, queue, batch=FOUR) as consumer:
        first = await submitted(queue, "out")
        await eventually_async(lambda: running_tasks(consumer, 1), what="it gathers")
        await queue.cancel(first, by="the test")
        await eventually_async(lambda: running_tasks(consumer, 0), what="it has left")
        ids = await submitted(queue, *"abcd")
        assert [record.result for record in await ended(queue, ids)] == [[4, letter] for letter in "abcd"]


async def test_each_task_of_a_batch_has_its_own_context() -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        for task in tasks:
            await ctx.of(task).progress(0.5, f"at {task.payload}")
            await ctx.of(task).partial(task.payload)
        parents = await ctx.of(tasks[3]).parents()
        return [ctx.agent, ctx.queue, ctx.instance, [parent.result for parent in parents.values()]]

    async with memory_queue() as queue:
        async with running(sizes, queue, agent="first", batch=BatchSettings()):
            await ended(queue, await queue.submit([TaskRequest(id="parent", agent="first", payload="p")]))
        async with running(handle, queue, batch=FOUR):
            ids = await submitted(queue, *"abc")
            ids += await submitted(queue, "d", depends_on=["parent"])
            records = await ended(queue, ids)
        said = [[item.data async for item in queue.stream(task_id)] for task_id in ids]
    assert [record.result for record in records] == ["agent", "tests", "agent-1", [[1, "p"]]]
    assert said == [[{"fraction": 0.5, "message": f"at {letter}"}, letter] for letter in "abcd"]


async def test_a_batch_handler_can_call_others() -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        return list(await asyncio.gather(*(ctx.call(task.payload, agent="other") for task in tasks)))

    async with (
        memory_queue() as queue,
        running(handle, queue, batch=FOUR),
        running(sizes, queue, agent="other", batch=BatchSettings()),
    ):
        records = await ended(queue, await submitted(queue, *range(4), agent="agent"))
    assert [record.result[1] for record in records if isinstance(record.result, list)] == [0, 1, 2, 3]


async def test_leaving_the_process_from_a_batch_fails_its_tasks_only() -> None:
    async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
        if tasks[0].payload == "exit":
            sys.exit(1)
        return [None] * len(tasks)

    async with memory_queue(retry=ONE_TRY) as queue, running(handle, queue, batch=BatchSettings(max_tasks=1)):
        first, second = await ended(queue, await submitted(queue, "exit", "stay"))
    assert (first.state, second.state) == ("dead", "succeeded")
