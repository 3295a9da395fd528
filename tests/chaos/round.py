# SPDX-License-Identifier: Apache-2.0
"""An ordinary round: producers submit, workers work, faults happen; then all is calm until the last task has ended."""

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.queue import TaskQueue, open_queue
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import DeadFilter, TaskRecord, TaskState
from tests.chaos.checker import check
from tests.chaos.crew import END_SECONDS, Member
from tests.chaos.errands import Mix
from tests.chaos.evidence import Evidence, Final, Happening
from tests.chaos.faults import Fault, inject
from tests.chaos.findings import Verdict
from tests.chaos.stage import Layout, Stage, queue_config

STILL_SECONDS = 60.0
"""When all is calm, so long without any task ending means that the rest is lost. Leases last a second or two."""
BATCH_SIZE = 250
_CHUNK = 1000
_EVENTS = 5000

Say = Callable[[str], None]
"""Tells how far a round is."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a round is like."""

    name: str
    about: str
    faults: tuple[Fault, ...]
    layout: Layout = field(default_factory=Layout)
    mixes: tuple[Mix, ...] = (Mix(),)
    """One of them is chosen for each round."""
    every: float = 0.4
    """Seconds from fault to fault, on average."""
    cancels: bool = False
    replays: bool = False
    """Whether dead tasks are cured and replayed at the end."""
    queue: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the queue's configuration."""
    orders: Mapping[str, Any] = field(default_factory=dict)
    """Changes of what the workers are told."""


@dataclass(slots=True)
class Result:
    """How a round went."""

    scene: str
    seed: str
    verdict: Verdict
    faults: Counter[str]
    seconds: float
    folder: Path


async def play(
    scene: Scene, *, tasks: int, seconds: float, seed: str, folder: Path, binary: Path, say: Say, sabotage: str = ""
) -> Result:
    """Play a round of about so many tasks, submitted over so many seconds."""
    begun = time.monotonic()
    dice = random.Random(f"{seed}/scene")
    queue = queue_config(**scene.queue)
    async with Stage(folder, seed, binary, scene.layout, queue, sabotage) as stage:
        client = open_queue(stage.queue, url=stage.own_url)
        try:
            stage.start_workers(**scene.orders)
            await stage.at_work()
            size = max(10, min(BATCH_SIZE, tasks // 20))
            stage.start_producers(
                mix=dice.choice(scene.mixes), tasks=tasks, seconds=seconds, batch_size=size, cancels=scene.cancels
            )
            say("working")
            await inject(stage, scene.faults, every=scene.every, until=producers_end(stage))
            await stage.calm()
            await producers_end(stage)
            say("finishing")
            await all_ended(client, say)
            if scene.replays:
                (stage.journals / "cured").touch()
                await client.replay(DeadFilter(), by="chaos")
                await all_ended(client, say)
            await finish(stage)
            say("checking")
            evidence = Evidence(one_order=stage.queue.shards == 1)
            evidence.read(stage.journals)
            await ask(client, evidence)
        finally:
            await client.aclose()
        return result_of(scene.name, stage, check(evidence), begun)


def result_of(name: str, stage: Stage, verdict: Verdict, begun: float) -> Result:
    verdict.counts["late_outcomes_refused"] += sum(
        len(agent.logged("came too late")) for agent in (*stage.agents, *stage.former_agents)
    )
    return Result(name, stage.seed, verdict, stage.faults, time.monotonic() - begun, stage.folder)


async def producers_end(stage: Stage) -> None:
    """Until all is submitted. A producer that fails has failed the round: it repeats whatever may be repeated."""
    while any(member.alive for member in stage.producers):
        await asyncio.sleep(0.05)
        for member in stage.crew.members:
            if not member.alive:
                _check_end(stage, member)


def _check_end(stage: Stage, member: Member) -> None:
    """Whether a process has ended as it should: by itself, or killed. Nothing that happens in a round is an excuse."""
    if member.process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
        raise RuntimeError(
            f"{member.name} should have ended in order, but has exit code {member.process.exitcode}: "
            f"{stage.last_words(member)}"
        )


async def all_ended(client: TaskQueue, say: Say) -> None:
    """Until no task is left that has not ended, or nothing has moved for long."""
    best, moved = float("inf"), time.monotonic()
    while True:
        stats = await client.stats()
        left = stats.queued + stats.running + stats.scheduled + stats.blocked
        if not left:
            return
        say(f"{left:,} left")
        if left < best:
            best, moved = left, time.monotonic()
        if time.monotonic() - moved > STILL_SECONDS:
            return  # the checker finds out what is lost
        await asyncio.sleep(0.1)


async def finish(stage: Stage) -> None:
    """Let all end in order: what they have to say is in their journals then."""
    for member in stage.workers:
        member.finish()
    for agent in stage.agents:
        agent.running.terminate()
    for member in stage.crew.members:
        await asyncio.to_thread(member.process.join, END_SECONDS)
        _check_end(stage, member)
    for agent in stage.agents:
        try:
            await asyncio.to_thread(agent.running.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{agent.instance} does not end; it has said {agent.lines[-5:]}") from None


async def ask(client: TaskQueue, evidence: Evidence) -> None:
    """Add what the queue itself says when all is over."""
    sure = {task for submission in evidence.submissions for task in submission.ids or ()}
    sure |= {start.task for start in evidence.starts}
    unsure = {
        errand.id for submission in evidence.submissions for errand in submission.errands if errand.id is not None
    }
    records = [record for chunk in _chunks(sorted(sure)) for record in await known(client, chunk)]
    records += await _known_of(client, sorted(unsure - sure))
    evidence.finals = {record.id: _final(record) for record in records}
    stats = await client.stats()
    evidence.totals = {name: value for name, value in stats.model_dump().items() if isinstance(value, int)}
    evidence.happenings = await _happenings(client)


async def known(client: TaskQueue, tasks: Sequence[str]) -> list[TaskRecord]:
    """The records of tasks that should be there; those that are not are left out."""
    try:
        return await client.wait(tasks, timeout_seconds=0)
    except TaskNotFoundError:
        return await _known_of(client, tasks)


async def _known_of(client: TaskQueue, tasks: Iterable[str]) -> list[TaskRecord]:
    found = []
    for task in tasks:
        try:
            found.append(await client.get(task))
        except TaskNotFoundError:
            continue  # the checker says whether that is bad
    return found


async def _happenings(client: TaskQueue) -> list[Happening]:
    happenings: list[Happening] = []
    after = ""
    while events := await client.events(after=after, limit=_EVENTS):
        happenings += [Happening(event.kind.value, event.task, event.attempt) for event in events]
        after = events[-1].offset
    return happenings


def _final(record: TaskRecord) -> Final:
    result = record.result if record.state is TaskState.SUCCEEDED else None
    return Final(
        state=record.state.value,
        attempts=record.attempts,
        max_attempts=record.max_attempts,
        replays=record.replays,
        token=str(result["token"]) if isinstance(result, dict) else None,
        failures=tuple(failure.code for failure in record.failures),
    )


def _chunks(tasks: Sequence[str]) -> Iterable[Sequence[str]]:
    return (tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK))
