# SPDX-License-Identifier: Apache-2.0
"""A worker process of a round: claims, works, settles, and now and then does what a worker should not do."""

import asyncio
import contextlib
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import orjson

from agent_runtime.event_loop import new_event_loop
from agent_runtime.queue import Claim, Failed, Outcome, Succeeded, TaskQueue, Worker, open_queue
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig
from tests.chaos import sabotage
from tests.chaos.evidence import Journal, names, now

SETTLE_AGAIN = 0.01
"""Part of the calls in which a worker sends its outcomes twice, as if it had not heard the answer."""
GIVE_BACK = 0.02
"""Part of the claims of which half is given back."""
LINGER = 0.02
"""Part of the claims that are held for longer than the lease, which is renewed meanwhile."""
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class WorkerOrders:
    """What a worker process is told."""

    name: str
    agent: str
    url: str
    queue: QueueConfig
    folder: Path
    seed: str
    hands: int = 2
    """How many claims it works on at the same time."""
    batches: tuple[int, ...] = (1, 20, 100, 200)
    """How many tasks it asks for, chosen anew each time."""
    hold_seconds: tuple[float, float] = (0.0, 0.1)
    """How long it works on what it got, at least and at most."""
    claim_seconds: float = 1.0
    """How long it waits for work."""
    lingers: bool = True
    """Hold some for longer than the lease, which is renewed."""
    sabotage: str = ""
    """How this worker's queue is broken on purpose, see `sabotage`."""
    honest: bool = False
    """Do none of what a worker should not do, and let everything succeed."""


def run(orders: WorkerOrders) -> None:
    """Work until SIGTERM, then finish what is held."""
    if orders.sabotage:
        sabotage.commit(orders.sabotage)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_work(orders))


async def _work(orders: WorkerOrders) -> None:
    queue = open_queue(orders.queue, url=orders.url)
    journal = Journal(orders.folder / f"{orders.name}.journal")
    hands = [_Hand(orders, queue, journal, number) for number in range(orders.hands)]

    def stop() -> None:
        for hand in hands:
            hand.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    try:
        async with asyncio.TaskGroup() as group:
            for hand in hands:
                group.create_task(hand.run())
    finally:
        await queue.aclose()


class _Hand:
    """One of the claims at a time."""

    def __init__(self, orders: WorkerOrders, queue: TaskQueue, journal: Journal, number: int) -> None:
        self._orders = orders
        self._worker = Worker(agent=orders.agent, instance=orders.name)
        self._queue = queue
        self._journal = journal
        self._dice = random.Random(f"{orders.seed}/{orders.name}/{number}")
        self._stop = asyncio.Event()
        self._claiming: asyncio.Task[list[Claim]] | None = None

    def stop(self) -> None:
        """Finish what is held, and claim nothing more."""
        self._stop.set()
        if self._claiming is not None:
            self._claiming.cancel()

    async def run(self) -> None:
        while not self._stop.is_set():
            asked = now()
            limit = self._dice.choice(self._orders.batches)
            self._claiming = asyncio.create_task(
                self._queue.claim(self._worker, limit=limit, wait_seconds=self._orders.claim_seconds)
            )
            try:
                claims = await self._claiming
            except QueueUnavailableError as error:
                await self._unavailable(error)
                continue
            except asyncio.CancelledError:
                if self._stop.is_set():
                    return
                raise
            finally:
                self._claiming = None
            if claims:
                self._journal.write("claimed", asked=asked, tasks=names(claims))
                await self._do(claims)

    async def _do(self, claims: list[Claim]) -> None:
        dice = self._dice
        if not self._orders.honest and dice.random() < GIVE_BACK:
            back = claims[len(claims) // 2 :]
            claims = claims[: len(claims) // 2]
            await self._give_back(back)
        if self._orders.lingers and not self._orders.honest and dice.random() < LINGER:
            claims = await self._linger(claims)
        else:
            await asyncio.sleep(dice.uniform(*self._orders.hold_seconds))
        await self._settle([self._outcome(claim) for claim in claims])

    async def _linger(self, claims: list[Claim]) -> list[Claim]:
        """Work for longer than the lease and renew it. Returns what is still held."""
        lease = self._orders.queue.lease_seconds
        end = now() + lease * self._dice.uniform(1.1, 1.5)
        while claims and now() < end and not self._stop.is_set():
            await asyncio.sleep(lease / 4)
            with contextlib.suppress(QueueUnavailableError):
                lost = await self._queue.extend(claims)
                gone = {claim.id for claim in lost}
                claims = [claim for claim in claims if claim.id not in gone]
                await self._settle([self._outcome(claim) for claim in lost], hopeless="extend had said that it is lost")
        return claims

    async def _give_back(self, claims: list[Claim]) -> None:
        """Release, and settle all the same: that must be refused."""
        if not claims:
            return
        self._journal.write("releasing", tasks=names(claims))
        try:
            await self._queue.release(claims)
        except QueueUnavailableError as error:
            await self._unavailable(error)
            return
        await self._settle([self._outcome(claim) for claim in claims], hopeless="it had been given back")

    async def _settle(self, outcomes: list[Outcome], *, hopeless: str = "") -> None:
        """Send outcomes until the queue has answered, as the runtime does it."""
        if not outcomes:
            return
        wire = [(outcome.claim.id, outcome.claim.attempt, outcome.claim.token, ending(outcome)) for outcome in outcomes]
        times = 2 if not self._orders.honest and self._dice.random() < SETTLE_AGAIN else 1
        for _ in range(times):
            call = self._journal.call("settling", outcomes=wire, hopeless=hopeless)
            while True:
                try:
                    accepted = await self._queue.settle(outcomes)
                except QueueUnavailableError as error:
                    await self._unavailable(error)
                    if self._stop.is_set():
                        return
                else:
                    break
            self._journal.write("settled", call=call, accepted=accepted)

    def _outcome(self, claim: Claim) -> Outcome:
        try:
            errand = orjson.loads(claim.payload)
        except ValueError:
            self._journal.write("garbled", task=claim.id, payload=repr(claim.payload[:200]))
            errand = {"mood": "fine"}
        match "fine" if self._orders.honest else errand["mood"]:
            case "again" if claim.attempt <= errand["failures"]:
                return Failed(claim, "FAILED", "Chaos: not yet", delay_seconds=self._dice.choice((0.0, 0.0, 0.2, 1.0)))
            case "refused":
                return Failed(claim, "FAILED", "Chaos: never", permanent=True)
            case "doomed" if not (self._orders.folder / "cured").exists():
                return Failed(claim, "FAILED", "Chaos: still ill", delay_seconds=0.0)
        return Succeeded(claim, orjson.dumps({"by": self._orders.name, "token": claim.token}))

    async def _unavailable(self, error: QueueUnavailableError) -> None:
        self._journal.write("unavailable", error=str(error))
        await asyncio.sleep(_PAUSE_SECONDS)


def ending(outcome: Outcome) -> str:
    """What becomes of the task if this outcome is accepted."""
    if isinstance(outcome, Succeeded):
        return "succeeded"
    if outcome.permanent:
        return "failed"
    return "dead" if outcome.claim.attempt >= outcome.claim.max_attempts else "retry"
