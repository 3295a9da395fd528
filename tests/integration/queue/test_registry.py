# SPDX-License-Identifier: Apache-2.0
"""Which agent processes are there."""

import dataclasses

from agent_runtime.queue import Beat, TaskQueue, Worker
from kubeagents_api.interface import Interface
from tests.integration.queue.actors import ALICE, BOB, CAROL
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer


def beat(worker: Worker, *, running: int = 0, draining: bool = False) -> Beat:
    return Beat(
        worker, version="0.1.0", concurrency=8, running=running, draining=draining, started_at_ms=1_700_000_000_000
    )


async def test_whoever_beats_is_known_with_its_last_beat(queue: TaskQueue) -> None:
    for worker in (CAROL, BOB, ALICE):
        await queue.beat(beat(worker))
    await queue.beat(beat(BOB, running=3, draining=True))

    alice, bob, carol = sorted(await queue.instances(timeout_seconds=60), key=lambda known: known.instance[-3:])[::1]
    known = {instance.instance: instance for instance in (alice, bob, carol)}
    assert [instance.instance for instance in await queue.instances(timeout_seconds=60)] == [
        "count-carol",
        "echo-alice",
        "echo-bob",
    ]
    assert (known["echo-bob"].running, known["echo-bob"].draining, known["echo-bob"].concurrency) == (3, True, 8)
    assert (known["echo-alice"].running, known["echo-alice"].draining) == (0, False)
    assert (known["count-carol"].agent, known["count-carol"].version) == ("count", "0.1.0")
    assert known["echo-alice"].started_at.timestamp() == 1_700_000_000
    assert all(instance.healthy for instance in known.values())


async def test_a_process_that_leaves_is_forgotten_and_leaving_twice_does_no_harm(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE))
    await queue.beat(beat(BOB))
    await queue.leave(ALICE)
    await queue.leave(ALICE)
    assert [instance.instance for instance in await queue.instances(timeout_seconds=60)] == ["echo-bob"]


async def test_a_silent_process_is_unhealthy_first_and_forgotten_later(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE))

    async def unhealthy() -> bool:
        (alice,) = await queue.instances(timeout_seconds=0.05)
        return not alice.healthy

    await eventually_async(unhealthy, what="Alice is unhealthy")
    assert await queue.forget_silent(silent_seconds=60) == []
    await queue.beat(beat(BOB))
    assert await queue.forget_silent(silent_seconds=0.05) == ["echo-alice"]
    assert await queue.forget_silent(silent_seconds=60) == []
    assert [instance.instance for instance in await queue.instances(timeout_seconds=60)] == ["echo-bob"]


async def test_nobody_is_known_on_a_new_queue(queue: TaskQueue) -> None:
    assert await queue.instances(timeout_seconds=60) == []
    assert await queue.forget_silent(silent_seconds=0) == []


async def test_what_an_agent_has_said_is_gone_a_day_after_its_last_word(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    said = Interface(description="Counts words.")
    await queue.beat(dataclasses.replace(beat(ALICE), interface=said))
    await queue.beat(dataclasses.replace(beat(CAROL), interface=said))
    with redis_server.client() as client:
        (described,) = client.keys("*:described")
        longest_silent, _ = client.zrange(described, 0, -1)
        client.zincrby(described, -25 * 3600 * 1000, longest_silent)
        assert len(await queue.interfaces()) == 2
        await queue.forget_silent(silent_seconds=60)
        assert len(await queue.interfaces()) == 1
        assert client.hlen(described.replace(":described", ":interfaces")) == 1


async def test_what_a_server_has_lost_is_said_again(queue: TaskQueue, redis_server: RedisServer) -> None:
    known = dataclasses.replace(beat(ALICE), interface=Interface(description="Counts words."))
    await queue.beat(known)
    with redis_server.client() as client:
        client.flushall()
    await queue.beat(known)
    assert [one.description for one in await queue.interfaces()] == ["Counts words."]
