# SPDX-License-Identifier: Apache-2.0
"""Runs a handler in a test as a worker process would."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from agent_runtime.agent import BatchHandler, Handler
from agent_runtime.queue.base import TaskQueue
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import LinkMetrics
from agent_runtime.worker import Consumer
from kubeagents_api.agent import BatchSettings
from kubeagents_api.runtime_config import AgentConfig, QueueConfig
from kubeagents_api.task import TaskRecord, TaskRequest

_PATIENCE_SECONDS = 30.0


@contextlib.asynccontextmanager
async def running(
    handler: Handler | BatchHandler,
    queue: TaskQueue,
    *,
    agent: str = "agent",
    instance: str | None = None,
    capabilities: Sequence[str] = (),
    concurrency: int = 16,
    batch: BatchSettings | None = None,
    drain_seconds: int = 0,
    lease_seconds: float = 30.0,
    heartbeat_seconds: int = 5,
) -> AsyncIterator[Consumer]:
    """A process of an Agent, from when it is known to the queue until the end of the block.

    `instance` is `<agent>-1` if unset. What still runs at the end is given back to the queue after `drain_seconds`.
    """
    config = AgentConfig(
        name=agent,
        namespace="test",
        queue=QueueConfig(name=queue.name, namespace="test", url_env="", lease_seconds=lease_seconds),
        handler="tests:handler",
        capabilities=list(capabilities),
        batch=batch,
        concurrency=concurrency,
        drain_seconds=drain_seconds,
        heartbeat_seconds=heartbeat_seconds,
        port=0,
    )
    registry = CollectorRegistry()
    consumer = Consumer(
        config,
        instance=f"{agent}-1" if instance is None else instance,
        handler=handler,
        queue=queue,
        link=Link(queue.name, metrics=LinkMetrics(registry)),
        registry=registry,
    )
    stop = asyncio.Event()
    work = asyncio.create_task(consumer.run(stop=stop, hurry=asyncio.Event()))
    try:
        known = asyncio.create_task(consumer.known())
        await asyncio.wait((work, known), return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        if not work.done():
            yield consumer
    finally:
        stop.set()
        await work


async def result(queue: TaskQueue, task: TaskRequest, *, timeout_seconds: float = _PATIENCE_SECONDS) -> Any:
    """Submit a task, wait for its end and return what the handler returned. Raises AssertionError if it failed."""
    record = await outcome(queue, task, timeout_seconds=timeout_seconds)
    assert record.state == "succeeded", f"task {record.id} is {record.state}: {record.failures}"  # noqa: S101
    return record.result


async def outcome(queue: TaskQueue, task: TaskRequest, *, timeout_seconds: float = _PATIENCE_SECONDS) -> TaskRecord:
    """Submit a task and wait for its end, however it ends."""
    ids = await queue.submit([task])
    return (await queue.wait(ids, timeout_seconds=timeout_seconds))[0]
