# SPDX-License-Identifier: Apache-2.0
"""Which task goes next."""

import random

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import TaskRequest
from tests.integration.queue.actors import ALICE, BOB, CAROL, NOW, claim_one, failed, payloads, submit
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually_async


async def test_higher_priorities_go_first_and_inside_one_the_first_submitted(queue: TaskQueue) -> None:
    numbers = [(random.randint(0, 9), n) for n in range(200)]
    await queue.submit([TaskRequest(payload=[priority, n], priority=priority) for priority, n in numbers[:150]])
    for priority, n in numbers[150:]:
        await submit(queue, [priority, n], priority=priority)

    claimed = []
    while claims := await queue.claim(ALICE, limit=7, wait_seconds=NOW):
        claimed += payloads(claims)
    assert claimed == [list(pair) for pair in sorted(numbers, key=lambda pair: (-pair[0], pair[1]))]


async def test_a_waiting_task_of_a_higher_priority_overtakes_all_others(queue: TaskQueue) -> None:
    await submit(queue, *range(50), priority=8)
    await submit(queue, "urgent", priority=9)
    assert payloads(await queue.claim(ALICE, limit=2, wait_seconds=NOW)) == ["urgent", 0]


async def test_a_task_for_one_agent_is_taken_by_that_agent_only(queue: TaskQueue) -> None:
    await submit(queue, "for count", agent="count")
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
    assert payloads([await claim_one(queue, CAROL)]) == ["for count"]


async def test_the_order_holds_across_the_tasks_for_any_agent_and_those_for_one(queue: TaskQueue) -> None:
    for n in range(20):
        await submit(queue, n, agent="echo" if n % 3 else None)
    await submit(queue, "first", agent="echo", priority=6)
    await submit(queue, "second", priority=6)

    claimed = []
    while claims := await queue.claim(ALICE, limit=4, wait_seconds=NOW):
        claimed += payloads(claims)
    assert claimed == ["first", "second", *range(20)]


async def test_a_released_task_goes_back_to_its_place(queue: TaskQueue) -> None:
    await submit(queue, *range(6))
    first = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
    await queue.release([first[2], first[0], first[1]])
    assert payloads(await queue.claim(BOB, limit=6, wait_seconds=NOW)) == [0, 1, 2, 3, 4, 5]


async def test_a_task_whose_lease_is_over_goes_back_to_its_place(open_test_queue: OpenQueue) -> None:
    await submit(open_test_queue(), "a", "b", "c")
    lost = await claim_one(open_test_queue(lease_seconds=0.01), ALICE)
    assert payloads([lost]) == ["a"]
    queue = open_test_queue()

    async def back() -> bool:
        return (await queue.stats()).queued == 3

    await eventually_async(back, what="the task is queued again")
    assert payloads(await queue.claim(BOB, limit=3, wait_seconds=NOW)) == ["a", "b", "c"]


async def test_a_retried_task_goes_back_to_its_place_once_it_is_due(queue: TaskQueue) -> None:
    await submit(queue, "a", "b", "c")
    first = await claim_one(queue)
    await queue.settle(failed(first, delay_seconds=0))
    assert payloads(await queue.claim(ALICE, limit=3, wait_seconds=NOW)) == ["a", "b", "c"]
