# SPDX-License-Identifier: Apache-2.0
"""How many tasks start and run, and how tenants share a queue."""

import asyncio
from typing import Any

from agent_runtime.queue import TaskQueue
from kubeagents_api.limits import QueueLimits, RateLimit, TenantLimits
from kubeagents_api.task import TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    NOW,
    claim_all,
    claim_one,
    failed,
    payloads,
    states,
    submit,
    succeed,
    succeeded,
    tasks,
    told,
)
from tests.conformance.queue.conftest import OpenQueue, PassTime


def rate(tasks: int, per_seconds: float, burst: int | None = None) -> RateLimit:
    """A rate."""
    return RateLimit(tasks=tasks, per_seconds=per_seconds, burst=burst)


async def submit_for(queue: TaskQueue, *names: str, **fields: Any) -> None:
    """Queue a task for each name; its first letter is the tenant, `-` stands for none."""
    for name in names:
        await submit(queue, name, tenant=None if name[0] == "-" else name[0], **fields)


async def next_ones(queue: TaskQueue, count: int) -> list[Any]:
    """The payloads of the next tasks, taken one by one."""
    return [payload for _ in range(count) for payload in payloads([await claim_one(queue, wait_seconds=NOW)])]


# ── rates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_after_a_quiet_time_as_many_start_as_the_rate_has_tasks(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(rate=rate(3, 3600)))
    await submit(queue, *range(5))
    assert payloads(await queue.claim(ALICE, limit=5, wait_seconds=NOW)) == [0, 1, 2]
    assert await queue.claim(BOB, limit=5, wait_seconds=NOW) == []


async def test_a_burst_may_be_smaller_or_larger_than_the_rate(open_test_queue: OpenQueue) -> None:
    for burst in (1, 7):
        queue = open_test_queue(name=f"burst-{burst}", limits=QueueLimits(rate=rate(3, 3600, burst)))
        await submit(queue, *range(10))
        assert len(await claim_all(queue)) == burst


async def test_starts_are_spread_evenly_once_the_burst_is_used_up(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(limits=QueueLimits(rate=rate(2, 4, 2)))
    await submit(queue, *range(9))
    assert len(await claim_all(queue)) == 2
    await pass_time(2)
    assert len(await claim_all(queue)) == 1


async def test_a_quiet_time_saves_up_no_more_than_the_burst(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(limits=QueueLimits(rate=rate(100, 1, 2)))
    await pass_time(0.5)
    await submit(queue, *range(9))
    assert len(await queue.claim(ALICE, limit=9, wait_seconds=NOW)) == 2


async def test_every_attempt_counts_for_the_rate(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(rate=rate(3, 3600)))
    await submit(queue, "work", max_attempts=9)
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    await queue.release([await claim_one(queue)])
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    assert await claim_all(queue) == []


async def test_a_worker_that_waits_gets_a_task_when_the_rate_allows(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(limits=QueueLimits(rate=rate(1, 0.3)))
    await submit(queue, 1, 2)
    await claim_one(queue)
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await pass_time(0.3)
    assert payloads([await told(claiming)]) == [2]


async def test_a_tenant_at_its_rate_is_passed_over(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(rate=rate(1, 3600))))
    await submit_for(queue, "a1", "a2", "a3", "b1", "-1", "-2")
    assert payloads(await claim_all(queue)) == ["a1", "b1", "-1", "-2"]
    assert (await queue.stats()).queued == 2


async def test_a_worker_that_waits_gets_the_task_of_a_tenant_when_its_rate_allows(
    open_test_queue: OpenQueue, pass_time: PassTime
) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(rate=rate(1, 0.3))))
    await submit_for(queue, "a1", "a2")
    await claim_one(queue)
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await pass_time(0.3)
    assert payloads([await told(claiming)]) == ["a2"]


# ── running tasks ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_more_run_than_the_queue_may(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(concurrency=2))
    await submit(queue, *range(4))
    claims = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
    assert payloads(claims) == [0, 1]
    assert await queue.claim(BOB, limit=1, wait_seconds=NOW) == []
    await queue.settle(succeeded(claims[:1]))
    assert payloads(await claim_all(queue, BOB)) == [2]


async def test_a_worker_that_waits_gets_a_task_when_another_has_ended(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(concurrency=1))
    await submit(queue, 1, 2, 3, 4, 5)
    running = await claim_one(queue)

    async def next_one() -> asyncio.Task[Any]:
        claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
        await asyncio.sleep(0.02)
        assert not claiming.done()
        return claiming

    claiming = await next_one()
    await queue.settle(succeeded([running]))
    running = await told(claiming)
    claiming = await next_one()
    await queue.cancel([running.id], by="test")
    running = await told(claiming)
    claiming = await next_one()
    await queue.settle(failed(running, delay_seconds=60))
    running = await told(claiming)
    claiming = await next_one()
    await queue.release([running])
    assert payloads([await told(claiming)]) == [3 + 1]


async def test_a_lease_that_is_over_makes_room(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(limits=QueueLimits(concurrency=1), lease_seconds=0.25)
    await submit(queue, "work", max_attempts=1)
    await submit(queue, "next")
    await claim_one(queue)
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await pass_time(0.25)
    assert payloads([await told(claiming)]) == ["next"]


async def test_a_tenant_that_has_all_it_may_run_is_passed_over(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(concurrency=1)))
    await submit_for(queue, "a1", "a2", "b1", "-1", "-2", "b2")
    claims = await queue.claim(ALICE, limit=9, wait_seconds=NOW)
    assert payloads(claims) == ["a1", "b1", "-1", "-2"]
    claiming = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await asyncio.sleep(0)
    await queue.settle(succeeded(claims[:1]))
    assert payloads([await told(claiming)]) == ["a2"]
    await queue.settle(failed(claims[1], permanent=True))
    assert payloads(await claim_all(queue)) == ["b2"]


async def test_a_tenants_limit_holds_over_all_lanes(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(concurrency=1)))
    await submit_for(queue, "a1", agent="echo")
    await submit_for(queue, "a2", agent="count")
    await submit_for(queue, "a3")
    claim = await claim_one(queue, wait_seconds=NOW)
    assert await claim_all(queue, CAROL) == []
    await queue.settle(succeeded([claim]))
    assert payloads(await claim_all(queue, CAROL)) == ["a2"]


async def test_the_queues_limit_holds_beside_the_tenants(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(concurrency=3, per_tenant=TenantLimits(concurrency=2)))
    await submit_for(queue, "a1", "a2", "a3", "b1", "b2")
    assert payloads(await queue.claim(ALICE, limit=9, wait_seconds=NOW)) == ["a1", "b1", "a2"]


async def test_without_limits_there_are_none(queue: TaskQueue) -> None:
    await submit_for(queue, *(f"a{n}" for n in range(50)))
    assert len(await queue.claim(ALICE, limit=100, wait_seconds=NOW)) == 50


# ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tenants_take_turns(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert payloads(await claim_all(queue)) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_tenants_take_turns_inside_one_claim(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "a2", "a3", "b1", "b2", "c1")
    claims = await queue.claim(ALICE, limit=9, wait_seconds=NOW)
    assert payloads(claims) == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_tasks_without_tenant_stand_in_line_each_for_itself(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "a2", "-1", "-2", "b1", "-3")
    assert payloads(await claim_all(queue)) == ["a1", "-1", "-2", "b1", "-3", "a2"]


async def test_priority_is_strict_over_the_turns(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "a2", "b1")
    await submit_for(queue, "a-high-1", "a-high-2", "b-high", priority=7)
    await submit_for(queue, "c-low", priority=2)
    assert await next_ones(queue, 3) == ["a-high-1", "b-high", "a-high-2"]
    assert set(await next_ones(queue, 3)) == {"a1", "b1", "a2"}
    assert await next_ones(queue, 1) == ["c-low"]


async def test_a_tenants_own_tasks_keep_their_order(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "b1", "a2", "b2", "a3")
    taken = payloads(await claim_all(queue))
    assert [name for name in taken if name[0] == "a"] == ["a1", "a2", "a3"]
    assert [name for name in taken if name[0] == "b"] == ["b1", "b2"]


async def test_a_tenant_that_comes_late_need_not_wait_for_all_of_an_early_one(queue: TaskQueue) -> None:
    await submit_for(queue, *(f"a{n}" for n in range(9)))
    assert await next_ones(queue, 3) == ["a0", "a1", "a2"]
    await submit_for(queue, "b0", "b1")
    assert "b0" in await next_ones(queue, 2)


async def test_a_retried_task_goes_before_the_others_of_its_tenant(queue: TaskQueue) -> None:
    await submit_for(queue, "a1", "a2", "b1")
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    taken = payloads(await claim_all(queue))
    assert taken.index("a1") < taken.index("a2")


async def test_a_tenants_task_that_leaves_the_line_does_not_hold_the_others_up(queue: TaskQueue) -> None:
    ids = await queue.submit([*tasks("a1", tenant="a"), *tasks("a2", tenant="a"), *tasks("b1", tenant="b")])
    await queue.cancel(ids[:1], by="test")
    assert sorted(payloads(await claim_all(queue))) == ["a2", "b1"]
    await submit_for(queue, "a3")
    assert payloads(await claim_all(queue)) == ["a3"]


async def test_a_parked_tenants_tasks_can_be_cancelled_and_counted(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(concurrency=1)))
    ids = await queue.submit(tasks("a1", "a2", "a3", tenant="a"))
    running = await claim_one(queue)
    assert await claim_all(queue) == []
    assert (await queue.stats()).queued == 2
    await queue.cancel(ids[1:2], by="test")
    assert (await queue.stats()).queued == 1
    await queue.cancel(ids[2:], by="test")
    assert (await queue.stats()).queued == 0
    await queue.settle(succeeded([running]))
    await submit_for(queue, "a4")
    assert await succeed(queue) not in ids
    assert await states(queue, ids) == [TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.CANCELLED]


async def test_a_high_task_of_a_parked_tenant_waits_with_it(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(limits=QueueLimits(per_tenant=TenantLimits(concurrency=1)))
    await submit_for(queue, "a1", "a2")
    running = await claim_one(queue)
    assert await claim_all(queue) == []
    await submit_for(queue, "a-high", priority=9)
    await submit_for(queue, "b1")
    assert payloads(await claim_all(queue)) == ["b1"]
    await queue.settle(succeeded([running]))
    assert payloads(await claim_all(queue)) == ["a-high"]
