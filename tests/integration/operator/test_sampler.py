# SPDX-License-Identifier: Apache-2.0
"""What the operator writes into a queue's Redis, and that only a leader does."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.queue import TaskQueue, open_queue
from agent_runtime.queue.base import Gate
from kubeagents_api.runtime_config import QueueConfig, queue_config
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.metrics import SampleMetrics
from kubeagents_operator.sampler import Sampler, Target
from kubeagents_operator.scaling.cordons import Wish
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer

Sampling = Callable[..., Awaitable[Sampler]]


@pytest.fixture
def config() -> QueueConfig:
    return queue_config(name="work", namespace=f"ns-{uuid.uuid4().hex[:8]}", spec=TaskQueueSpec())


@pytest.fixture
async def queue(config: QueueConfig, redis_server: RedisServer) -> AsyncIterator[TaskQueue]:
    opened = open_queue(config, url=redis_server.url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def sampled(config: QueueConfig, redis_server: RedisServer) -> AsyncIterator[Sampling]:
    """Starts a sampler that wants the queue paused and a pod cordoned, and waits for its first sample or its end."""
    started: list[Sampler] = []

    async def start(may_write: Callable[[], bool]) -> Sampler:
        async def url(_name: Name, _key: str) -> str:
            return redis_server.url

        key = Key("TaskQueue", config.namespace, config.name)
        sampler = Sampler(
            read_url=url,
            changed=lambda _queue, _agents: None,
            interval=3600,
            concurrency=1,
            metrics=SampleMetrics(CollectorRegistry()),
            may_write=may_write,
        )
        started.append(sampler)
        sampler.wish(key, Key("Agent", config.namespace, "echo"), Wish(cordoned=frozenset({"pod-1"})))
        sampler.replays.ask(key, "now")
        sampler.watch(
            key,
            Target(
                config=config,
                secret=Name(config.namespace, "redis"),
                secret_key="url",  # noqa: S106 - its name
                secret_digest="",
                thresholds=frozenset({15.0}),
                shut=frozenset({Gate.CLAIMS}),
            ),
        )
        task = sampler._watched[key].task

        async def looked() -> bool:
            return sampler.sample(key) is not None or task.done()

        await eventually_async(looked, what="a sample, or its end")
        return sampler

    yield start
    for sampler in started:
        await sampler.aclose()


async def test_a_leader_holds_the_gates_of_a_queue(queue: TaskQueue, sampled: Sampling) -> None:
    await sampled(lambda: True)

    assert (await queue.stats()).paused_by


@pytest.mark.parametrize("questions", [0, 1])
async def test_a_former_leader_writes_nothing_into_a_queue(queue: TaskQueue, sampled: Sampling, questions: int) -> None:
    """It was frozen before a sample, or in the midst of one."""
    answers = iter([True] * questions)

    await sampled(lambda: next(answers, False))

    assert not (await queue.stats()).paused_by
    assert not [one for one in await queue.instances(timeout_seconds=15) if one.cordoned_by]
