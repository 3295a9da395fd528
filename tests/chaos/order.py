# SPDX-License-Identifier: Apache-2.0
"""A round about order: whatever happened to tasks, at a quiet moment they come by priority and first in, first out.

Producers submit while nobody works. Then workers take some, fail some, give some back, are killed and frozen. Once all
of them are dead and their leases over, one consumer takes all that is left, alone: the order in which it gets the tasks
must be that of their submission, as if nothing had been.
"""

import asyncio
import contextlib
import random
import time
from pathlib import Path

from agent_runtime.queue import TaskQueue, open_queue
from tests.chaos.checker import check
from tests.chaos.errands import Errand, Mix
from tests.chaos.evidence import Evidence
from tests.chaos.faults import (
    Fault,
    inject,
    redis_killed,
    scripts_flushed,
    worker_frozen,
    worker_killed,
    worker_stopped,
)
from tests.chaos.round import Result, Say, all_ended, ask, finish, known, producers_end, result_of
from tests.chaos.stage import LEASE_SECONDS, Layout, Stage
from tests.chaos.turns import check_order
from tests.support.eventually import eventually_async

NAME = "order"
ABOUT = "after kills, freezes and retries one consumer is given all that is left in the order of its submission"
MOST_TASKS = 4000
FAULTS: tuple[Fault, ...] = (worker_killed, worker_frozen, worker_stopped)
BETWEEN: tuple[Fault, ...] = (redis_killed, scripts_flushed)
"""What may happen at the quiet moment itself."""
MIX = Mix(again=0.3, nameless=0.2)
QUIET_SECONDS = 30.0


async def play(
    *, tasks: int, seconds: float, seed: str, folder: Path, binary: Path, say: Say, sabotage: str = ""
) -> Result:
    """Play a round. `seconds` is not needed: the producers submit as fast as they can."""
    begun = time.monotonic()
    dice = random.Random(f"{seed}/order")
    tasks = min(tasks, MOST_TASKS)
    async with Stage(folder, seed, binary, Layout(producers=1, workers=3), sabotage=sabotage) as stage:
        client = open_queue(stage.queue, url=stage.own_url)
        try:
            say("submitting")
            stage.start_producers(mix=MIX, tasks=tasks, seconds=0, batch_size=max(10, tasks // 20), cancels=False)
            await producers_end(stage)
            say("disturbing")
            # So many at a time that some are left when the disturbance is over.
            most = max(2, tasks // 60)
            stage.start_workers(batches=(1, most // 2, most), hold_seconds=(0.2, 0.6))
            await inject(stage, FAULTS, every=0.3, until=asyncio.sleep(LEASE_SECONDS * 1.5))
            for member in stage.workers:
                member.kill()
            stage.workers.clear()
            await stage.calm()
            say("waiting for the leases to end")
            await eventually_async(lambda: _quiet(client), what="all leases and waits are over", timeout=QUIET_SECONDS)
            if dice.random() < 0.5:
                fault = dice.choice(BETWEEN)
                await fault(stage)
                stage.faults[fault.__name__] += 1
            say("one consumer")
            waiting = await _waiting(client, stage)
            consumer = stage.start_worker(0, honest=True, hands=1, batches=(1, 7, 50), hold_seconds=(0.0, 0.0))
            await all_ended(client, say)
            await finish(stage)
            evidence = Evidence()
            evidence.read(stage.journals)
            await ask(client, evidence)
        finally:
            await client.aclose()
        verdict = check(evidence)
        alone = Evidence()
        alone.read_one(stage.journal(consumer))
        verdict.findings += check_order(waiting, [task for claim in alone.claims for task in claim])
        verdict.counts["places_checked"] = len(waiting)
        return result_of(NAME, stage, verdict, begun)


async def _quiet(client: TaskQueue) -> bool:
    stats = await client.stats()
    return stats.running == stats.scheduled == 0


async def _waiting(client: TaskQueue, stage: Stage) -> list[tuple[str, Errand]]:
    """What waits now, in the order of its submission."""
    evidence = Evidence()
    with contextlib.suppress(FileNotFoundError):
        evidence.read(stage.journals)
    submitted = [
        (task, errand)
        for submission in sorted(evidence.submissions, key=lambda submission: submission.batch)
        for task, errand in zip(submission.ids or (), submission.errands, strict=True)
    ]
    ended = {record.id for record in await known(client, [task for task, _ in submitted]) if record.state.final}
    return [(task, errand) for task, errand in submitted if task not in ended]
