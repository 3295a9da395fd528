# SPDX-License-Identifier: Apache-2.0
"""A round about idleness: work of a dead worker goes on although no new task arrives that would wake the others.

A victim takes all tasks. Another worker finds nothing and blocks. Then the victim is killed, frozen or cut off; nothing
is submitted any more. The idle worker must be given all the tasks once the lease is over.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_runtime.queue import TaskQueue, open_queue
from tests.chaos.checker import check
from tests.chaos.crew import Member
from tests.chaos.errands import Errand, Errands, Mix
from tests.chaos.evidence import Evidence, Journal, entries, now
from tests.chaos.findings import Breach, Finding
from tests.chaos.producer import submit
from tests.chaos.round import Result, Say, all_ended, ask, finish, result_of
from tests.chaos.stage import LEASE_SECONDS, Layout, Stage
from tests.support.eventually import eventually_async

NAME = "takeover"
ABOUT = "an idle worker takes over from a dead one, though no new task wakes it"
FATES = ("killed", "frozen", "cut_off")
MOST_TASKS = 30
"""Of each victim."""
SOON_SECONDS = 30.0
"""Within this time the idle worker must have all. It takes the lease, and what a busy machine needs."""
IDLE_SECONDS = 600.0
"""How long the idle worker is ready to wait: it is the queue that must wake it."""
HOLD_SECONDS = LEASE_SECONDS * 2.5
"""How long a victim works: when it wants to settle, its lease is long over."""


async def play(
    *, tasks: int, seconds: float, seed: str, folder: Path, binary: Path, say: Say, sabotage: str = ""
) -> Result:
    """Play a round: one act for each fate. `seconds` is not needed."""
    begun = time.monotonic()
    fates = random.Random(f"{seed}/takeover").sample(FATES, len(FATES))
    findings: list[Finding] = []
    slowest = 0.0
    async with Stage(folder, seed, binary, Layout(producers=0, workers=0), sabotage=sabotage) as stage:
        client = open_queue(stage.queue, url=stage.own_url)
        try:
            journal = Journal(stage.journals / "harness.journal")
            errands = Errands(seed=seed, producer="harness", mix=Mix(), size=max(1, min(tasks // 3, MOST_TASKS)))
            for act, fate in enumerate(fates):
                say(fate.replace("_", " "))
                took = await _act(stage, fate, client, journal, errands.batch(act), act=act)
                stage.faults[f"worker_{fate}"] += 1
                if took is None:
                    text = f"of a worker that was {fate} did not go on within {SOON_SECONDS:g} s, though one was idle"
                    findings.append(Finding(Breach.IDLE, "(all)", text))
                    break
                slowest = max(slowest, took)
            await all_ended(client, say)
            await finish(stage)
            evidence = Evidence()
            evidence.read(stage.journals)
            await ask(client, evidence)
        finally:
            await client.aclose()
        verdict = check(evidence)
        verdict.findings += findings
        verdict.counts["slowest_takeover_ms"] = round(slowest * 1000)
        return result_of(NAME, stage, verdict, begun)


async def _act(
    stage: Stage, fate: str, client: TaskQueue, journal: Journal, errands: Sequence[Errand], *, act: int
) -> float | None:
    """Seconds from the victim's end until the idle worker had all its tasks; None if that took too long."""
    count = len(errands)
    orders: dict[str, Any] = {"hands": 1, "batches": (count,), "honest": True, "claim_seconds": IDLE_SECONDS}
    cut_off = fate == "cut_off"
    victim = stage.start_worker(
        2 * act, url=stage.proxy_url if cut_off else stage.own_url, hold_seconds=(HOLD_SECONDS, HOLD_SECONDS), **orders
    )
    await submit(client, journal, errands, producer="harness", number=act)
    await eventually_async(lambda: _has(stage, victim, count), what="the victim has all tasks", timeout=SOON_SECONDS)
    idle = stage.start_worker(2 * act + 1, hold_seconds=(0.0, 0.0), **orders)
    await eventually_async(lambda: _idles(stage), what="the other worker is idle", timeout=SOON_SECONDS)
    async with contextlib.AsyncExitStack() as stack:
        match fate:
            case "killed":
                victim.kill()
            case "frozen":
                victim.freeze()
                stack.callback(victim.thaw)
            case "cut_off":
                await stack.enter_async_context(stage.proxy.refusing())
        begun = now()
        try:
            await eventually_async(lambda: _has(stage, idle, count), what="all is taken over", timeout=SOON_SECONDS)
        except AssertionError:
            return None
        took = now() - begun
    victim.finish()
    idle.finish()
    for member in (victim, idle):
        await asyncio.to_thread(member.process.join, SOON_SECONDS)
    return took


async def _has(stage: Stage, member: Member, tasks: int) -> bool:
    """Whether a worker has been given so many tasks."""
    journal = stage.journal(member)
    if not journal.exists():
        return False
    return tasks <= sum(len(entry["tasks"]) for entry in entries(journal) if entry["kind"] == "claimed")


async def _idles(stage: Stage) -> bool:
    """Whether a worker blocks, as the server sees it."""
    with stage.server.client() as admin:
        figures = admin.info("clients")
    assert isinstance(figures, dict)
    return bool(figures["blocked_clients"])
