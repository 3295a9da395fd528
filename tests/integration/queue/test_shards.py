# SPDX-License-Identifier: Apache-2.0
"""A queue of several shards: as one queue to everybody, in memory as in Redis and in a real cluster."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime.queue import TaskQueue, Worker, open_queue
from agent_runtime.queue.base import Beat, Gate, Orders, Partial
from agent_runtime.queue.sharded import ShardedTaskQueue
from agent_runtime.queue.sharding import shard_config, shard_of
from agent_runtime.testing import MemoryTaskQueue
from kubeagents_api.errors import CordonedError, InvalidTaskError, QueueClosedError, TaskNotFoundError
from kubeagents_api.interface import Interface
from kubeagents_api.limits import QueueLimits, TenantLimits
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskRequest, TaskState
from tests.integration.conftest import queue_config
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    FOREVER,
    NOW,
    SOON,
    claim_one,
    failed,
    payloads,
    submit,
    succeeded,
    tasks,
    told,
)
from tests.integration.queue.load import Load
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_server import RedisServer, binaries

SHARDS = 3


@pytest.fixture(params=["memory", "redis"])
async def sharded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ShardedTaskQueue]:
    """A queue of three shards."""
    config = queue_config(request.node.originalname, shards=SHARDS)
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            queue: TaskQueue = ShardedTaskQueue(
                config, [MemoryTaskQueue(shard_config(config, number)) for number in range(SHARDS)]
            )
        else:
            binary = next(iter(binaries().values()))
            queue = open_queue(config, url=stack.enter_context(RedisServer(binary, tmp_path)).url)
        assert isinstance(queue, ShardedTaskQueue)
        yield queue
        await queue.aclose()


def shards_of(ids: Sequence[str]) -> list[int]:
    return [shard_of(task_id, SHARDS) for task_id in ids]


async def spread(queue: TaskQueue, count: int = 2 * SHARDS, **fields: object) -> list[str]:
    """Tasks in all shards, each submitted for itself."""
    ids = [(await queue.submit(tasks(number, **fields)))[0] for number in range(count)]
    assert set(shards_of(ids)) == set(range(SHARDS))
    return ids


async def test_submissions_take_turns_and_all_is_found_by_its_id(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded)
    assert sorted(shards_of(ids)) == [0, 0, 1, 1, 2, 2]
    claims = await sharded.claim(ALICE, limit=10, wait_seconds=NOW)
    assert sorted(payloads(claims)) == list(range(6))
    assert await sharded.extend(claims) == []
    assert await sharded.settle(succeeded(claims[:5], "done")) == [True] * 5
    await sharded.release(claims[5:])
    record = await sharded.get(claims[0].id)
    assert (record.queue, record.result) == (sharded.name, "done")
    records = await sharded.wait(ids, timeout_seconds=0)
    assert [record.id for record in records] == ids
    assert sorted(record.state for record in records) == ["queued"] + ["succeeded"] * 5
    stats = await sharded.stats()
    assert (stats.queue, stats.queued, stats.succeeded_total, stats.submitted_total) == (sharded.name, 1, 5, 6)
    with pytest.raises(TaskNotFoundError):
        await sharded.get("nobody")


async def test_a_batch_stays_together(sharded: ShardedTaskQueue) -> None:
    ids = await sharded.submit(tasks(*range(100)))
    assert len(set(shards_of(ids))) == 1
    assert len(set(ids)) == 100
    assert payloads(await sharded.claim(ALICE, limit=200, wait_seconds=NOW)) == list(range(100))
    one, other = (next(f"n{n}" for n in itertools.count() if shard_of(f"n{n}", SHARDS) == shard) for shard in (0, 1))
    with pytest.raises(InvalidTaskError, match="several shards") as refused:
        await sharded.submit([TaskRequest(id=one), TaskRequest(id=other)])
    assert refused.value.field == "id"
    assert (await sharded.stats()).submitted_total == 100


async def test_what_depends_goes_where_it_depends(sharded: ShardedTaskQueue) -> None:
    parents = await spread(sharded, SHARDS)
    for parent in parents:
        (child,) = await sharded.submit([TaskRequest(depends_on=[parent])])
        assert shards_of([child]) == shards_of([parent])
    with pytest.raises(InvalidTaskError, match="several shards") as refused:
        await sharded.submit([TaskRequest(depends_on=parents)])
    assert refused.value.field == "dependsOn"
    fits_not = next(f"n{n}" for n in itertools.count() if shards_of([f"n{n}"]) != shards_of(parents[:1]))
    with pytest.raises(InvalidTaskError, match="leave the id out") as refused:
        await sharded.submit([TaskRequest(id=fits_not, depends_on=parents[:1])])
    assert refused.value.field == "dependsOn"
    claims = await sharded.claim(ALICE, limit=SHARDS, wait_seconds=NOW)
    await sharded.settle(succeeded(claims, 1))
    (last, *_) = await sharded.claim(ALICE, limit=1, wait_seconds=SOON)
    assert [outcome.state for outcome in (await sharded.parents(last)).values()] == [TaskState.SUCCEEDED]


async def test_equal_idempotency_keys_meet(sharded: ShardedTaskQueue) -> None:
    for number in range(10):
        request = TaskRequest(idempotency_key=f"key-{number}")
        assert await sharded.submit([request]) == await sharded.submit([request])
    assert (await sharded.stats()).submitted_total == 10
    with pytest.raises(InvalidTaskError, match="one by one") as refused:
        await sharded.submit([TaskRequest(idempotency_key=f"key-{number}") for number in range(10)])
    assert refused.value.field == "idempotencyKey"


async def test_tasks_of_a_tenant_with_limits_stay_together() -> None:
    limits = QueueLimits(max_depth=20, concurrency=5, per_tenant=TenantLimits(concurrency=2))
    config = queue_config("q", shards=SHARDS, limits=limits)
    part = shard_config(config, 1)
    assert (part.name, part.shards) == ("q#1", 1)
    assert (part.limits.max_depth, part.limits.concurrency) == (7, 2)
    assert part.limits.per_tenant.concurrency == 2
    queue = ShardedTaskQueue(config, [MemoryTaskQueue(shard_config(config, n)) for n in range(SHARDS)])
    for tenant in ("a", "b", "c"):
        ids = [(await submit(queue, n, tenant=tenant))[0] for n in range(2)]
        assert set(shards_of(ids)) == {shard_of(tenant, SHARDS)}


async def test_an_idle_worker_hears_of_work_in_any_shard(sharded: ShardedTaskQueue) -> None:
    for number in range(2 * SHARDS):
        idle = asyncio.create_task(claim_one(sharded, ALICE, wait_seconds=FOREVER))
        other = asyncio.create_task(claim_one(sharded, BOB, wait_seconds=FOREVER))
        await asyncio.sleep(0)
        await submit(sharded, number)
        await submit(sharded, number)
        async with asyncio.timeout(SOON):
            claims = [await idle, await other]
        assert payloads(claims) == [number, number]
        await sharded.settle(succeeded(claims))


async def test_a_claim_that_is_cancelled_takes_nothing(sharded: ShardedTaskQueue) -> None:
    idle = asyncio.create_task(sharded.claim(ALICE, limit=10, wait_seconds=FOREVER))
    await asyncio.sleep(0)
    ids = await spread(sharded)
    idle.cancel()
    taken = 0
    with contextlib.suppress(asyncio.CancelledError):
        taken = len(await idle)
    rest: list[str] = []
    async with asyncio.timeout(SOON):
        while len(rest) < len(ids) - taken:
            rest += [claim.id for claim in await sharded.claim(BOB, limit=10, wait_seconds=1)]
    assert len(set(rest)) == len(rest)


async def test_workers_take_from_all_shards_in_turn(sharded: ShardedTaskQueue) -> None:
    await spread(sharded, 4 * SHARDS)
    claims = [await claim_one(sharded) for _ in range(SHARDS)]
    assert set(shards_of([claim.id for claim in claims])) == set(range(SHARDS))


async def test_a_task_is_listened_to_by_its_id(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded)
    claims = await sharded.claim(ALICE, limit=10, wait_seconds=NOW)
    for claim in claims:
        assert await sharded.emit(claim, [Partial(b'"part"')])
    await sharded.settle(succeeded(claims))
    for task_id in ids:
        assert [item.data async for item in sharded.stream(task_id)] == ["part"]


async def test_who_runs_what_is_cancelled_hears_of_it(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded)
    claims = await sharded.claim(ALICE, limit=10, wait_seconds=NOW)
    heard: set[str] = set()
    standing = asyncio.Event()
    empty = 0 if isinstance(sharded.shards[0], MemoryTaskQueue) else SHARDS

    async def listen() -> None:
        nonlocal empty
        async for task_ids in sharded.revoked(ALICE):
            heard.update(task_ids)
            empty -= not task_ids
            if empty <= 0:
                standing.set()
            if heard == set(ids):
                return

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(SOON):
        if empty:
            await standing.wait()
        else:
            await asyncio.sleep(0)
        with pytest.raises(TaskNotFoundError):
            await sharded.cancel([*ids, "nobody"], by="me")
        assert (await sharded.stats()).running == len(ids)
        assert await sharded.cancel(ids, by="me") == [TaskState.CANCELLED] * len(ids)
        await listening
    assert {claim.id for claim in await sharded.extend(claims)} == set(ids)


async def test_dead_tasks_are_one_list_newest_first(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded, 4 * SHARDS, max_attempts=1)
    died: list[str] = []
    for _ in ids:
        claim = await claim_one(sharded)
        await sharded.settle(failed(claim))
        died.append(claim.id)
    listed: list[str] = []
    while page := await sharded.list_dead(limit=5, after=listed[-1] if listed else ""):
        assert {record.queue for record in page} == {sharded.name}
        listed += [record.id for record in page]
    assert sorted(listed) == sorted(died)
    times = [(await sharded.get(task_id)).finished_at for task_id in listed]
    assert times == sorted(times, key=lambda time: time or datetime.now(UTC), reverse=True)
    with pytest.raises(InvalidTaskError):
        await sharded.list_dead(limit=5, after=(await submit(sharded, "alive"))[0])
    chosen = [died[5], died[0], died[3]]
    assert await sharded.replay(DeadFilter(ids=chosen), by="me") == chosen
    assert set(await sharded.purge(DeadFilter(), by="me")) == set(died) - set(chosen)
    assert (await sharded.stats()).dead == 0


async def test_gates_shut_all_shards_and_are_told_once(sharded: ShardedTaskQueue) -> None:
    await spread(sharded)
    await sharded.set_gate(Gate.CLAIMS, shut=True, by="me")
    await sharded.set_gate(Gate.SUBMISSIONS, shut=True, by="me")
    assert await sharded.claim(ALICE, limit=10, wait_seconds=NOW) == []
    for _ in range(SHARDS):
        with pytest.raises(QueueClosedError):
            await submit(sharded, 1)
    stats = await sharded.stats()
    assert (stats.paused_by, stats.closed_by) == (["me"], ["me"])
    kinds = [event.kind for event in await sharded.events(limit=100)]
    assert sorted(kinds) == ["closed", "paused"] + ["submitted"] * 6


async def test_events_are_one_story_that_can_be_read_on(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded)
    story = await sharded.events(limit=100)
    assert {event.task for event in story} == set(ids)
    assert [event.at for event in story] == sorted(event.at for event in story)
    for shard in range(SHARDS):
        assert [event.task for event in story if event.task in ids[shard::SHARDS]] == ids[shard::SHARDS]
    again: list[str | None] = []
    offset = ""
    while page := await sharded.events(after=offset, limit=2):
        again += [event.task for event in page]
        offset = page[-1].offset
    assert again == [event.task for event in story]
    waiting = asyncio.create_task(sharded.events(after=offset, limit=10, wait_seconds=SOON))
    (task_id,) = await submit(sharded, "late")
    (event,) = await waiting
    assert (event.task, event.kind) == (task_id, TaskEventKind.SUBMITTED)
    (newest,) = await sharded.events(after="$", limit=10)
    assert await sharded.events(after=newest.offset, limit=10) == []
    with pytest.raises(InvalidTaskError) as refused:
        await sharded.events(after="5", limit=1)
    assert refused.value.field == "after"


async def test_a_schedule_fires_once_for_each_due_time(sharded: ShardedTaskQueue) -> None:
    due = datetime(2030, 1, 1, tzinfo=UTC)

    async def fire(when: datetime) -> bool:
        return await sharded.fire("nightly", when, TaskRequest(id=f"nightly.{when:%Y%m%dT%H%M%SZ}"))

    times = [due + timedelta(hours=hour) for hour in range(6)]
    assert [await fire(when) for when in times] == [True] * 6
    assert [await fire(when) for when in times] == [False] * 6
    assert await sharded.fired() == {"nightly": times[-1]}


async def test_processes_are_known_to_the_queue_as_a_whole(sharded: ShardedTaskQueue) -> None:
    said = Interface(description="Counts words.")
    beat = Beat(worker=ALICE, version="1", concurrency=1, running=0, draining=False, started_at_ms=0, interface=said)
    await sharded.beat(beat)
    await spread(sharded, agent=ALICE.agent)
    await submit(sharded, 1, agent="nobody")
    (known,) = await sharded.interfaces()
    assert (known.agent, known.queue, known.description) == (ALICE.agent, sharded.name, "Counts words.")
    stats = await sharded.stats()
    assert (stats.unroutable, stats.unroutable_targets) == (1, {"agent/nobody": 1})
    (instance,) = await sharded.instances(timeout_seconds=60)
    assert (instance.instance, instance.queue, instance.healthy) == (ALICE.instance, sharded.name, True)
    assert await sharded.forget_silent(silent_seconds=60) == []
    await sharded.leave(ALICE)
    assert await sharded.instances(timeout_seconds=60) == []
    assert (await sharded.storage()).server.split()[0] in ("memory", *binaries())


async def test_a_cordon_holds_in_all_shards(sharded: ShardedTaskQueue) -> None:
    beat = Beat(worker=ALICE, version="1", concurrency=1, running=0, draining=False, started_at_ms=0)
    await sharded.beat(beat)
    waiting = asyncio.create_task(sharded.claim(ALICE, limit=1, wait_seconds=FOREVER))
    await asyncio.sleep(0.05)  # until it sleeps; if it does not yet, its first look tells it
    await sharded.cordon([ALICE.instance], by="ada")
    with pytest.raises(CordonedError):
        await asyncio.wait_for(waiting, SOON)
    await spread(sharded, agent=ALICE.agent)
    with pytest.raises(CordonedError):
        await sharded.claim(ALICE, limit=1, wait_seconds=NOW)
    assert await sharded.beat(beat) == Orders(cordoned=True)
    (instance,) = await sharded.instances(timeout_seconds=60)
    assert instance.cordoned_by == ["ada"]
    await sharded.uncordon([ALICE.instance], by="ada")
    assert await sharded.beat(beat) == Orders(cordoned=False)
    assert len(await sharded.claim(ALICE, limit=1, wait_seconds=NOW)) == 1


async def test_a_cordon_that_has_reached_one_shard_is_an_order_and_gives_back_what_others_gave(
    sharded: ShardedTaskQueue,
) -> None:
    beat = Beat(worker=ALICE, version="1", concurrency=1, running=0, draining=False, started_at_ms=0)
    ids = await spread(sharded)
    await sharded.shards[-1].cordon([ALICE.instance], by="ada")
    assert await sharded.beat(beat) == Orders(cordoned=True)
    (instance,) = await sharded.instances(timeout_seconds=60)
    assert instance.cordoned_by == ["ada"]
    for _ in sharded.shards:
        with pytest.raises(CordonedError):
            await sharded.claim(ALICE, limit=len(ids), wait_seconds=NOW)
    assert (await sharded.stats()).queued == len(ids)


async def test_waiting_tasks_are_summed_over_the_shards(sharded: ShardedTaskQueue) -> None:
    anybody = await spread(sharded)
    echo = await spread(sharded, agent="echo")
    stats = await sharded.stats()
    assert stats.waiting == {"": len(anybody), "agent/echo": len(echo)}
    assert stats.oldest_seconds >= 0
    assert stats.oldest_at is not None


async def test_waiters_are_told_wherever_their_tasks_are(sharded: ShardedTaskQueue) -> None:
    ids = await spread(sharded)
    waiting = asyncio.create_task(sharded.wait(ids, timeout_seconds=FOREVER))
    claims = await sharded.claim(ALICE, limit=10, wait_seconds=NOW)
    await sharded.settle(succeeded(claims, "done"))
    assert {record.state for record in await told(waiting)} == {TaskState.SUCCEEDED}
    with pytest.raises(TaskNotFoundError):
        await sharded.wait([*ids, "nobody"], timeout_seconds=FOREVER)


async def test_a_dead_node_takes_only_its_shards_with_it(
    redis_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 0.5)
    settings = ("cluster-require-full-coverage no",)
    with redis_cluster(redis_binary, tmp_path, settings=settings) as cluster:
        config = queue_config("work", shards=8)
        queue = open_queue(config, url=cluster.url)
        load = Load([queue])
        async with load.running():
            await load.settled(50)
        await load.check()
        for number in range(8):
            await submit(queue, number)
        owners = [cluster.owner(f"ka:{{tests/work#{number}}}:t:") for number in range(8)]
        assert len({owner.port for owner in owners}) > 1
        dead = owners[0]
        dead.kill()
        found: list[int] = []
        worker = Worker(agent="echo", instance="w")
        left = {number for number, owner in enumerate(owners) if owner is not dead}
        async with asyncio.timeout(3 * SOON):
            while len(found) < len(left):
                found += payloads(await queue.claim(worker, limit=8, wait_seconds=5))
        await queue.aclose()
