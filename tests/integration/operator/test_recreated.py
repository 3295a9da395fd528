# SPDX-License-Identifier: Apache-2.0
"""A custom resource that is deleted and made anew is another one, though it has the same name."""

import asyncio
from typing import Any

from agent_runtime.queue import Failed, Worker, open_queue
from kubeagents_api.labels import REPLAY_DEAD
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task import QueueStats, TaskRequest
from kubeagents_api.task_queue import TaskQueueSpec
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer

QUEUE = "taskqueue/work"


def use(namespace: str, redis: RedisServer, *, deaths: int = 0) -> QueueStats:
    """Let so many tasks die; the figures of the queue after that."""

    async def once() -> QueueStats:
        queue = open_queue(queue_config(name=manifests.QUEUE, namespace=namespace, spec=TaskQueueSpec()), url=redis.url)
        try:
            if deaths:
                await queue.submit([TaskRequest(payload=number, max_attempts=1) for number in range(deaths)])
                claims = await queue.claim(Worker(agent="worker", instance="test"), limit=deaths, wait_seconds=5)
                await queue.settle([Failed(claim, "FAILED", "broken") for claim in claims])
            return await queue.stats()
        finally:
            await queue.aclose()

    return asyncio.run(once())


def test_a_queue_that_is_made_anew_before_its_end_was_seen_has_done_nothing_yet(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()
    operator = start_operator(kubeconfig=proxy.kubeconfig).leading()
    asked: dict[str, Any] = manifests.queue()
    asked["metadata"]["annotations"] = {REPLAY_DEAD: "monday"}
    cluster.apply(namespace, manifests.secret(redis_server.url), asked)
    cluster.wait(namespace, QUEUE, "jsonpath={.status.handled.replayDead}=monday", seconds=30)

    proxy.stall()
    cluster.kubectl("-n", namespace, "delete", QUEUE)
    use(namespace, redis_server, deaths=2)
    cluster.apply(namespace, asked)
    eventually(lambda: len(proxy.stalled) >= 2, what="the operator has missed both")
    proxy.flow()
    proxy.end_watches(code=410)

    cluster.wait(namespace, QUEUE, "jsonpath={.status.handled.replayDead}=monday", seconds=60)
    stats = use(namespace, redis_server)
    assert (stats.dead, stats.queued) == (0, 2), "the wish of the new one has been fulfilled, too"
    assert operator.leads()
