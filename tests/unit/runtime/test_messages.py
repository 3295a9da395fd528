# SPDX-License-Identifier: Apache-2.0
"""Agents that talk to one another."""

import asyncio
from typing import Any

import pytest

from agent_runtime.agent import Context, StopReason, Task
from agent_runtime.queue.base import TaskQueue
from agent_runtime.testing import memory_queue, outcome, result, running
from kubeagents_api.errors import InvalidTaskError, PermanentError, TemporaryError
from kubeagents_api.task import TaskRecord, TaskRequest, TaskState
from kubeagents_api.task_queue import RetryPolicy

ONE_TRY = RetryPolicy(max_attempts=1)


async def about(task: Task, ctx: Context) -> dict[str, Any]:
    """Says who got what."""
    return {"by": ctx.instance, "agent": ctx.agent, "queue": ctx.queue, "payload": task.payload}


async def fails(task: Task, ctx: Context) -> None:
    """Ends as the payload says."""
    match task.payload:
        case "permanent":
            raise PermanentError("never")
        case "temporary":
            raise TemporaryError("not now")
        case "error":
            raise ValueError("bad")
        case _:
            await asyncio.Event().wait()


async def calls(task: Task, ctx: Context) -> Any:
    """Passes its payload on to the agent `other`, and its result back."""
    return await ctx.call(task.payload, agent="other", timeout_seconds=0.05 if task.payload == "slow" else 20)


async def ended(queue: TaskQueue, *ids: str) -> list[TaskRecord]:
    records = await queue.wait(ids, timeout_seconds=20)
    assert all(record.state.final for record in records), records
    return records


async def test_a_call_returns_what_the_other_agent_returns() -> None:
    async with (
        memory_queue(name="main") as queue,
        running(calls, queue, agent="caller"),
        running(about, queue, agent="other"),
    ):
        answer = await result(queue, TaskRequest(payload={"n": 1}, agent="caller"))
    assert answer == {"by": "other-1", "agent": "other", "queue": "main", "payload": {"n": 1}}


@pytest.mark.parametrize(
    ("payload", "state", "code", "message"),
    [
        ("permanent", "failed", "FAILED", "PermanentError: called task {} is failed: PermanentError: never"),
        ("temporary", "dead", "UNAVAILABLE", "TemporaryError: called task {} is dead: TemporaryError: not now"),
        ("error", "dead", "FAILED", "TemporaryError: called task {} is dead: ValueError: bad"),
        ("slow", "dead", "CALL_TIMEOUT", "TemporaryError: called task {} is running after 0.05 s"),
    ],
)
async def test_the_failure_of_a_called_task_is_the_callers(payload: str, state: str, code: str, message: str) -> None:
    async with (
        memory_queue(retry=ONE_TRY) as queue,
        running(calls, queue, agent="caller"),
        running(fails, queue, agent="other"),
    ):
        record = await outcome(queue, TaskRequest(payload=payload, agent="caller"))
        events = await queue.events(limit=100)
    called = next(event.task for event in events if event.task not in (None, record.id))
    assert (record.state, record.failures[-1].code) == (state, code)
    assert record.failures[-1].message == message.format(called)


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    reasons: list[StopReason | None] = []
    begun = asyncio.Event()
    stopped = asyncio.Event()

    async def other(task: Task, ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.cancelled.reason)
            stopped.set()

    async with (
        memory_queue(retry=ONE_TRY) as queue,
        running(calls, queue, agent="caller"),
        running(other, queue, agent="other"),
    ):
        await outcome(queue, TaskRequest(payload="slow", agent="caller"))
        await asyncio.wait_for(stopped.wait(), 10)
        begun.clear()
        stopped.clear()
        (caller,) = await queue.submit([TaskRequest(payload="waits", agent="caller")])
        await begun.wait()
        await queue.cancel([caller], by="the test")
        await asyncio.wait_for(stopped.wait(), 10)
    assert reasons == ["cancelled", "cancelled"]


async def test_a_call_with_an_idempotency_key_outlives_its_caller_and_answers_its_next_attempt() -> None:
    calls_seen = 0
    answered = asyncio.Event()

    async def other(task: Task, ctx: Context) -> str:
        nonlocal calls_seen
        calls_seen += 1
        await answered.wait()
        return "answer"

    async def caller(task: Task, ctx: Context) -> Any:
        if task.attempt > 1:
            answered.set()
        seconds = 0.05 if task.attempt == 1 else 10
        return await ctx.call(agent="other", timeout_seconds=seconds, idempotency_key=f"{task.id}.call")

    async with (
        memory_queue(retry=RetryPolicy(max_attempts=2, initial_seconds=0, max_seconds=0)) as queue,
        running(caller, queue, agent="caller"),
        running(other, queue, agent="other"),
    ):
        record = await outcome(queue, TaskRequest(agent="caller"))
    assert (record.result, record.attempts, calls_seen) == ("answer", 2, 1)


async def test_a_message_goes_to_an_agent_a_capability_or_one_process() -> None:
    async def sender(task: Task, ctx: Context) -> list[str]:
        return [
            await ctx.send("a", agent="clerk"),
            await ctx.send("b", capability="ocr", priority=9),
            await ctx.send("c", instance="clerk-2", type="direct"),
        ]

    async with (
        memory_queue() as queue,
        running(sender, queue, agent="sender"),
        running(about, queue, agent="clerk", instance="clerk-1"),
        running(about, queue, agent="clerk", instance="clerk-2"),
        running(about, queue, agent="reader", capabilities=["ocr"]),
    ):
        ids = await result(queue, TaskRequest(agent="sender"))
        records = await ended(queue, *ids)
    results: list[Any] = [record.result for record in records]
    assert [(one["agent"], one["payload"]) for one in results] == [("clerk", "a"), ("reader", "b"), ("clerk", "c")]
    assert results[2]["by"] == "clerk-2"
    assert (records[1].priority, records[2].type) == (9, "direct")


async def test_a_broadcast_reaches_each_living_process_of_a_group_once() -> None:
    async def sender(task: Task, ctx: Context) -> list[list[str]]:
        return [
            await ctx.broadcast("to the clerks", agent="clerk"),
            await ctx.broadcast("to the readers", capability="ocr"),
            await ctx.broadcast("to nobody", agent="ghost"),
        ]

    async with (
        memory_queue() as queue,
        running(sender, queue, agent="sender"),
        running(about, queue, agent="clerk", instance="clerk-1"),
        running(about, queue, agent="clerk", instance="clerk-2", capabilities=["ocr"]),
        running(about, queue, agent="reader", capabilities=["ocr", "layout"]),
    ):
        clerks, readers, nobody = await result(queue, TaskRequest(agent="sender"))
        reached: list[Any] = [record.result for record in await ended(queue, *clerks, *readers)]
    assert sorted((one["payload"], one["by"]) for one in reached) == [
        ("to the clerks", "clerk-1"),
        ("to the clerks", "clerk-2"),
        ("to the readers", "clerk-2"),
        ("to the readers", "reader-1"),
    ]
    assert nobody == []


async def test_tasks_that_depend_on_one_another_are_submitted_together_and_read_their_parents() -> None:
    async def handle(task: Task, ctx: Context) -> Any:
        match task.type:
            case "start":
                return await ctx.submit_all(
                    [
                        TaskRequest(id=f"{task.id}.a", payload=1),
                        TaskRequest(id=f"{task.id}.b", payload=2),
                        TaskRequest(id=f"{task.id}.sum", type="sum", depends_on=[f"{task.id}.a", f"{task.id}.b"]),
                    ]
                )
            case "sum":
                parents = await ctx.parents()
                return {task_id: (parent.state, parent.result) for task_id, parent in parents.items()}
            case _:
                assert await ctx.parents() == {}
                return task.payload

    async with memory_queue() as queue, running(handle, queue):
        ids = await result(queue, TaskRequest(id="job", type="start"))
        records = await ended(queue, *ids)
    assert records[2].result == {"job.a": ["succeeded", 1], "job.b": ["succeeded", 2]}


async def test_a_child_that_runs_after_failures_sees_them() -> None:
    async def handle(task: Task, ctx: Context) -> Any:
        if task.type == "child":
            (parent,) = (await ctx.parents()).values()
            assert parent.failure is not None
            return [parent.state, parent.failure.code, parent.failure.message]
        raise PermanentError("no")

    async with memory_queue() as queue, running(handle, queue):
        await outcome(queue, TaskRequest(id="parent"))
        child = TaskRequest(type="child", depends_on=["parent"], on_parent_failure="Run")
        assert await result(queue, child) == ["failed", "FAILED", "PermanentError: no"]


@pytest.mark.parametrize(
    ("method", "arguments", "field", "message"),
    [
        ("send", {}, "agent", "give exactly one of agent, capability, instance; 0 are given"),
        ("send", {"agent": "a", "instance": "i"}, "agent", "2 are given"),
        ("broadcast", {}, "agent", "give exactly one of agent, capability; 0 are given"),
        ("submit", {"priority": 11}, "priority", "priority: Input should be less than or equal to 9"),
        ("submit", {"colour": "red"}, "colour", "a task has no field 'colour'"),
        ("submit", {"queue": "other"}, "queue", "an agent sends to its own one only, 'tests'"),
        ("submit", {"agent": "a", "capability": "c"}, "task", "at most one of agent, capability and instance"),
        ("call", {"agent": "a", "timeout_seconds": 0}, "timeout_seconds", "it must be more than 0"),
    ],
)
async def test_a_message_that_cannot_be_is_refused_by_field(
    method: str, arguments: dict[str, Any], field: str, message: str
) -> None:
    async def handle(task: Task, ctx: Context) -> str:
        with pytest.raises(InvalidTaskError) as caught:
            await getattr(ctx, method)(**arguments)
        assert caught.value.field == field
        return str(caught.value)

    async with memory_queue() as queue, running(handle, queue):
        assert message in await result(queue, TaskRequest())
        assert (await queue.stats()).submitted_total == 1


async def test_a_request_object_can_be_submitted_too() -> None:
    async def handle(task: Task, ctx: Context) -> str:
        with pytest.raises(InvalidTaskError, match="not both"):
            await ctx.submit(TaskRequest(), payload=1)
        return await ctx.submit(TaskRequest(payload=1, agent="later"))

    async with memory_queue() as queue, running(handle, queue):
        task_id = await result(queue, TaskRequest())
        assert (await queue.get(task_id)).state is TaskState.QUEUED
