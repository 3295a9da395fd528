# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a round. Each fault is a coroutine function; its name is what the report counts it by."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import redis

from tests.chaos.crew import Member
from tests.chaos.evidence import Followed, held, is_submitting
from tests.chaos.stage import LEASE_SECONDS, Stage
from tests.support.runtime_process import RuntimeProcess

Fault = Callable[[Stage], Awaitable[bool]]
"""Does harm; False if there was nobody whom it could have been done to."""

LONG_OUTAGE = 0.1
"""Part of the outages that last longer than the queue's clients repeat their calls."""
LONG_OUTAGE_SECONDS = 6.0
LONGEST_FREEZE_SECONDS = LEASE_SECONDS * 3
CATCHES = 200
"""How often somebody is looked for who is in the midst of something."""


async def worker_killed(stage: Stage) -> bool:
    """SIGKILL, while it holds tasks; another one takes its place."""
    slot = await _caught(stage, stage.workers, held)
    if slot is None:
        return False
    stage.workers[slot].kill()
    stage.start_worker(slot)
    return True


async def worker_killed_anyhow(stage: Stage) -> bool:
    """SIGKILL at any moment: while it claims, settles, or before it has done anything."""
    slots = [slot for slot, member in enumerate(stage.workers) if member.active]
    if not slots:
        return False
    slot = stage.dice.choice(slots)
    stage.workers[slot].kill()
    stage.start_worker(slot)
    return True


async def worker_frozen(stage: Stage) -> bool:
    """SIGSTOP while it holds tasks, SIGCONT when another one works on one of them: both settle at the same time."""
    slot = await _caught(stage, stage.workers, held)
    if slot is None:
        return False
    member = stage.workers[slot]
    tasks = held(stage.journal(member))

    async def another_has_begun() -> None:
        journals = Followed(stage.journals, but=stage.journal(member))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_FREEZE_SECONDS):
                while tasks.isdisjoint(journals.claimed_since()):  # noqa: ASYNC110 - other processes write them
                    await asyncio.sleep(0.02)

    stage.later(another_has_begun, member.thaw)
    return True


async def worker_frozen_for_long(stage: Stage) -> bool:
    """SIGSTOP while it holds tasks, SIGCONT long after the lease: others have done what it goes on with."""
    slot = await _caught(stage, stage.workers, held)
    if slot is None:
        return False
    member = stage.workers[slot]
    seconds = LEASE_SECONDS * stage.dice.uniform(1.2, 3.0)
    stage.later(lambda: asyncio.sleep(seconds), member.thaw)
    return True


async def worker_stopped(stage: Stage) -> bool:
    """SIGTERM: it finishes what it holds; another one takes its place."""
    slots = [slot for slot, member in enumerate(stage.workers) if member.active]
    if len(slots) < 2:
        return False
    slot = stage.dice.choice(slots)
    stage.workers[slot].finish()
    stage.start_worker(slot)
    return True


async def producer_killed(stage: Stage) -> bool:
    """SIGKILL, while it waits for an answer; the next one begins with the first batch that was not answered."""
    slot = await _caught(stage, stage.producers, is_submitting)
    if slot is None:
        return False
    stage.producers[slot].kill()
    stage.restart_producer(slot)
    return True


async def agent_killed(stage: Stage) -> bool:
    """SIGKILL for a process of an Agent, while it holds tasks; another one takes its place."""
    process = await _agent_caught(stage)
    if process is None:
        return False
    process.running.kill()
    stage.replace_agent(process)
    return True


async def agent_drained(stage: Stage) -> bool:
    """SIGTERM, as Kubernetes does it; another one takes its place. It must end by itself, in order."""
    if not stage.agents:
        return False
    process = stage.dice.choice(stage.agents)
    process.signal(signal.SIGTERM)
    stage.replace_agent(process)
    return True


async def agent_frozen(stage: Stage) -> bool:
    """SIGSTOP past the lease, while it holds tasks, then SIGCONT."""
    process = await _agent_caught(stage)
    if process is None:
        return False
    seconds = LEASE_SECONDS * stage.dice.uniform(1.2, 2.0)
    stage.later(lambda: asyncio.sleep(seconds), lambda: _wake(process))
    return True


async def connections_cut(stage: Stage) -> bool:
    """All at once."""
    stage.proxy.cut_all()
    return True


async def request_cut(stage: Stage) -> bool:
    """In the midst of a request: the server has half of it."""
    stage.proxy.cut_into_request(after=stage.dice.choice((0, 1, 40, 400, 4000)))
    return True


async def reply_cut(stage: Stage) -> bool:
    """In the midst of a reply: the server has acted, the client has half of the answer or nothing."""
    stage.proxy.cut_into_reply(after=stage.dice.choice((0, 0, 1, 3, 40, 4000)))
    return True


async def network_down(stage: Stage) -> bool:
    """Nobody gets through for a while."""
    async with stage.proxy.refusing():
        await asyncio.sleep(_outage(stage))
    return True


async def network_slow(stage: Stage) -> bool:
    """Everything takes longer for a while."""
    stage.proxy.delay_seconds = stage.dice.uniform(0.01, 0.2)
    await asyncio.sleep(stage.dice.uniform(0.2, 1.0))
    stage.proxy.delay_seconds = 0.0
    return True


async def redis_killed(stage: Stage) -> bool:
    """SIGKILL; it comes back with what is in its append-only file."""
    stage.server.kill()
    await asyncio.sleep(_outage(stage))
    await asyncio.to_thread(stage.server.start)
    return True


async def redis_shut_down(stage: Stage) -> bool:
    """SIGTERM, in order."""
    await asyncio.to_thread(stage.server.stop)
    await asyncio.sleep(_outage(stage))
    await asyncio.to_thread(stage.server.start)
    return True


async def redis_frozen(stage: Stage) -> bool:
    """Connections stay open, nothing is answered for a while."""
    stage.server.freeze()
    await asyncio.sleep(_outage(stage))
    stage.server.thaw()
    return True


async def file_rewritten(stage: Stage) -> bool:
    """Redis begins to compact its append-only file: what crashes next meets it in the midst of that."""
    with stage.server.client() as client:
        try:
            client.bgrewriteaof()
        except redis.ResponseError:
            return False  # it is at it already
    return True


async def scripts_flushed(stage: Stage) -> bool:
    """Redis forgets all scripts."""
    with stage.server.client() as client:
        client.script_flush()
    return True


async def _caught(stage: Stage, members: Sequence[Member], doing: Callable[[Path], object]) -> int | None:
    """The slot of somebody who is frozen now, in the midst of doing that. Another one goes on. None: there is none."""
    for _ in range(CATCHES):
        slots = [slot for slot, member in enumerate(members) if member.active]
        if len(slots) < 2:
            return None
        slot = stage.dice.choice(slots)
        members[slot].freeze()
        if doing(stage.journal(members[slot])):
            return slot
        members[slot].thaw()
        await asyncio.sleep(0.003)
    return None


async def _agent_caught(stage: Stage) -> RuntimeProcess | None:
    """A process of an Agent that is frozen now and holds tasks. None: there is none."""
    for _ in range(CATCHES):
        process = stage.dice.choice(stage.agents)
        process.signal(signal.SIGSTOP)
        if held(stage.journal_of_agent(process)):
            return process
        _wake(process)
        await asyncio.sleep(0.01)
    return None


def _wake(process: RuntimeProcess) -> None:
    if process.running.poll() is None:
        process.signal(signal.SIGCONT)


def _outage(stage: Stage) -> float:
    """Seconds."""
    return LONG_OUTAGE_SECONDS if stage.dice.random() < LONG_OUTAGE else stage.dice.uniform(0.0, 1.0)


async def inject(stage: Stage, faults: Sequence[Fault], *, every: float, until: Awaitable[None]) -> None:
    """One fault after the other, `every` seconds on average, each kind at least once; then on until it is over."""
    over = asyncio.ensure_future(until)
    turn = list(faults)
    stage.dice.shuffle(turn)
    try:
        while turn or not over.done():
            await asyncio.wait({over}, timeout=stage.dice.uniform(0.2, 1.8) * every)
            if over.done():
                if not turn:
                    break
                await asyncio.sleep(every / 4)
            fault = turn.pop() if turn else stage.dice.choice(faults)
            if await fault(stage):
                stage.faults[fault.__name__] += 1
        await over
    finally:
        over.cancel()
