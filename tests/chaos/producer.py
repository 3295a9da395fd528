# SPDX-License-Identifier: Apache-2.0
"""A producer process of a round: submits its batches in order, and repeats what it does not know to have arrived."""

import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.event_loop import new_event_loop
from agent_runtime.queue import TaskQueue, open_queue
from kubeagents_api.errors import DuplicateTaskError, QueueUnavailableError
from kubeagents_api.runtime_config import QueueConfig
from tests.chaos.errands import Errand, Errands, Mix
from tests.chaos.evidence import Journal, entries, now

CANCELLED_PART = 0.02
"""Of the tasks of a batch, where the round has cancellations."""
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ProducerOrders:
    """What a producer process is told."""

    name: str
    """Of the process."""
    producer: str
    """Whom it stands in for: the same for all generations."""
    url: str
    queue: QueueConfig
    folder: Path
    seed: str
    mix: Mix
    batches: int
    batch_size: int
    pause_seconds: float
    """Between two batches."""
    cancels: bool = False
    """Cancel some of the tasks a moment later."""


def run(orders: ProducerOrders) -> None:
    """Submit all batches; begin where the generation before was cut off."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_produce(orders))


async def _produce(orders: ProducerOrders) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)  # ends when all is submitted
    first = _first_unanswered(orders)
    journal = Journal(orders.folder / f"{orders.name}.journal")
    errands = Errands(seed=orders.seed, producer=orders.producer, mix=orders.mix, size=orders.batch_size)
    dice = random.Random(f"{orders.seed}/{orders.name}")
    queue = open_queue(orders.queue, url=orders.url)
    next_at = now()
    earlier: list[str] = []
    try:
        for number in range(first, orders.batches):
            ids = await submit(queue, journal, errands.batch(number), producer=orders.producer, number=number)
            if orders.cancels:
                unlucky = [task for task in (*earlier, *ids) if dice.random() < CANCELLED_PART / 2]
                await _cancel(queue, journal, unlucky)
                earlier = ids
            next_at += orders.pause_seconds
            await asyncio.sleep(max(0.0, next_at - now()))
    finally:
        await queue.aclose()


def _first_unanswered(orders: ProducerOrders) -> int:
    """How far the generations before have come, by what they wrote down."""
    answered = [
        entry["batch"]
        for path in orders.folder.glob(f"{orders.producer}.*.journal")
        for entry in entries(path)
        if entry["kind"] == "submitted"
    ]
    return max(answered, default=-1) + 1


async def submit(
    queue: TaskQueue, journal: Journal, errands: Sequence[Errand], *, producer: str, number: int
) -> list[str]:
    """Submit a batch until it is known to be in the queue."""
    while True:
        call = journal.call(
            "submitting", producer=producer, batch=number, errands=[errand.to_wire() for errand in errands]
        )
        try:
            ids = await queue.submit([errand.request() for errand in errands])
        except QueueUnavailableError as error:
            journal.write("unavailable", error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        except DuplicateTaskError as error:
            # The ids are nobody else's: an earlier try has arrived, and batches arrive as a whole.
            journal.write("arrived before", error=str(error))
            ids = [str(errand.id) for errand in errands]
        journal.write("submitted", call=call, batch=number, ids=ids)
        return ids


async def _cancel(queue: TaskQueue, journal: Journal, tasks: list[str]) -> None:
    """Cancel tasks, once or not at all: whether it happened is not always known."""
    if not tasks:
        return
    call = journal.call("cancelling", tasks=tasks)
    try:
        states = await queue.cancel(tasks, by="chaos", reason="a part of the round")
    except QueueUnavailableError as error:
        journal.write("unavailable", error=str(error))
        return
    journal.write("cancelled", call=call, states=states)
