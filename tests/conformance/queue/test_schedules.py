# SPDX-License-Identifier: Apache-2.0
"""Tasks of schedules: each due time fires once, whoever leads."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent_runtime.queue import TaskQueue
from kubeagents_api.errors import DuplicateTaskError, PayloadTooLargeError
from kubeagents_api.task import TaskEventKind, TaskRequest, TaskState
from tests.conformance.queue.actors import claim_all, ids_of, states, story, submit
from tests.conformance.queue.conftest import OpenQueue

DUE = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def task_of(schedule: str, due: datetime, **fields: object) -> TaskRequest:
    """The task as whoever leads makes it."""
    return TaskRequest.model_validate({"id": f"{schedule}.{due:%Y%m%dT%H%M%SZ}", "payload": "tick", **fields})


async def test_a_due_time_fires_once(queue: TaskQueue) -> None:
    task = task_of("hourly", DUE)
    assert await queue.fire("hourly", DUE, task) is True
    assert await queue.fire("hourly", DUE, task) is False
    assert await queue.fired() == {"hourly": DUE}
    assert ids_of(await claim_all(queue)) == ["hourly.20260301T123000Z"]
    assert (await queue.stats()).submitted_total == 1


async def test_an_earlier_due_time_does_not_fire_any_more(queue: TaskQueue) -> None:
    earlier = DUE - timedelta(hours=1)
    assert await queue.fire("hourly", DUE, task_of("hourly", DUE)) is True
    assert await queue.fire("hourly", earlier, task_of("hourly", earlier)) is False
    later = DUE + timedelta(seconds=1)
    assert await queue.fire("hourly", later, task_of("hourly", later)) is True
    assert await queue.fired() == {"hourly": later}


async def test_the_same_moment_in_another_time_zone_is_the_same_due_time(queue: TaskQueue) -> None:
    assert await queue.fire("hourly", DUE, task_of("hourly", DUE)) is True
    elsewhere = DUE.astimezone(timezone(timedelta(hours=5)))
    assert await queue.fire("hourly", elsewhere, task_of("hourly", DUE)) is False


async def test_schedules_do_not_know_each_other(queue: TaskQueue) -> None:
    assert await queue.fire("one", DUE, task_of("one", DUE)) is True
    assert await queue.fire("two", DUE, task_of("two", DUE)) is True
    assert await queue.fired() == {"one": DUE, "two": DUE}


async def test_nothing_has_fired_in_a_new_queue(queue: TaskQueue) -> None:
    assert await queue.fired() == {}


async def test_a_fired_task_is_a_task_like_any_other(queue: TaskQueue) -> None:
    await queue.fire("nightly", DUE, task_of("nightly", DUE, capability="ocr", priority=7, tenant="acme"))
    record = await queue.get("nightly.20260301T123000Z")
    assert (record.state, record.payload) == (TaskState.QUEUED, "tick")
    assert (record.capability, record.priority, record.tenant) == ("ocr", 7, "acme")
    assert await story(queue, record.id) == [TaskEventKind.SUBMITTED]


async def test_what_is_refused_has_not_fired(open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(max_payload_bytes=1024)
    task = task_of("hourly", DUE)
    with pytest.raises(PayloadTooLargeError):
        await queue.fire("hourly", DUE, task_of("hourly", DUE, payload="x" * 2000))
    assert await queue.fired() == {}
    assert await queue.fire("hourly", DUE, task) is True


async def test_an_id_that_is_taken_is_refused(queue: TaskQueue) -> None:
    await submit(queue, "mine", id="hourly.20260301T123000Z")
    with pytest.raises(DuplicateTaskError):
        await queue.fire("hourly", DUE, task_of("hourly", DUE))
    assert await queue.fired() == {}


async def test_of_many_leaders_one_fires(open_test_queue: OpenQueue) -> None:
    leaders = [open_test_queue() for _ in range(8)]
    fired = await asyncio.gather(*(leader.fire("hourly", DUE, task_of("hourly", DUE)) for leader in leaders))
    assert sorted(fired) == [False] * 7 + [True]
    assert await states(leaders[0], ["hourly.20260301T123000Z"]) == [TaskState.QUEUED]
