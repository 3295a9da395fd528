# SPDX-License-Identifier: Apache-2.0
"""What unit tests of agents need: a queue in memory, and a clock that the test moves.

Nothing is installed, started or waited for. The queue keeps every promise of the one in Redis (the same tests run
against both), but only for one process and as long as the object lives:

    import asyncio
    from agent_runtime.queue import Succeeded, Worker
    from agent_runtime.testing import ManualClock, memory_queue
    from kubeagents_api.task import TaskRequest, TaskState

    async def test_a_reminder_waits_for_its_time() -> None:
        clock = ManualClock()
        async with memory_queue(clock=clock, lease_seconds=10) as queue:
            (task_id,) = await queue.submit([TaskRequest(type="remind", delay_seconds=3600)])
            me = Worker(agent="reminder", instance="reminder-1")
            assert await queue.claim(me, limit=1, wait_seconds=0) == []

            clock.advance(3600)
            (claim,) = await queue.claim(me, limit=1, wait_seconds=0)
            await queue.settle([Succeeded(claim, b'"sent"')])
            assert (await queue.get(task_id)).state is TaskState.SUCCEEDED

A handler runs in the very worker that runs it in a pod: timeouts, retries, cancellation, progress, batches and messages
are the real ones. Several agents on one queue talk to one another.

    async def test_it_greets() -> None:
        async with memory_queue() as queue, running(handle, queue):
            assert await result(queue, TaskRequest(payload={"name": "Ada"})) == {"greeting": "Hello, Ada!"}
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agent_runtime.queue.base import TaskQueue
from agent_runtime.queue.memory import ManualClock, MemoryTaskQueue
from agent_runtime.queue.memory_clock import Clock
from agent_runtime.queue.sharded import ShardedTaskQueue
from agent_runtime.queue.sharding import shard_config
from agent_runtime.testing.agents import outcome, result, running
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task_queue import TaskQueueSpec

__all__ = ["ManualClock", "MemoryTaskQueue", "memory_queue", "outcome", "result", "running"]


@contextlib.asynccontextmanager
async def memory_queue(
    *, name: str = "tests", clock: Clock | None = None, **spec_fields: Any
) -> AsyncIterator[TaskQueue]:
    """A queue in memory. Further keyword arguments are fields of a TaskQueue's `spec`, in Python's spelling.

    For example `memory_queue(lease_seconds=10, limits={"max_depth": 5})`. Raises pydantic's ValidationError for a
    field that a manifest could not have either. With `shards` it is cut as it would be in Redis. Its end ends the loops
    over `revoked`.
    """
    config = queue_config(name=name, namespace="tests", spec=TaskQueueSpec.model_validate(spec_fields))
    queue: TaskQueue = MemoryTaskQueue(config, clock=clock)
    if config.shards > 1:
        shards = [MemoryTaskQueue(shard_config(config, number), clock=clock) for number in range(config.shards)]
        queue = ShardedTaskQueue(config, shards)
    try:
        yield queue
    finally:
        await queue.aclose()
