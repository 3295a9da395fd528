# SPDX-License-Identifier: Apache-2.0
"""The figures of a queue, and who works for it."""

from datetime import timedelta

import pytest

from agent_runtime.queue import Beat, TaskQueue, Worker
from kubeagents_api.limits import QueueLimits
from kubeagents_api.task import DeadFilter
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    claim_one,
    die,
    failed,
    submit,
    succeed,
    succeeded,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime


def beat(worker: Worker, **fields: object) -> Beat:
    """A heartbeat."""
    known = {"version": "1.2.3", "concurrency": 4, "running": 1, "draining": False, "started_at_ms": 1_700_000_000_000}
    return Beat(worker=worker, **{**known, **fields})  # type: ignore[arg-type]


async def test_every_task_counts_in_its_state(queue: TaskQueue, pass_time: PassTime, now: Now) -> None:
    await die(queue, "dead", "dead-2")
    await submit(queue, "expired", deadline=now() + timedelta(seconds=0.2))
    await pass_time(0.2)
    await queue.stats()
    await submit(queue, "good")
    await succeed(queue)
    await submit(queue, "bad")
    await queue.settle(failed(await claim_one(queue), permanent=True))
    await queue.cancel(await submit(queue, "cancelled"), by="test")
    await submit(queue, "running", id="running")
    await claim_one(queue)
    await submit(queue, "scheduled", delay_seconds=60)
    await submit(queue, "blocked", depends_on=["running"])
    await submit(queue, "queued", agent="echo")
    await submit(queue, "queued", tenant="acme")
    await submit(queue, "queued")
    stats = await queue.stats()
    assert (stats.queued, stats.running, stats.scheduled, stats.blocked, stats.dead) == (3, 1, 1, 1, 2)
    assert (stats.succeeded_total, stats.failed_total, stats.cancelled_total, stats.expired_total) == (1, 3, 1, 1)
    assert stats.submitted_total == 12
    assert (stats.paused_by, stats.closed_by) == ([], [])


async def test_a_new_queue_counts_nothing(queue: TaskQueue) -> None:
    stats = await queue.stats()
    assert stats.oldest_at is None
    assert {value for value in stats.model_dump().values() if isinstance(value, int)} == {0}


async def test_totals_outlive_the_tasks(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(result_ttl_seconds=1)
    await submit(queue, "work")
    await succeed(queue)
    await die(queue, "dead")
    await queue.purge(DeadFilter(), by="test")
    await pass_time(1)
    stats = await queue.stats()
    assert (stats.succeeded_total, stats.failed_total, stats.submitted_total, stats.dead) == (1, 1, 2, 0)


async def test_the_oldest_waiting_task_is_told_whatever_its_priority(queue: TaskQueue, pass_time: PassTime) -> None:
    (oldest,) = await submit(queue, "oldest", priority=0, agent="count")
    await pass_time(0.01)
    await submit(queue, "newer", priority=9)
    assert (await queue.stats()).oldest_at == (await queue.get(oldest)).created_at
    await succeed(queue, CAROL)  # takes the newer one
    assert (await queue.stats()).oldest_at == (await queue.get(oldest)).created_at
    await succeed(queue, CAROL)
    assert (await queue.stats()).oldest_at is None


async def test_tenants_and_turns_do_not_disturb_the_figures(queue: TaskQueue) -> None:
    for n in range(12):
        await submit(queue, n, tenant=("a", "b", None)[n % 3], priority=n % 2 + 4)
    for left in range(11, -1, -1):
        await succeed(queue)
        assert (await queue.stats()).queued == left


# ── routing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tasks_that_no_known_process_takes_are_told(queue: TaskQueue) -> None:
    worker = Worker("echo", "echo-1", ("ocr",))
    await submit(queue, "any")
    await submit(queue, 1, 2, agent="echo")
    await submit(queue, 1, capability="ocr")
    await submit(queue, 1, instance="echo-1")
    await submit(queue, 1, 2, 3, agent="billing")
    await submit(queue, 1, capability="pdf")
    await submit(queue, 1, 2, instance="echo-2")
    stats = await queue.stats()
    assert stats.unroutable == 10
    await queue.beat(beat(worker))
    stats = await queue.stats()
    assert stats.unroutable == 6
    assert stats.unroutable_targets == {"agent/billing": 3, "instance/echo-2": 2, "capability/pdf": 1}
    assert stats.queued == 11


async def test_tasks_for_any_agent_are_never_unroutable(queue: TaskQueue) -> None:
    await submit(queue, "any")
    stats = await queue.stats()
    assert (stats.unroutable, stats.unroutable_targets) == (0, {})


async def test_tasks_are_unroutable_again_when_the_last_process_has_left(queue: TaskQueue) -> None:
    await submit(queue, "work", agent="echo")
    await queue.beat(beat(ALICE))
    await queue.beat(beat(BOB))
    await queue.leave(ALICE)
    assert (await queue.stats()).unroutable == 0
    await queue.leave(BOB)
    assert (await queue.stats()).unroutable_targets == {"agent/echo": 1}


async def test_only_tasks_that_wait_are_unroutable(queue: TaskQueue) -> None:
    await submit(queue, "scheduled", agent="nobody", delay_seconds=60)
    await submit(queue, "running", agent="echo")
    await claim_one(queue)
    assert (await queue.stats()).unroutable == 0


async def test_unroutable_tasks_of_tenants_count_too(queue: TaskQueue) -> None:
    await submit(queue, 1, 2, agent="nobody", tenant="acme")
    await submit(queue, 3, agent="nobody")
    stats = await queue.stats()
    assert (stats.unroutable, stats.unroutable_targets) == (3, {"agent/nobody": 3})


async def test_at_most_twenty_targets_are_named(queue: TaskQueue) -> None:
    for n in range(25):
        await submit(queue, n, agent=f"agent-{n}")
    stats = await queue.stats()
    assert (stats.unroutable, len(stats.unroutable_targets)) == (25, 20)


async def test_waiting_tasks_are_told_by_target(queue: TaskQueue) -> None:
    await submit(queue, 1, 2, 3)
    await submit(queue, 4, tenant="acme")
    await submit(queue, 1, 2, agent="echo")
    await submit(queue, 3, agent="echo", tenant="acme")
    await submit(queue, 1, capability="ocr")
    await submit(queue, 1, instance="echo-1")
    await submit(queue, 1, agent="later", delay_seconds=60)
    expected = {"": 4, "agent/echo": 3, "capability/ocr": 1, "instance/echo-1": 1}
    waiting = (await queue.stats()).waiting
    assert waiting == expected
    assert list(waiting) == list(expected)
    await claim_one(queue, ALICE)
    assert sum((await queue.stats()).waiting.values()) == 8


async def test_the_oldest_waiting_task_is_told_by_target(queue: TaskQueue, pass_time: PassTime) -> None:
    first = await submit(queue, 1, agent="echo", tenant="acme")
    await pass_time(0.01)
    await submit(queue, 2, agent="echo", priority=9)
    other = await submit(queue, 3)
    await submit(queue, 4, agent="later", delay_seconds=60)
    created = {target: (await queue.get(ids[0])).created_at for target, ids in (("agent/echo", first), ("", other))}
    stats = await queue.stats()
    assert stats.waiting_since == created
    assert stats.oldest_at == created["agent/echo"]
    await queue.cancel(first, by="test")
    stats = await queue.stats()
    assert stats.waiting_since["agent/echo"] > created["agent/echo"]
    assert stats.oldest_at == stats.waiting_since["agent/echo"]


async def test_at_most_two_hundred_targets_of_waiting_tasks_are_named(queue: TaskQueue) -> None:
    for n in range(205):
        await submit(queue, n, agent=f"agent-{n:03}")
    await submit(queue, 1, agent="agent-204")
    stats = await queue.stats()
    assert (stats.queued, len(stats.waiting)) == (206, 200)
    assert stats.waiting["agent/agent-204"] == 2


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_heartbeat_tells_about_a_process(queue: TaskQueue, now: Now) -> None:
    await queue.beat(beat(Worker("echo", "echo-1", ("ocr", "pdf")), running=2, draining=True))
    (known,) = await queue.instances(timeout_seconds=60)
    assert (known.agent, known.instance, known.capabilities) == ("echo", "echo-1", ["ocr", "pdf"])
    assert (known.version, known.concurrency, known.running, known.draining) == ("1.2.3", 4, 2, True)
    assert known.queue == queue.name
    assert known.started_at.timestamp() == 1_700_000_000
    assert abs(known.last_beat_at - now()) < timedelta(seconds=10)
    assert known.healthy


async def test_the_last_heartbeat_counts(queue: TaskQueue) -> None:
    for running in (1, 3):
        await queue.beat(beat(ALICE, running=running))
    (known,) = await queue.instances(timeout_seconds=60)
    assert known.running == 3


async def test_processes_are_sorted_by_agent_and_name(queue: TaskQueue) -> None:
    for worker in (BOB, CAROL, ALICE):
        await queue.beat(beat(worker))
    known = await queue.instances(timeout_seconds=60)
    assert [instance.instance for instance in known] == ["count-carol", "echo-alice", "echo-bob"]


async def test_a_silent_process_is_not_healthy_and_can_be_forgotten(queue: TaskQueue, pass_time: PassTime) -> None:
    await queue.beat(beat(ALICE))
    await pass_time(0.6)
    await queue.beat(beat(BOB))
    known = await queue.instances(timeout_seconds=0.5)
    assert [(instance.instance, instance.healthy) for instance in known] == [("echo-alice", False), ("echo-bob", True)]
    assert await queue.forget_silent(silent_seconds=0.5) == ["echo-alice"]
    assert await queue.forget_silent(silent_seconds=0.5) == []
    assert [instance.instance for instance in await queue.instances(timeout_seconds=60)] == ["echo-bob"]


async def test_the_storage_says_what_it_is(queue: TaskQueue) -> None:
    storage = await queue.storage()
    assert storage.server.split()[0] in ("memory", "redis", "valkey")
    assert storage.latency_ms >= 0
    assert storage.append_only is False


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_claim_of_nothing_is_refused(queue: TaskQueue, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        await queue.claim(ALICE, limit=limit, wait_seconds=NOW)


async def test_figures_and_depth_agree(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(max_depth=2))
    for n in range(6):
        await submit(queue, n, tenant="acme" if n % 2 else None)
        claim = await claim_one(queue)
        await queue.settle(succeeded([claim]) if n % 3 else failed(claim, permanent=True))
    await submit(queue, 1, 2)
    stats = await queue.stats()
    assert (stats.queued, stats.submitted_total) == (2, 8)
