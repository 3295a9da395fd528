# SPDX-License-Identifier: Apache-2.0
"""What handlers say, hear and ask of one another, in real processes on a real Redis."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.queue import TaskQueue, open_queue
from kubeagents_api.agent import BatchSettings
from kubeagents_api.task import StreamItem, TaskRecord, TaskRequest
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually, eventually_async
from tests.support.tcp_proxy import TcpProxy

ONE_TRY = RetryPolicy(max_attempts=1, initial_seconds=0, max_seconds=0)


@pytest.fixture
async def queue(system: System) -> AsyncIterator[TaskQueue]:
    """The queue of the test's agents, asked from here."""
    opened = open_queue(system.queue(), url=system.redis.url)
    yield opened
    await opened.aclose()


async def ended(queue: TaskQueue, *ids: str) -> list[TaskRecord]:
    records = await queue.wait(ids, timeout_seconds=60)
    assert all(record.state.final for record in records), records
    return records


async def some(stream: AsyncIterator[StreamItem], count: int) -> list[StreamItem]:
    """The next items of a stream."""
    return [await anext(stream) for _ in range(count)]


def parts(items: list[StreamItem]) -> list[Any]:
    return [item.data["part"] for item in items if item.kind == "partial" and isinstance(item.data, dict)]


async def test_what_a_task_says_is_heard_while_it_runs_and_can_be_read_on_from_anywhere(
    system: System, queue: TaskQueue, tmp_path: Path
) -> None:
    system.agent("talking:handle")
    (task_id,) = await queue.submit([TaskRequest(type="speak", payload=str(tmp_path))])
    first, second = queue.stream(task_id), queue.stream(task_id)
    heard = await some(first, 4)
    assert (heard[0].kind, parts(heard)) == ("progress", [0, 1, 2])
    assert parts(await some(second, 4)) == [0, 1, 2], "several may listen"
    record = await queue.get(task_id)
    assert record.state == "running"
    assert record.progress is not None
    assert (record.progress.fraction, record.progress.message) == (0.25, "a quarter")
    (tmp_path / "open").touch()
    rest = [item async for item in first]
    assert parts(rest) == [3, 4, 5]
    assert parts([item async for item in queue.stream(task_id, after=heard[1].offset)]) == [1, 2, 3, 4, 5]
    (done,) = await ended(queue, task_id)
    assert (done.result, done.progress) == ("said", None)


async def test_the_handler_of_a_cancelled_task_is_told_at_once(
    system: System, queue: TaskQueue, tmp_path: Path
) -> None:
    slow = system.queue(lease_seconds=3600)  # so that no renewal of its lease tells it
    agent = system.agent("talking:handle", queue=slow)
    (task_id,) = await queue.submit([TaskRequest(type="wait", payload=str(tmp_path))])
    eventually((tmp_path / f"started-{task_id}").exists, what="the task runs")
    assert await queue.cancel([task_id], by="the test", reason="enough") == ["cancelled"]
    stopped = tmp_path / f"stopped-{task_id}"
    eventually(stopped.exists, what="the handler is told", every=0.01)
    assert stopped.read_text() == "cancelled"
    eventually(lambda: agent.logged(f"task {task_id} was cancelled"), what="it says so")
    (record,) = await ended(queue, task_id)
    assert (record.state, record.worker, record.failures[-1].code) == ("cancelled", "worker-1", "CANCELLED")
    assert not agent.logged("came too late")
    assert 'outcome="revoked"} 1.0' in agent.get("/metrics").text


async def test_who_was_cut_off_when_its_task_was_cancelled_is_told_when_it_is_back(
    system: System, queue: TaskQueue, tmp_path: Path
) -> None:
    slow = system.queue(lease_seconds=3600)

    async def started() -> bool:
        return (tmp_path / f"started-{task_id}").exists()

    async def told() -> bool:
        return (tmp_path / f"stopped-{task_id}").exists()

    async def cut_off() -> bool:
        return bool(agent.logged("lost the subscription"))

    async with TcpProxy(target_port=system.redis.port) as proxy:
        agent = system.agent("talking:handle", queue=slow, url=f"redis://127.0.0.1:{proxy.port}/0")
        (task_id,) = await queue.submit([TaskRequest(type="wait", payload=str(tmp_path))])
        await eventually_async(started, what="the task runs")
        async with proxy.refusing():
            await eventually_async(cut_off, what="it is cut off")
            await queue.cancel([task_id], by="the test")
            assert not await told()
        await eventually_async(told, what="the handler is told")


async def test_agents_give_work_to_one_another(system: System, queue: TaskQueue) -> None:
    system.agent("talking:handle", name="boss")
    clerks = [
        system.agent("talking:handle", name="clerk", instance=instance, capabilities=["reading"])
        for instance in ("clerk-1", "clerk-2")
    ]
    for clerk in clerks:
        clerk.ready()
    (job,) = await queue.submit([TaskRequest(id="job", agent="boss", type="start")])
    (record,) = await ended(queue, job)
    found: Any = record.result
    assert (found["called"]["agent"], found["called"]["payload"]) == ("clerk", "called")
    assert found["refused"].startswith("FAILED: called task ")
    assert found["refused"].endswith(" is failed: PermanentError: as asked")
    sent, capable, total = await ended(queue, found["sent"], found["capable"], found["sum"])
    results: list[Any] = [sent.result, capable.result]
    assert results[0] == {"agent": "clerk", "instance": "clerk-2", "payload": "direct"}
    assert results[1]["agent"] == "clerk"
    assert total.result == 3
    reached: list[Any] = [told.result for told in await ended(queue, *found["broadcast"])]
    assert sorted(one["instance"] for one in reached) == ["clerk-1", "clerk-2"]


async def test_a_batch_handler_gets_tasks_together_and_fails_them_one_by_one_or_all(system: System) -> None:
    config = system.queue(retry=ONE_TRY)
    queue = open_queue(config, url=system.redis.url)
    batch = BatchSettings(max_tasks=3, wait_seconds=60)
    system.agent("talking:together", queue=config, batch=batch)
    ids = await queue.submit([TaskRequest(payload=payload) for payload in ("a", "one", "b", "c", "all", "d")])
    records = await ended(queue, *ids)
    assert [record.result for record in records] == [[3, "a"], None, [3, "b"], None, None, None]
    assert [record.state for record in records] == ["succeeded", "failed", "succeeded", "dead", "dead", "dead"]
    assert records[1].failures[-1].message == "PermanentError: just this one"
    assert {record.failures[-1].message for record in records[3:]} == {"ValueError: all of them"}
    await queue.aclose()


@pytest.mark.parametrize(
    ("handler", "batch", "message"),
    [
        ("talking:handle", BatchSettings(), "takes one task, but the Agent has `batch`"),
        ("talking:together", None, "takes a list of tasks, but the Agent has no `batch`"),
    ],
)
def test_a_handler_of_the_other_kind_is_refused_at_the_start(
    system: System, handler: str, batch: BatchSettings | None, message: str
) -> None:
    agent = system.agent(handler, batch=batch)
    assert agent.exit_code() == 78
    assert agent.termination()["reason"] == "HandlerNotFound"
    assert message in agent.termination()["message"]
