# SPDX-License-Identifier: Apache-2.0
"""What a manifest says about pausing and closing is brought into the queue, and nothing else is touched."""

import pytest

from agent_runtime.queue.base import Gate
from agent_runtime.queue.gates import hold_gates, shut_by_spec
from agent_runtime.queue.memory import MemoryTaskQueue
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task_queue import TaskQueueSpec


@pytest.fixture
def queue() -> MemoryTaskQueue:
    return MemoryTaskQueue(QueueConfig(name="work", namespace="shop", url_env="URL"))


async def hold(queue: MemoryTaskQueue, spec: TaskQueueSpec) -> bool:
    return await hold_gates(queue, await queue.stats(), shut=shut_by_spec(spec))


async def test_a_queue_is_paused_and_closed_as_its_spec_says(queue: MemoryTaskQueue) -> None:
    assert await hold(queue, TaskQueueSpec(paused=True, closed=True))

    stats = await queue.stats()
    assert (stats.paused_by, stats.closed_by) == (["spec"], ["spec"])


async def test_nothing_is_written_where_nothing_differs(queue: MemoryTaskQueue) -> None:
    spec = TaskQueueSpec(paused=True)
    await hold(queue, spec)

    assert not await hold(queue, spec)
    assert [event.kind for event in await queue.events(limit=10)] == ["paused"]


async def test_the_spec_opens_what_it_had_shut(queue: MemoryTaskQueue) -> None:
    await hold(queue, TaskQueueSpec(paused=True, closed=True))
    await hold(queue, TaskQueueSpec())

    stats = await queue.stats()
    assert (stats.paused_by, stats.closed_by) == ([], [])


async def test_what_somebody_else_has_shut_stays_shut(queue: MemoryTaskQueue) -> None:
    await queue.set_gate(Gate.CLAIMS, shut=True, by="ann")

    assert not await hold(queue, TaskQueueSpec())
    assert (await queue.stats()).paused_by == ["ann"]


async def test_who_opens_his_own_gate_does_not_open_that_of_the_spec(queue: MemoryTaskQueue) -> None:
    await queue.set_gate(Gate.CLAIMS, shut=True, by="ann")
    await hold(queue, TaskQueueSpec(paused=True))

    await queue.set_gate(Gate.CLAIMS, shut=False, by="ann")

    assert (await queue.stats()).paused_by == ["spec"]
