# SPDX-License-Identifier: Apache-2.0
"""What Agents say about themselves."""

import pytest
from pydantic import ValidationError

from agent_runtime.queue import Beat, Orders, TaskQueue, Worker
from agent_runtime.queue.interfaces import KEPT_SECONDS
from kubeagents_api.interface import Interface
from tests.conformance.queue.actors import ALICE, BOB, CAROL
from tests.conformance.queue.conftest import OpenQueue, PassTime

COUNTS = Interface(description="Counts words.", input_schema={"type": "object", "required": ["text"]})
READS = Interface(description="Reads pages.")


def beat(worker: Worker, interface: Interface | None = COUNTS, **fields: object) -> Beat:
    return Beat(worker, "1", concurrency=1, running=0, draining=False, started_at_ms=1, interface=interface)


async def test_what_an_agent_says_is_known_once_whatever_processes_it_has(queue: TaskQueue) -> None:
    for worker in (ALICE, BOB, CAROL, ALICE):
        assert await queue.beat(beat(worker)) == Orders()
    count, echo = await queue.interfaces()
    assert (count.agent, echo.agent) == (CAROL.agent, ALICE.agent)
    assert (echo.queue, echo.description, echo.input_schema) == (queue.name, "Counts words.", COUNTS.input_schema)
    assert echo.since <= echo.seen_at


async def test_an_agent_may_say_nothing(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE, None))
    assert await queue.interfaces() == []


async def test_it_comes_with_the_capabilities(queue: TaskQueue) -> None:
    await queue.beat(beat(Worker("ocr", "ocr-1", ("scans", "faxes"))))
    (ocr,) = await queue.interfaces()
    assert ocr.capabilities == ["scans", "faxes"]


async def test_a_newer_version_counts_though_the_old_one_still_runs(queue: TaskQueue, pass_time: PassTime) -> None:
    await queue.beat(beat(ALICE, COUNTS))
    await pass_time(0.01)
    await queue.beat(beat(BOB, READS))
    await pass_time(0.01)
    await queue.beat(beat(ALICE, COUNTS))
    (echo,) = await queue.interfaces()
    assert echo.description == "Reads pages."


async def test_an_order_comes_with_the_first_word_too(queue: TaskQueue) -> None:
    await queue.cordon([ALICE.instance], by="ada")
    assert await queue.beat(beat(ALICE)) == Orders(cordoned=True)
    assert await queue.beat(beat(ALICE)) == Orders(cordoned=True)
    assert await queue.beat(beat(BOB)) == Orders()


async def test_it_is_known_while_no_process_is_there_and_others_forget(queue: TaskQueue) -> None:
    await queue.beat(beat(ALICE))
    await queue.leave(ALICE)
    await queue.forget_silent(silent_seconds=0)
    assert [one.agent for one in await queue.interfaces()] == [ALICE.agent]


async def test_all_clients_see_the_same(queue: TaskQueue, open_test_queue: OpenQueue) -> None:
    await queue.beat(beat(ALICE))
    assert await open_test_queue().interfaces() == await queue.interfaces()


@pytest.mark.parametrize("server", ["memory"], indirect=True)
async def test_it_is_forgotten_a_day_after_the_last_word(queue: TaskQueue, pass_time: PassTime) -> None:
    await queue.beat(beat(ALICE, COUNTS))
    await pass_time(KEPT_SECONDS / 2)
    await queue.beat(beat(CAROL, READS))
    await pass_time(KEPT_SECONDS / 2 + 1)
    await queue.forget_silent(silent_seconds=60)
    assert [one.agent for one in await queue.interfaces()] == [CAROL.agent]


@pytest.mark.parametrize("server", ["memory"], indirect=True)
async def test_a_version_that_was_taken_back_counts_again(queue: TaskQueue, pass_time: PassTime) -> None:
    await queue.beat(beat(ALICE, COUNTS))
    await queue.beat(beat(BOB, READS))
    await pass_time(300)
    await queue.beat(beat(ALICE, COUNTS))
    (echo,) = await queue.interfaces()
    assert echo.description == "Counts words."


def test_an_interface_is_small() -> None:
    with pytest.raises(ValidationError, match="16384 are possible"):
        Interface(description="x" * 20_000)
