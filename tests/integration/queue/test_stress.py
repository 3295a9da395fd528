# SPDX-License-Identifier: Apache-2.0
"""Many workers at once, some of them bad: every task ends once, and none is lost."""

import asyncio
import random
from collections import Counter

from agent_runtime.queue import Claim, Outcome, Succeeded, Worker
from kubeagents_api.task import TaskState
from kubeagents_api.task_queue import RetryPolicy
from tests.integration.queue.actors import failed, submit, succeeded
from tests.integration.queue.conftest import OpenQueue

TASKS = 3000
WORKERS = 12


async def test_every_task_gets_exactly_one_final_state(open_test_queue: OpenQueue) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    retry = RetryPolicy(max_attempts=4, initial_seconds=0.01, max_seconds=0.05)
    queues = [open_test_queue(lease_seconds=0.5, retry=retry) for _ in range(4)]
    accepted: Counter[str] = Counter()
    stale_accepted = 0
    over = asyncio.Event()

    def ending(claim: Claim) -> list[Outcome]:
        roll = dice.random()
        if roll < 0.8:
            return [*succeeded([claim], claim.attempt)]
        if roll < 0.9:
            return [*failed(claim)]
        return [*failed(claim, permanent=True)]

    def final(outcome: Outcome) -> bool:
        last = outcome.claim.attempt == outcome.claim.max_attempts
        return isinstance(outcome, Succeeded) or outcome.permanent or last

    async def work(n: int) -> None:
        nonlocal stale_accepted
        queue = queues[n % len(queues)]
        worker = Worker(agent=f"agent-{n % 3}", instance=f"worker-{n}")
        while not over.is_set():
            claims = await queue.claim(worker, limit=dice.choice([1, 5, 40]), wait_seconds=0.2)
            roll = dice.random()
            if roll < 0.05:
                continue  # dies: the leases run out
            if roll < 0.15:
                half = len(claims) // 2
                await queue.release(claims[half:])  # drains
                refused = await queue.settle(succeeded(claims[half:]))
                stale_accepted += sum(refused)
                claims = claims[:half]
            outcomes = [outcome for claim in claims for outcome in ending(claim)]
            for outcome, ok in zip(outcomes, await queue.settle(outcomes), strict=True):
                accepted[outcome.claim.id] += ok and final(outcome)

    async def watch(ids: list[str]) -> None:
        records = await queues[0].wait(ids, timeout_seconds=100)
        over.set()
        assert all(record.state.final for record in records)

    ids: list[str] = []
    for n in range(TASKS // 100):
        agent = f"agent-{n % 3}" if n % 2 else None
        ids += await submit(queues[n % 4], *range(100), agent=agent, priority=n % 10)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch(ids))
        for n in range(WORKERS):
            group.create_task(work(n))

    records = await queues[1].wait(ids, timeout_seconds=0)
    states = Counter(record.state for record in records)
    stats = await queues[2].stats()
    assert stale_accepted == 0
    assert sum(states.values()) == TASKS
    assert (stats.queued, stats.running, stats.scheduled) == (0, 0, 0)
    assert stats.succeeded_total == states[TaskState.SUCCEEDED]
    assert stats.failed_total == states[TaskState.FAILED] + states[TaskState.DEAD]
    assert stats.dead == states[TaskState.DEAD]
    # Whoever was told that an outcome was accepted and final was the only one.
    assert max(accepted.values()) == 1
    for record in records:
        assert [failure.attempt for failure in record.failures] == list(range(1, len(record.failures) + 1))
        expected = len(record.failures) + (record.state is TaskState.SUCCEEDED)
        assert record.attempts == expected
