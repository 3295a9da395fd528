# SPDX-License-Identifier: Apache-2.0
"""Cordons follow the wishes of Agents, in a queue in memory with workers that the test plays."""

from typing import Any

import pytest

from agent_runtime.queue.base import Beat, Worker
from agent_runtime.queue.memory import MemoryTaskQueue
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_operator.scaling.cordons import CORDONED_BY, Cordons, Wish


class Stage:
    """A queue and two workers, `a` and `b`, that send heartbeats when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.queue = MemoryTaskQueue(QueueConfig(name="work", namespace="shop", url_env="URL"), clock=lambda: self.now)
        self.cordons = Cordons()

    async def beat(self, name: str, **says: Any) -> bool:
        """One heartbeat; whether the worker is told that it is cordoned."""
        self.now += 1
        values = {"version": "1", "concurrency": 4, "running": 0, "draining": False, "started_at_ms": 0, **says}
        return (await self.queue.beat(Beat(worker=Worker("echo", name), **values))).cordoned

    async def hold(self, *wishes: Wish) -> set[str]:
        known = {one.instance: one for one in await self.queue.instances(timeout_seconds=1000)}
        return set(await self.cordons.hold(self.queue, known, wishes))

    async def cordoned(self) -> dict[str, list[str]]:
        return {one.instance: one.cordoned_by for one in await self.queue.instances(timeout_seconds=1000)}


@pytest.fixture
async def stage() -> Stage:
    stage = Stage()
    for name in ("a", "b"):
        await stage.beat(name)
    return stage


def wish(cordoned: str = "", free: str = "") -> Wish:
    return Wish(cordoned=frozenset(cordoned.split()), free=frozenset(free.split()))


async def test_a_worker_has_finished_when_a_heartbeat_from_after_the_cordon_says_so(stage: Stage) -> None:
    assert await stage.hold(wish("a", "b")) == set()
    assert await stage.cordoned() == {"a": [CORDONED_BY], "b": []}
    assert await stage.hold(wish("a", "b")) == set(), "it has said nothing since"
    assert await stage.beat("a", running=1, cordoned=True)
    assert await stage.hold(wish("a", "b")) == set(), "it works"
    await stage.beat("a", cordoned=True)
    assert await stage.hold(wish("a", "b")) == {"a"}


async def test_a_worker_that_does_not_obey_has_not_finished(stage: Stage) -> None:
    await stage.hold(wish("a"))
    await stage.beat("a", cordoned=False)
    assert await stage.hold(wish("a")) == set()


async def test_one_that_is_wanted_back_is_let_go_and_what_it_said_before_does_not_count(stage: Stage) -> None:
    await stage.hold(wish("a"))
    await stage.beat("a", cordoned=True)
    assert await stage.hold(wish("a")) == {"a"}
    assert await stage.hold(wish("", "a b")) == set()
    assert await stage.cordoned() == {"a": [], "b": []}
    for _ in range(2):
        assert await stage.hold(wish("a")) == set(), "its last heartbeat is from before this cordon"
    await stage.beat("a", cordoned=True)
    assert await stage.hold(wish("a")) == {"a"}


async def test_others_may_cordon_for_reasons_of_their_own(stage: Stage) -> None:
    await stage.queue.cordon(["a"], by="somebody")
    await stage.hold(wish("", "a b"))
    assert await stage.cordoned() == {"a": ["somebody"], "b": []}


async def test_nobody_is_let_go_of_whom_no_agent_has_said_anything_yet(stage: Stage) -> None:
    await stage.hold(wish("a"))
    stage.cordons = Cordons()  # another operator
    await stage.hold()
    assert await stage.cordoned() == {"a": [CORDONED_BY], "b": []}
    assert await stage.hold(wish("a")) == set(), "it asks for a heartbeat of its own"
    await stage.beat("a", cordoned=True)
    assert await stage.hold(wish("a")) == {"a"}


async def test_an_order_that_was_lost_is_given_again(stage: Stage) -> None:
    await stage.hold(wish("a"))
    await stage.queue.uncordon(["a"], by=CORDONED_BY)
    await stage.beat("a", cordoned=True)
    assert await stage.hold(wish("a")) == set()
    assert (await stage.cordoned())["a"] == [CORDONED_BY]


async def test_one_that_never_showed_up_or_has_left_has_finished_once_it_is_cordoned(stage: Stage) -> None:
    assert await stage.hold(wish("unborn b")) == set()
    await stage.queue.leave(Worker("echo", "b"))
    assert await stage.hold(wish("unborn b")) == {"unborn", "b"}
    assert await stage.beat("unborn"), "it takes nothing when it comes after all"


async def test_one_that_shows_up_late_is_waited_for(stage: Stage) -> None:
    await stage.hold(wish("late"))
    await stage.beat("late", running=2, cordoned=True)
    assert await stage.hold(wish("late")) == set()


async def test_agents_of_one_queue_wish_for_themselves(stage: Stage) -> None:
    await stage.hold(wish("a"), wish("", "b"))
    assert await stage.cordoned() == {"a": [CORDONED_BY], "b": []}
    await stage.hold(wish("", "a"), wish("b"))
    assert await stage.cordoned() == {"a": [], "b": [CORDONED_BY]}
