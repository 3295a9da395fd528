# SPDX-License-Identifier: Apache-2.0
"""What Agents wish of their queues, and what the last sample still says then."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from kubeagents_api.runtime_config import QueueConfig
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.metrics import SampleMetrics
from kubeagents_operator.sampler import Sample, Sampler, Target
from kubeagents_operator.scaling.cordons import Wish

QUEUE, AGENT = Key("TaskQueue", "shop", "work"), Key("Agent", "shop", "echo")
TARGET = Target(
    config=QueueConfig(name="work", namespace="shop", url_env="URL"),
    secret=Name("shop", "redis"),
    secret_key="url",  # noqa: S106 - its name
    secret_digest="",
    thresholds=frozenset({15.0}),
)


@pytest.fixture
async def sampler() -> AsyncIterator[Sampler]:
    async def no_url(_name: Name, _key: str) -> str | None:
        return None

    made = Sampler(
        read_url=no_url,
        changed=lambda _queue, _agents: None,
        interval=3600,
        concurrency=1,
        metrics=SampleMetrics(CollectorRegistry()),
    )
    made.watch(QUEUE, TARGET)
    yield made
    await made.aclose()


def cordoned(*names: str) -> Wish:
    return Wish(cordoned=frozenset(names))


async def test_who_may_take_tasks_again_has_not_finished_if_it_is_cordoned_once_more_before_the_next_sample(
    sampler: Sampler,
) -> None:
    sampler.wish(QUEUE, AGENT, cordoned("a", "b"))
    sampler._watched[QUEUE].sample = Sample(vacated=frozenset({"a", "b"}))
    sampler.wish(QUEUE, AGENT, cordoned("b"))
    sampler.wish(QUEUE, AGENT, cordoned("a", "b"))
    sample = sampler.sample(QUEUE)
    assert sample is not None
    assert sample.vacated == {"b"}
