# SPDX-License-Identifier: Apache-2.0
"""Who waits for others before a submission begins, and who does not."""

import asyncio

import pytest

from agent_runtime.adapters.grpc.gathering import Gathering


class Submitting:
    """Callers whose submissions last until they are let go."""

    def __init__(self) -> None:
        self.gathering = Gathering()
        self.begun: list[int] = []
        self.answered = asyncio.Event()

    async def call(self, number: int) -> None:
        async with self.gathering:
            self.begun.append(number)
            await self.answered.wait()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_lone_caller_never_waits_however_fast_it_is() -> None:
    callers = Submitting()
    callers.answered.set()

    for number in range(100):
        call = asyncio.create_task(callers.call(number))
        await turn()
        assert callers.begun[-1] == number
        await call


async def test_those_that_come_in_a_crowd_while_another_one_is_under_way_begin_together() -> None:
    callers = Submitting()
    calls = [asyncio.create_task(callers.call(number)) for number in range(40)]
    await turn()
    first = len(callers.begun)

    while len(callers.begun) == first:
        await turn()

    assert 1 <= first < 40
    assert callers.begun == list(range(40))
    callers.answered.set()
    await asyncio.gather(*calls)


async def test_a_caller_that_goes_while_it_waits_leaves_the_others_alone() -> None:
    callers = Submitting()
    calls = [asyncio.create_task(callers.call(number)) for number in range(40)]
    await turn()
    waiting = calls[-1]

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    callers.answered.set()
    await asyncio.gather(*calls[:-1])

    assert callers.begun == list(range(39))
