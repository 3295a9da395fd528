# SPDX-License-Identifier: Apache-2.0
"""A queue says when too much waits in it or for too long, when it is empty again, and replays its dead tasks once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from agent_runtime.queue import Failed, TaskQueue, Worker, open_queue
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import TaskQueueSpec
from tests.integration.operator import manifests
from tests.integration.operator.states import events, wait_for
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

T = TypeVar("T")
Use = Callable[[Callable[[TaskQueue], Coroutine[Any, Any, T]]], T]
QUEUE = "taskqueue/work"
ONE = Worker(agent="worker", instance="test")


@pytest.fixture
def use(cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess) -> Use[Any]:
    """Uses the test's queue, `use(lambda queue: queue.submit(tasks))`."""
    cluster.apply(namespace, manifests.secret(redis_server.url))
    config = queue_config(name=manifests.QUEUE, namespace=namespace, spec=TaskQueueSpec())

    async def once(call: Callable[[TaskQueue], Coroutine[Any, Any, T]]) -> T:
        queue = open_queue(config, url=redis_server.url)
        try:
            return await call(queue)
        finally:
            await queue.aclose()

    return lambda call: asyncio.run(once(call))


def tasks(count: int) -> list[TaskRequest]:
    return [TaskRequest(payload=number, max_attempts=1) for number in range(count)]


def take(count: int) -> Callable[[TaskQueue], Coroutine[Any, Any, None]]:
    """Take tasks and fail with them: they have one attempt."""

    async def work(queue: TaskQueue) -> None:
        claims = await queue.claim(ONE, limit=count, wait_seconds=5)
        assert len(claims) == count
        await queue.settle([Failed(claim, "FAILED", "broken") for claim in claims])

    return work


def test_depth_makes_a_backlog_and_ends_it_with_a_margin(cluster: Cluster, namespace: str, use: Use[Any]) -> None:
    cluster.apply(namespace, manifests.queue(backlog={"maxDepth": 10}))
    cluster.wait(namespace, QUEUE, "condition=Backlogged=false")
    cluster.wait(namespace, QUEUE, "condition=Drained")
    cluster.wait(namespace, QUEUE, "condition=StorageHealthy=false")

    use(lambda queue: queue.submit(tasks(11)))
    found = wait_for(cluster, namespace, QUEUE, "Backlogged", status="True", reason="DepthAboveThreshold")
    assert "spec.backlog.maxDepth (10)" in found["message"]
    cluster.wait(namespace, QUEUE, "condition=Ready")

    use(take(2))
    cluster.wait(namespace, QUEUE, "condition=DeadLettering")
    assert wait_for(cluster, namespace, QUEUE, "Backlogged", status="True"), "9 are fewer than 10, but not by much"
    use(take(1))
    wait_for(cluster, namespace, QUEUE, "Backlogged", status="False", reason="WithinThresholds")

    def told() -> list[str]:
        return [reason for reason, _ in events(cluster, namespace, "work") if reason.startswith("Queue")]

    eventually(lambda: sorted(told()) == ["QueueBacklogged", "QueueRecovered"], what="both Events, once")


def test_an_old_task_makes_a_backlog_in_time_though_nothing_happens(
    cluster: Cluster, namespace: str, use: Use[Any]
) -> None:
    cluster.apply(namespace, manifests.queue(backlog={"maxAgeSeconds": 4}))
    use(lambda queue: queue.submit(tasks(1)))
    wait_for(cluster, namespace, QUEUE, "Drained", status="False")
    wait_for(cluster, namespace, QUEUE, "Backlogged", status="False")

    wait_for(cluster, namespace, QUEUE, "Backlogged", status="True", reason="OldestTaskTooOld", seconds=12)

    use(take(1))
    wait_for(cluster, namespace, QUEUE, "Backlogged", status="False")


def test_each_value_of_the_annotation_replays_the_dead_once(cluster: Cluster, namespace: str, use: Use[Any]) -> None:
    cluster.apply(namespace, manifests.queue())
    use(lambda queue: queue.submit(tasks(3)))
    use(take(3))
    cluster.wait(namespace, QUEUE, "condition=DeadLettering")

    _ask(cluster, namespace, "first")
    assert use(lambda queue: queue.stats()).queued == 3
    wait_for(cluster, namespace, QUEUE, "DeadLettering", status="False")
    use(take(3))
    wait_for(cluster, namespace, QUEUE, "DeadLettering", status="True")
    assert use(lambda queue: queue.stats()).dead == 3, "a value that has been acted on does nothing more"

    _ask(cluster, namespace, "second")
    assert use(lambda queue: queue.stats()).queued == 3

    def told() -> list[str]:
        return [note for reason, note in events(cluster, namespace, "work") if reason == "DLQReplayed"]

    eventually(lambda: told() == ["queued 3 dead tasks again, as the annotation replayDead asks"], what="the Event")


def _ask(cluster: Cluster, namespace: str, value: str) -> None:
    cluster.kubectl("-n", namespace, "annotate", "--overwrite", QUEUE, f"kubeagents.dev/replayDead={value}")
    cluster.wait(namespace, QUEUE, f"jsonpath={{.status.handled.replayDead}}={value}", seconds=30)
