# SPDX-License-Identifier: Apache-2.0
"""What running tasks say: progress and parts of their results."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from agent_runtime.queue import Claim, TaskQueue
from agent_runtime.queue.base import Partial, Progress
from kubeagents_api.errors import InvalidTaskError, PayloadTooLargeError, TaskNotFoundError
from kubeagents_api.task import DeadFilter, StreamItem, TaskState
from tests.conformance.queue.actors import (
    BOB,
    SOON,
    claim_one,
    die,
    failed,
    states,
    submit,
    succeeded,
    told,
)
from tests.conformance.queue.conftest import OpenQueue, PassTime


def parts(*values: object) -> list[Partial]:
    """Parts of a result."""
    return [Partial(orjson.dumps(value)) for value in values]


async def all_of(stream: AsyncIterator[StreamItem]) -> list[StreamItem]:
    """A stream to its end."""
    async with asyncio.timeout(SOON):
        return [item async for item in stream]


async def next_of(stream: AsyncIterator[StreamItem], count: int) -> list[StreamItem]:
    """So many items."""
    async with asyncio.timeout(SOON):
        return [await anext(stream) for _ in range(count)]


async def running(queue: TaskQueue, task_id: str = "task", **fields: object) -> Claim:
    """A task that runs."""
    await submit(queue, "work", id=task_id, **fields)
    return await claim_one(queue)


async def test_a_finished_task_tells_all_it_has_said(queue: TaskQueue) -> None:
    claim = await running(queue)
    assert await queue.emit(claim, [Progress(0.25, "reading"), *parts({"n": 1}, "two")]) is True
    assert await queue.emit(claim, [Progress(None, "thinking"), *parts(None)]) is True
    await queue.settle(succeeded([claim]))
    items = await all_of(queue.stream("task"))
    assert [(item.kind, item.data) for item in items] == [
        ("progress", {"fraction": 0.25, "message": "reading"}),
        ("partial", {"n": 1}),
        ("partial", "two"),
        ("progress", {"fraction": None, "message": "thinking"}),
        ("partial", None),
    ]
    assert {item.attempt for item in items} == {1}
    assert len({item.offset for item in items}) == 5
    assert [item.at for item in items] == sorted(item.at for item in items)


async def test_who_listens_hears_what_is_said_as_it_is_said(queue: TaskQueue) -> None:
    claim = await running(queue)
    stream = queue.stream("task")
    await queue.emit(claim, parts(1))
    assert [item.data for item in await next_of(stream, 1)] == [1]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await queue.emit(claim, parts(2))
    assert (await told(waiting)).data == 2
    rest = asyncio.create_task(all_of(stream))
    await asyncio.sleep(0)
    await queue.emit(claim, parts(3))
    await queue.settle(succeeded([claim]))
    assert [item.data for item in await told(rest)] == [3]


async def test_any_number_may_listen(queue: TaskQueue) -> None:
    claim = await running(queue)
    listeners = [asyncio.create_task(all_of(queue.stream("task"))) for _ in range(5)]
    await asyncio.sleep(0)
    await queue.emit(claim, parts(1, 2))
    await queue.settle(succeeded([claim]))
    for items in await told(asyncio.gather(*listeners)):
        assert [item.data for item in items] == [1, 2]


async def test_a_listener_may_come_before_the_task_runs(queue: TaskQueue) -> None:
    await submit(queue, "work", id="task")
    listening = asyncio.create_task(all_of(queue.stream("task")))
    await asyncio.sleep(0.02)
    claim = await claim_one(queue)
    await queue.emit(claim, parts("hello"))
    await queue.settle(succeeded([claim]))
    assert [item.data for item in await told(listening)] == ["hello"]


async def test_a_listener_reads_on_from_an_offset(queue: TaskQueue) -> None:
    claim = await running(queue)
    await queue.emit(claim, parts(*range(5)))
    first = await next_of(queue.stream("task"), 3)
    await queue.settle(succeeded([claim]))
    rest = await all_of(queue.stream("task", after=first[-1].offset))
    assert [item.data for item in rest] == [3, 4]
    assert await all_of(queue.stream("task", after=rest[-1].offset)) == []


async def test_a_stream_goes_on_over_the_attempts(queue: TaskQueue) -> None:
    claim = await running(queue)
    listening = asyncio.create_task(all_of(queue.stream("task")))
    await asyncio.sleep(0)
    await queue.emit(claim, parts("one"))
    await queue.settle(failed(claim, delay_seconds=0))
    claim = await claim_one(queue, BOB)
    await queue.emit(claim, parts("two"))
    await queue.settle(succeeded([claim]))
    assert [(item.attempt, item.data) for item in await told(listening)] == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("ending", ["cancelled", "dead", "failed"])
async def test_a_stream_ends_however_the_task_ends(queue: TaskQueue, ending: str) -> None:
    claim = await running(queue, max_attempts=1)
    await queue.emit(claim, parts(1))
    listening = asyncio.create_task(all_of(queue.stream("task")))
    await asyncio.sleep(0.02)
    if ending == "cancelled":
        await queue.cancel(["task"], by="test")
    else:
        await queue.settle(failed(claim, permanent=ending == "failed"))
    assert [item.data for item in await told(listening)] == [1]
    assert await states(queue, ["task"]) == [TaskState(ending)]


async def test_a_task_that_said_nothing_has_an_empty_stream(queue: TaskQueue) -> None:
    claim = await running(queue)
    await queue.settle(succeeded([claim]))
    assert await all_of(queue.stream("task")) == []


async def test_only_the_holder_is_heard(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(lease_seconds=0.25)
    lost = await running(queue)
    await pass_time(0.25)
    holder = await claim_one(queue, BOB)
    assert await queue.emit(lost, [Progress(0.9), *parts("old")]) is False
    assert await queue.emit(holder, parts("new")) is True
    assert (await queue.get("task")).progress is None
    await queue.settle(succeeded([holder]))
    assert await queue.emit(holder, parts("late")) is False
    assert [item.data for item in await all_of(queue.stream("task"))] == ["new"]


async def test_the_newest_progress_shows_while_the_attempt_runs(queue: TaskQueue) -> None:
    claim = await running(queue)
    assert (await queue.get("task")).progress is None
    await queue.emit(claim, [Progress(0.1, "a"), Progress(0.5, 'b "quoted"'), *parts(1)])
    progress = (await queue.get("task")).progress
    assert progress is not None
    assert (progress.fraction, progress.message) == (0.5, 'b "quoted"')
    await queue.emit(claim, [Progress(None, "unsure")])
    progress = (await queue.get("task")).progress
    assert progress is not None
    assert (progress.fraction, progress.message) == (None, "unsure")


@pytest.mark.parametrize("ending", ["succeeded", "retried", "released", "lease over", "cancelled"])
async def test_progress_is_gone_when_the_attempt_ends(
    open_test_queue: OpenQueue, pass_time: PassTime, ending: str
) -> None:
    queue = open_test_queue(lease_seconds=0.25 if ending == "lease over" else 30)
    claim = await running(queue)
    await queue.emit(claim, [Progress(0.5)])
    if ending == "succeeded":
        await queue.settle(succeeded([claim]))
    elif ending == "retried":
        await queue.settle(failed(claim, delay_seconds=0))
    elif ending == "released":
        await queue.release([claim])
    elif ending == "cancelled":
        await queue.cancel(["task"], by="test")
    else:
        await pass_time(0.25)
        await queue.stats()
    assert (await queue.get("task")).progress is None
    if ending in ("retried", "released", "lease over"):
        await claim_one(queue)
        assert (await queue.get("task")).progress is None


async def test_an_item_that_is_too_large_keeps_all_from_being_added(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(max_payload_bytes=1024)
    claim = await running(queue)
    with pytest.raises(PayloadTooLargeError):
        await queue.emit(claim, parts("good", "x" * 1100))
    await queue.emit(claim, parts("x" * 900))
    await queue.settle(succeeded([claim]))
    assert [len(str(item.data)) for item in await all_of(queue.stream("task"))] == [900]


async def test_an_unknown_task_has_no_stream(queue: TaskQueue) -> None:
    with pytest.raises(TaskNotFoundError):
        await all_of(queue.stream("nobody"))


@pytest.mark.parametrize("offset", ["x", "-", "1-", "-1", "1-x", "$", "1-2-3"])
async def test_a_bad_offset_is_refused(queue: TaskQueue, offset: str) -> None:
    claim = await running(queue)
    await queue.settle(succeeded([claim]))
    with pytest.raises(InvalidTaskError) as refusal:
        await all_of(queue.stream("task", after=offset))
    assert refusal.value.field == "after"


async def test_who_reads_on_from_what_is_not_kept_any_more_is_told_of_the_gap(queue: TaskQueue) -> None:
    claim = await running(queue)
    await queue.emit(claim, parts("first"))
    (first,) = await next_of(queue.stream("task"), 1)
    for start in range(0, 12_000, 1000):
        await queue.emit(claim, parts(*range(start, start + 1000)))
    await queue.settle(succeeded([claim]))
    gap, *items = await all_of(queue.stream("task", after=first.offset))
    assert gap.kind == "gap"
    assert 10_000 <= len(items) < 11_000
    assert [item.data for item in items] == list(range(12_000 - len(items), 12_000))
    assert {item.kind for item in items} == {"partial"}


async def test_who_reads_on_from_what_is_kept_is_told_of_no_gap(queue: TaskQueue) -> None:
    claim = await running(queue)
    for start in range(0, 12_000, 1000):
        await queue.emit(claim, parts(*range(start, start + 1000)))
    await queue.settle(succeeded([claim]))
    items = await all_of(queue.stream("task"))
    assert items[-1].data == 11_999
    rest = await all_of(queue.stream("task", after=items[-5].offset))
    assert [item.data for item in rest] == [11_996, 11_997, 11_998, 11_999]


async def test_a_new_task_of_an_old_id_has_said_nothing_yet(queue: TaskQueue) -> None:
    claim = await running(queue, max_attempts=1)
    await queue.emit(claim, parts("old"))
    await queue.settle(failed(claim))
    await queue.purge(DeadFilter(), by="test")
    claim = await running(queue)
    await queue.emit(claim, parts("new"))
    await queue.settle(succeeded([claim]))
    assert [item.data for item in await all_of(queue.stream("task"))] == ["new"]


async def test_a_replayed_task_keeps_what_it_has_said(queue: TaskQueue) -> None:
    claim = await running(queue, max_attempts=1)
    await queue.emit(claim, parts("old"))
    await queue.settle(failed(claim))
    await queue.replay(DeadFilter(), by="test")
    claim = await claim_one(queue)
    await queue.emit(claim, parts("new"))
    await queue.settle(succeeded([claim]))
    assert [item.data for item in await all_of(queue.stream("task"))] == ["old", "new"]


async def test_streams_of_different_tasks_do_not_mix(queue: TaskQueue) -> None:
    (other,) = await die(queue, "other")
    one = await running(queue, "one")
    two = await running(queue, "two")
    await queue.emit(one, parts(1))
    await queue.emit(two, parts(2))
    await queue.settle(succeeded([one, two]))
    assert [item.data for item in await all_of(queue.stream("one"))] == [1]
    assert [item.data for item in await all_of(queue.stream("two"))] == [2]
    assert await all_of(queue.stream(other)) == []
