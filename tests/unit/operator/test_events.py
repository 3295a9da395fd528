# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from kubeagents_operator import observed
from kubeagents_operator.cluster import ApiUnavailableError, Cluster
from kubeagents_operator.events import Recorder
from kubeagents_operator.metrics import EventMetrics
from kubeagents_operator.observed import Custom
from tests.support.eventually import eventually_async
from tests.unit.operator import objects


class Posts:
    """What is posted. Stands for the cluster, of which a recorder uses two methods."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.counts: list[int] = []
        self.errors: list[Exception] = []

    async def create_event(self, event: dict[str, Any]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.notes.append(event["note"])

    async def patch_event(self, _namespace: str, _name: str, patch: dict[str, Any]) -> None:
        self.counts.append(patch["series"]["count"])


@pytest.fixture
def posts() -> Posts:
    return Posts()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def recorder(posts: Posts, registry: CollectorRegistry) -> Recorder:
    return Recorder(cast("Cluster", posts), instance="operator-1", metrics=EventMetrics(registry))


def custom(name: str, namespace: str = "shop") -> Custom:
    return observed.custom("Agent", objects.body(name, metadata={"namespace": namespace}))


@asynccontextmanager
async def posting(recorder: Recorder, posts: Posts, *, at_least: int) -> AsyncIterator[None]:
    """Wait until so many have been posted."""
    task = asyncio.create_task(recorder.run())
    try:

        async def posted() -> bool:
            return len(posts.notes) + len(posts.counts) >= at_least

        await eventually_async(posted, what="Events")
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_news_of_a_crowd_do_not_cost_another_tenant_his(
    recorder: Recorder, posts: Posts, registry: CollectorRegistry
) -> None:
    for number in range(1000):
        recorder.normal(custom(f"a-{number}"), "Created", f"a-{number} was created")
        recorder.warning(custom(f"a-{number}"), "Stalled", f"a-{number} is stalled")
    recorder.normal(custom("b", "lab"), "Created", "b was created")

    async with posting(recorder, posts, at_least=2):
        assert "b was created" in posts.notes[:2]
    dropped = {
        cause: registry.get_sample_value("kubeagents_operator_events_dropped_total", {"cause": cause})
        for cause in ("rate", "backlog")
    }
    assert dropped == {"rate": 980, "backlog": 820}


async def test_what_went_well_waits_while_the_operator_is_busy_and_a_warning_does_not(
    posts: Posts, registry: CollectorRegistry
) -> None:
    busy = asyncio.Event()
    busy.set()
    metrics = EventMetrics(registry)
    recorder = Recorder(cast("Cluster", posts), instance="operator-1", metrics=metrics, busy=busy.is_set)
    recorder.normal(custom("a"), "Created", "a was created")
    recorder.warning(custom("b", "lab"), "Stalled", "b is stalled")

    async with posting(recorder, posts, at_least=1):
        assert posts.notes == ["b is stalled"]
        recorder.warning(custom("c"), "Stalled", "c is stalled")
        await eventually_async(partial(_posted, posts, 2), what="another warning")
        busy.clear()
        await eventually_async(partial(_posted, posts, 3), what="the rest")
    assert posts.notes == ["b is stalled", "c is stalled", "a was created"]


async def _posted(posts: Posts, count: int) -> bool:
    return len(posts.notes) == count


async def test_what_goes_well_a_hundred_times_leaves_room_for_a_warning(recorder: Recorder, posts: Posts) -> None:
    for number in range(100):
        recorder.normal(custom("a"), "Scaled", f"a has {number} replicas")
    recorder.warning(custom("a"), "CanaryFailed", "the new version was taken back")

    async with posting(recorder, posts, at_least=21):
        assert "the new version was taken back" in posts.notes


async def test_the_same_news_again_count_up(recorder: Recorder, posts: Posts) -> None:
    for _ in range(3):
        recorder.warning(custom("a"), "Stalled", "a is stalled")

    async with posting(recorder, posts, at_least=3):
        assert (posts.notes, posts.counts) == (["a is stalled"], [2, 3])


@pytest.mark.parametrize("error", [ApiUnavailableError("it is away"), RuntimeError("a defect")])
async def test_what_cannot_be_posted_does_not_keep_the_rest(recorder: Recorder, posts: Posts, error: Exception) -> None:
    posts.errors.append(error)
    recorder.warning(custom("a"), "Stalled", "a is stalled")
    recorder.warning(custom("b"), "Stalled", "b is stalled")

    async with posting(recorder, posts, at_least=1):
        assert posts.notes == ["b is stalled"]
