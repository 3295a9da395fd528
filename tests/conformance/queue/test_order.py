# SPDX-License-Identifier: Apache-2.0
"""Who is next: strict priority, then the order of submission, which a task keeps whatever happens to it."""

from agent_runtime.queue import TaskQueue, Worker
from kubeagents_api.task import DeadFilter, TaskState
from tests.conformance.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    claim_all,
    claim_one,
    die,
    failed,
    ids_of,
    payloads,
    states,
    submit,
    succeed,
    tasks,
)
from tests.conformance.queue.conftest import OpenQueue, PassTime


async def test_a_higher_priority_always_goes_first(queue: TaskQueue) -> None:
    for priority in (5, 0, 9, 4, 6, 5, 9):
        await submit(queue, priority, priority=priority)
    assert payloads(await claim_all(queue)) == [9, 9, 6, 5, 5, 4, 0]


async def test_inside_a_priority_first_in_is_first_out_over_batches(queue: TaskQueue) -> None:
    await queue.submit([*tasks("a", "b"), *tasks("x", priority=1), *tasks("c")])
    await submit(queue, "d", "e")
    assert payloads(await queue.claim(ALICE, limit=10, wait_seconds=NOW)) == ["a", "b", "c", "d", "e", "x"]


async def test_a_claim_takes_no_more_than_its_limit(queue: TaskQueue) -> None:
    await submit(queue, *range(5))
    assert payloads(await queue.claim(ALICE, limit=3, wait_seconds=NOW)) == [0, 1, 2]
    assert payloads(await queue.claim(ALICE, limit=3, wait_seconds=NOW)) == [3, 4]


async def test_all_lanes_of_a_worker_are_one_line(queue: TaskQueue) -> None:
    worker = Worker(agent="echo", instance="echo-1", capabilities=("ocr", "pdf"))
    targets = [{"instance": "echo-1"}, {"capability": "pdf"}, {}, {"agent": "echo"}, {"capability": "ocr"}]
    for n, target in enumerate([*targets, *reversed(targets)]):
        await submit(queue, n, **target)
    await submit(queue, "first", priority=6, capability="pdf")
    assert payloads(await queue.claim(worker, limit=4, wait_seconds=NOW)) == ["first", 0, 1, 2]
    assert payloads(await claim_all(queue, worker)) == list(range(3, 10))


async def test_a_worker_takes_nothing_that_is_for_others(queue: TaskQueue) -> None:
    worker = Worker(agent="echo", instance="echo-1", capabilities=("ocr",))
    await submit(queue, "agent", agent="count")
    await submit(queue, "capability", capability="pdf")
    await submit(queue, "instance", instance="echo-2")
    # A name means something only as what it is.
    await submit(queue, "no agent", agent="ocr")
    await submit(queue, "no capability", capability="echo")
    await submit(queue, "no instance", instance="echo")
    assert await claim_all(queue, worker) == []
    assert payloads(await claim_all(queue, CAROL)) == ["agent"]
    assert payloads(await claim_all(queue, Worker("x", "echo-2", ("pdf",)))) == ["capability", "instance"]


async def test_a_delayed_task_has_the_place_of_its_submission(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, "delayed", delay_seconds=0.2)
    await submit(queue, "later")
    await pass_time(0.2)
    assert payloads(await claim_all(queue)) == ["delayed", "later"]


async def test_a_blocked_task_has_the_place_of_its_submission(queue: TaskQueue) -> None:
    await submit(queue, "parent", id="parent", agent="count")
    await submit(queue, "child", depends_on=["parent"])
    await submit(queue, "later")
    await succeed(queue, CAROL)
    assert payloads(await claim_all(queue)) == ["child", "later"]


async def test_a_child_that_need_not_wait_has_the_place_of_its_submission(queue: TaskQueue) -> None:
    await submit(queue, "ended", id="ended")
    await queue.cancel(["ended"], by="test")
    await submit(queue, "first")
    # The first of the batch ends at once, and the second is free because of that.
    await queue.submit(
        [
            *tasks("doomed", id="doomed", depends_on=["ended"]),
            *tasks("freed", depends_on=["doomed"], on_parent_failure="Run"),
            *tasks("last"),
        ]
    )
    assert payloads(await claim_all(queue)) == ["first", "freed", "last"]


async def test_a_retried_task_has_its_place_again(queue: TaskQueue, pass_time: PassTime) -> None:
    await submit(queue, 1, 2, 3)
    await queue.settle(failed(await claim_one(queue), delay_seconds=0))
    first = await claim_one(queue)
    assert (first.attempt, payloads([first])) == (2, [1])
    await queue.settle(failed(first, delay_seconds=0.2))
    await pass_time(0.2)
    assert payloads(await claim_all(queue)) == [1, 2, 3]


async def test_a_task_whose_lease_is_over_has_its_place_again(open_test_queue: OpenQueue, pass_time: PassTime) -> None:
    queue = open_test_queue(lease_seconds=0.2)
    await submit(queue, 1, 2)
    await claim_one(queue)
    await pass_time(0.2)
    assert payloads(await queue.claim(BOB, limit=2, wait_seconds=NOW)) == [1, 2]


async def test_a_released_task_has_its_place_again(queue: TaskQueue) -> None:
    await submit(queue, 1, 2, 3)
    claims = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    await queue.release(claims[::-1])
    assert payloads(await claim_all(queue)) == [1, 2, 3]


async def test_a_replayed_task_has_a_new_place(queue: TaskQueue) -> None:
    (dead,) = await die(queue, "dead")
    await submit(queue, "before", id="before")
    assert await queue.replay(DeadFilter(ids=[dead]), by="test") == [dead]
    await submit(queue, "after", id="after")
    assert ids_of(await claim_all(queue)) == ["before", "dead", "after"]


async def test_a_claim_tells_what_the_worker_must_know(queue: TaskQueue) -> None:
    (task_id,) = await queue.submit(
        tasks({"n": 1}, type="count", agent="echo", tenant="acme", priority=7, timeout_seconds=2.5, max_attempts=2)
    )
    claim = await claim_one(queue)
    assert (claim.id, claim.type, claim.payload) == (task_id, "count", b'{"n":1}')
    assert (claim.agent, claim.tenant, claim.priority) == ("echo", "acme", 7)
    assert (claim.attempt, claim.max_attempts, claim.timeout_seconds) == (1, 2, 2.5)
    assert (claim.depends_on, claim.deadline_ms) == ((), None)
    record = await queue.get(task_id)
    assert claim.created_at_ms == round(record.created_at.timestamp() * 1000)
    assert (record.state, record.worker, record.attempts) == (TaskState.RUNNING, "echo-alice", 1)


async def test_workers_share_the_work_and_no_task_goes_to_two(queue: TaskQueue) -> None:
    ids = await submit(queue, *range(20))
    taken = []
    for worker in (ALICE, BOB) * 10:
        taken += await queue.claim(worker, limit=1, wait_seconds=NOW)
    assert ids_of(taken) == ids
    assert set(await states(queue, ids)) == {TaskState.RUNNING}
