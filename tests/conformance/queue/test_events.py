# SPDX-License-Identifier: Apache-2.0
"""What happened in a queue, one event for each task and transition."""

import asyncio
from datetime import timedelta

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import DeadFilter, TaskEventKind
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    FOREVER,
    NOW,
    claim_one,
    die,
    failed,
    happened,
    submit,
    succeeded,
    told,
)
from tests.conformance.queue.conftest import Now, OpenQueue, PassTime

K = TaskEventKind


async def test_the_life_of_a_task_is_told(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, "work", id="task", max_attempts=2)
    await queue.release([await claim_one(queue)])
    claim = await claim_one(queue)
    await pass_time(0.05)
    await queue.settle(failed(claim, delay_seconds=0))
    claim = await claim_one(queue, BOB)
    await queue.settle(failed(claim))
    await queue.replay(DeadFilter(), by="admin")
    await queue.settle(succeeded([await claim_one(queue)]))
    events = await happened(queue)
    alice, bob = ALICE.instance, BOB.instance
    assert [(event.kind, event.attempt, event.by) for event in events] == [
        (K.SUBMITTED, None, None),
        (K.STARTED, 1, alice),
        (K.RELEASED, 1, alice),
        (K.STARTED, 1, alice),
        (K.RETRYING, 1, alice),
        (K.STARTED, 2, bob),
        (K.DEAD, 2, bob),
        (K.REPLAYED, None, "admin"),
        (K.STARTED, 1, alice),
        (K.SUCCEEDED, 1, alice),
    ]
    assert {event.task for event in events} == {"task"}
    assert [event.kind for event in events if event.seconds is not None] == [
        K.RELEASED,
        K.RETRYING,
        K.DEAD,
        K.SUCCEEDED,
    ]
    assert (events[4].seconds or 0) >= 0.05
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert len({event.offset for event in events}) == len(events)


async def test_ends_that_nobody_worked_for_are_told(open_test_queue: OpenQueue, pass_time: PassTime, now: Now) -> None:
    queue = open_test_queue(lease_seconds=0.25)
    await submit(queue, "lost", id="lost", max_attempts=1)
    await claim_one(queue)
    await submit(queue, "late", id="late", deadline=now() + timedelta(seconds=0.25))
    await submit(queue, "cancelled", id="cancelled")
    await queue.cancel(["cancelled"], by="admin")
    await pass_time(0.25)
    await queue.stats()
    await queue.purge(DeadFilter(), by="janitor")
    events = {name: [e for e in await happened(queue) if e.task == name] for name in ("lost", "late", "cancelled")}
    assert [(e.kind, e.attempt) for e in events["lost"]] == [
        (K.SUBMITTED, None),
        (K.STARTED, 1),
        (K.LEASE_EXPIRED, 1),
        (K.DEAD, 1),
        (K.PURGED, None),
    ]
    assert (events["lost"][2].by, events["lost"][4].by) == (ALICE.instance, "janitor")
    assert [(e.kind, e.attempt, e.seconds) for e in events["late"]] == [
        (K.SUBMITTED, None, None),
        (K.EXPIRED, None, None),
    ]
    assert [(e.kind, e.attempt, e.by) for e in events["cancelled"]] == [
        (K.SUBMITTED, None, None),
        (K.CANCELLED, None, "admin"),
    ]


async def test_cancelling_a_running_task_tells_the_attempt_and_who_did_it(queue: TaskQueue) -> None:
    await submit(queue, "work", id="task")
    await claim_one(queue)
    await queue.cancel(["task"], by="admin")
    event = (await happened(queue))[-1]
    assert (event.kind, event.task, event.attempt, event.by) == (K.CANCELLED, "task", 1, "admin")
    assert event.seconds is not None


async def test_each_task_of_a_large_call_has_its_event(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(250))
    claims = await queue.claim(ALICE, limit=100, wait_seconds=NOW)
    await queue.settle(succeeded(claims))
    events = await happened(queue)
    assert [event.task for event in events if event.kind is K.SUBMITTED] == ids
    assert [event.task for event in events if event.kind is K.STARTED] == ids[: len(claims)]
    assert [event.task for event in events if event.kind is K.SUCCEEDED] == ids[: len(claims)]
    assert len({event.offset for event in events}) == len(events)


async def test_events_are_read_on_from_any_of_them(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(30))
    await submit(queue, "last", id="last")
    events = await happened(queue)
    for index in (0, 7, 28, 29, 30):
        rest = await queue.events(after=events[index].offset, limit=1000)
        assert [event.task for event in rest] == [*ids, "last"][index + 1 :]


async def test_a_limit_is_about_how_many_come_at_once_and_none_is_left_out(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(300))
    seen: list[str | None] = []
    offset, pages = "", 0
    while page := await queue.events(after=offset, limit=10):
        seen += [event.task for event in page]
        offset = page[-1].offset
        pages += 1
    assert seen == ids
    assert pages >= 2


async def test_a_queue_in_which_nothing_has_happened_has_no_events(queue: TaskQueue) -> None:
    assert await queue.events(limit=10) == []
    assert await queue.events(after="$", limit=10) == []


async def test_a_reader_that_waits_hears_the_next_event(queue: TaskQueue) -> None:
    waiting = asyncio.create_task(queue.events(limit=10, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    (task_id,) = await submit(queue, "work")
    (event,) = await told(waiting)
    assert (event.kind, event.task) == (K.SUBMITTED, task_id)


async def test_a_reader_may_begin_with_the_newest_event(queue: TaskQueue) -> None:
    await submit(queue, "old")
    *_, newest = await submit(queue, *range(5))
    for wait_seconds in (0.0, FOREVER):
        (event,) = await told(queue.events(after="$", limit=10, wait_seconds=wait_seconds))
        assert event.task == newest
    waiting = asyncio.create_task(queue.events(after=event.offset, limit=10, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    (task_id,) = await submit(queue, "new")
    assert [event.task for event in await told(waiting)] == [task_id]


async def test_a_reader_that_begins_with_the_newest_event_waits_for_the_first_one(queue: TaskQueue) -> None:
    waiting = asyncio.create_task(queue.events(after="$", limit=10, wait_seconds=FOREVER))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    (task_id,) = await submit(queue, "work")
    assert [event.task for event in await told(waiting)] == [task_id]


async def test_a_reader_that_has_waited_long_enough_gets_nothing(queue: TaskQueue, pass_time: PassTime) -> None:
    (_, *_) = await submit(queue, "work")
    last = (await happened(queue))[-1].offset
    waiting = asyncio.create_task(queue.events(after=last, limit=10, wait_seconds=0.2))
    await pass_time(0.2)
    assert await told(waiting) == []


@pytest.mark.parametrize("offset", ["x", "-", "1-", "$$", "last"])
async def test_a_bad_offset_is_refused(queue: TaskQueue, offset: str) -> None:
    with pytest.raises(InvalidTaskError) as refusal:
        await queue.events(after=offset, limit=10)
    assert refusal.value.field == "after"


async def test_the_oldest_events_are_forgotten(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(keep_events=100)
    for n in range(400):
        await submit(queue, n)
    events = await happened(queue)
    assert 100 <= len(events) < 300
    assert (await queue.get(str(events[-1].task))).payload == 399
    # Who was behind goes on with what is kept.
    assert await queue.events(after=events[0].offset, limit=1000) == events[1:]


async def test_queues_have_their_own_events(open_test_queue: OpenQueue) -> None:
    one, other = open_test_queue(name="one"), open_test_queue(name="other")
    await die(one, "task")
    assert await other.events(limit=10) == []
