# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from kubeagents_operator.turns import FairLimit, Turns
from tests.support.eventually import eventually_async


def test_namespaces_take_turns_and_keep_their_order() -> None:
    turns: Turns[str] = Turns()
    for word in ("a1", "a2", "a3", "b1", "b2", "c1"):
        turns.put(word[0], word)

    assert [turns.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not turns


def test_a_namespace_that_has_just_had_its_turn_is_the_last_to_have_another() -> None:
    turns: Turns[str] = Turns()
    turns.put("a", "a1")
    turns.put("b", "b1")
    assert turns.take() == "a1"
    turns.put("a", "a2")

    assert [turns.take(), turns.take()] == ["b1", "a2"]


def test_what_was_put_first_comes_first_but_every_eighth_turn_is_for_the_rest() -> None:
    turns: Turns[str] = Turns()
    for number in range(20):
        turns.put("a", f"later {number}")
    for number in range(20):
        turns.put("a", f"first {number}", first=True)

    taken = [turns.take() for _ in range(40)]

    assert taken[:9] == [*(f"first {number}" for number in range(7)), "later 0", "first 7"]
    assert taken[-18:] == [f"later {number}" for number in range(2, 20)]


def test_what_is_preferred_while_it_waits_comes_once_and_first() -> None:
    turns: Turns[str] = Turns()
    for word in ("x", "y", "z"):
        turns.put("a", word)
    assert not turns.has_first("a")

    turns.prefer("a", "y")

    assert turns.has_first("a")
    assert turns.waiting("a") == 3
    assert [turns.take() for _ in range(3)] == ["y", "x", "z"]
    assert not turns


def test_what_is_put_while_a_namespace_is_paused_waits_for_it() -> None:
    turns: Turns[str] = Turns()
    turns.put("a", "a1")
    turns.pause("a")
    turns.put("a", "a2", first=True)
    assert not turns
    assert turns.waiting("a") == 2

    turns.resume("a")

    assert [turns.take(), turns.take()] == ["a2", "a1"]


async def test_the_places_of_a_limit_go_to_namespaces_in_turn() -> None:
    limit, order, go = FairLimit(1), list[str](), asyncio.Event()

    async def hold(word: str) -> None:
        async with limit.turn(word[0]):
            order.append(word)
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for word in ("a1", "a2", "a3", "b1"):
            group.create_task(hold(word))

        async def begun() -> bool:
            return order == ["a1"]

        await eventually_async(begun, what="the first one has the place", timeout=5)
        go.set()

    assert order == ["a1", "a2", "b1", "a3"]


async def test_who_is_cancelled_while_waiting_takes_no_place_with_it() -> None:
    limit = FairLimit(1)
    async with limit.turn("a"):
        waiting = [asyncio.create_task(_hold_once(limit, name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]

    await asyncio.wait_for(waiting[1], 5)
    async with asyncio.timeout(5), limit.turn("c"):
        pass


async def test_who_is_cancelled_just_when_the_place_is_its_own_hands_it_on() -> None:
    limit = FairLimit(1)
    async with limit.turn("a"):
        waiting = [asyncio.create_task(_hold_once(limit, name)) for name in ("a", "b")]
        await asyncio.sleep(0)
    waiting[0].cancel()  # it has the place and has not run yet
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]

    await asyncio.wait_for(waiting[1], 5)


async def _hold_once(limit: FairLimit, namespace: str) -> None:
    async with limit.turn(namespace):
        pass
