# SPDX-License-Identifier: Apache-2.0
import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from kubeagents_api.errors import TemporaryError
from kubeagents_operator.keys import Key
from kubeagents_operator.metrics import QueueMetrics
from kubeagents_operator.workqueue import Backoff, WorkQueue
from tests.support.eventually import eventually_async

A, B, C = (Key("Agent", "shop", name) for name in "abc")
FAST = Backoff(initial=0.001, longest=0.01)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def make(
    registry: CollectorRegistry, *, concurrency: int = 1, run_timeout: float = 5.0, gather: float = 3600.0
) -> WorkQueue:
    metrics = QueueMetrics(registry)
    return WorkQueue(metrics=metrics, concurrency=concurrency, backoff=FAST, run_timeout=run_timeout, gather=gather)


@asynccontextmanager
async def running(queue: WorkQueue, reconcile: Callable[[Key], Awaitable[float | None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(reconcile))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Recorded:
    """A reconcile that waits for permission and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[Key] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()

    async def __call__(self, key: Key) -> float | None:
        self.calls.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        return None

    async def until(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.calls) >= count

        await eventually_async(enough, what=f"{count} calls", timeout=5, every=0.002)


async def test_a_key_that_waits_already_is_not_queued_twice(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    reconcile.go.set()
    for key in (A, B, A, A):
        queue.add(key)

    async with running(queue, reconcile):
        await reconcile.until(2)

    assert reconcile.calls == [A, B]


async def test_a_tenant_with_much_to_do_delays_another_by_one_key(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    noisy = [Key("Agent", "noisy", f"agent-{number}") for number in range(5000)]
    for key in (*noisy, A, B):
        queue.add(key)
    reconcile.go.set()

    async with running(queue, reconcile):
        await reconcile.until(5002)

    assert reconcile.calls[:5] == [noisy[0], A, noisy[1], B, noisy[2]]
    assert reconcile.calls[5:] == noisy[3:]


async def test_a_tenant_that_comes_later_does_not_wait_for_what_is_there(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    noisy = [Key("Agent", "noisy", f"agent-{number}") for number in range(100)]
    for key in noisy:
        queue.add(key)
    async with running(queue, reconcile):
        await reconcile.until(1)
        queue.add(A)
        reconcile.go.set()
        await reconcile.until(101)

    assert reconcile.calls.index(A) <= 2


async def test_what_somebody_has_asked_for_comes_before_what_has_become_of_it(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    queue.add(A)
    queue.add(B)
    queue.add_asked(C)
    queue.add_asked(B)
    assert queue.crowded("shop")
    reconcile.go.set()

    async with running(queue, reconcile):
        await reconcile.until(3)

    assert reconcile.calls == [C, B, A]
    assert not queue.crowded("shop")


async def test_what_is_asked_for_while_it_runs_comes_first_again(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    async with running(queue, reconcile):
        queue.add(A)
        await reconcile.until(1)
        queue.add(B)
        queue.add_asked(A)
        queue.add(A)
        reconcile.go.set()
        await reconcile.until(3)

    assert reconcile.calls == [A, A, B]


async def test_a_key_that_is_added_while_it_runs_runs_once_more_and_never_twice_at_a_time(
    registry: CollectorRegistry,
) -> None:
    queue, reconcile = make(registry, concurrency=4), Recorded()
    queue.add(A)
    async with running(queue, reconcile):
        await reconcile.until(1)
        queue.add(A)
        queue.add(A)
        assert queue.running == {A}
        reconcile.go.set()
        await reconcile.until(2)

    assert reconcile.calls == [A, A]
    assert reconcile.most_at_once == 1


async def test_what_becomes_of_children_right_after_a_run_is_gathered(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry, gather=0.05), Recorded()
    async with running(queue, reconcile):
        queue.add_soon(A)
        await reconcile.until(1)
        queue.add_soon(A)
        reconcile.go.set()
        await eventually_async(lambda: _is(not queue.running), what="the end of the first run", every=0.001)
        queue.add_soon(A)
        queue.add_soon(A)
        assert len(queue) == 0
        await reconcile.until(2)
        queue.add(B)
        await reconcile.until(3)

    assert reconcile.calls == [A, A, B]


async def test_what_is_gathered_is_looked_at_with_whatever_cannot_wait(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry, gather=0.05), Recorded()
    reconcile.go.set()
    async with running(queue, reconcile):
        queue.add(A)
        await reconcile.until(1)
        queue.add_soon(A)
        queue.add(A)
        await reconcile.until(2)
        await asyncio.sleep(0.1)  # nothing tells that something does not happen
        queue.add(B)
        await reconcile.until(3)

    assert reconcile.calls == [A, A, B]


async def test_what_is_gathered_of_an_object_that_is_gone_is_dropped(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    reconcile.go.set()
    async with running(queue, reconcile):
        queue.add(A)
        await reconcile.until(1)
        await eventually_async(lambda: _is(not queue.running), what="its end", every=0.001)
        queue.add_soon(A)
        queue.forget(A)
        queue.add_soon(A)
        await reconcile.until(2)

    assert reconcile.calls == [A, A], "another one of that name does not wait"


async def test_nothing_is_kept_of_runs_that_ended_long_ago(registry: CollectorRegistry) -> None:
    queue, ended = make(registry, gather=0.0), asyncio.Event()

    async def gone(key: Key) -> float | None:
        queue.forget(key)
        if key == C:
            ended.set()
        return None

    async with running(queue, gone):
        for key in (A, B, C):
            queue.add(key)
        await ended.wait()
        await eventually_async(lambda: _is(not queue.running), what="the end of all", every=0.001)

    assert set(queue._ended) <= {C}


async def _is(true: bool) -> bool:
    return true


async def test_no_more_keys_run_at_a_time_than_allowed(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry, concurrency=2), Recorded()
    for key in (A, B, C):
        queue.add(key)
    async with running(queue, reconcile):
        await reconcile.until(2)
        assert len(queue) == 1
        reconcile.go.set()
        await reconcile.until(3)

    assert reconcile.most_at_once == 2


async def test_a_namespace_with_slow_keys_cannot_hold_all_workers(registry: CollectorRegistry) -> None:
    queue, slow = make(registry, concurrency=8), Recorded()
    crowd = [Key("Agent", "shop", str(number)) for number in range(10)]
    other = Key("Agent", "lab", "quick")
    done = asyncio.Event()

    async def reconcile(key: Key) -> float | None:
        if key == other:
            done.set()
            return None
        return await slow(key)

    for key in crowd:
        queue.add(key)
    async with running(queue, reconcile), asyncio.timeout(10):
        await slow.until(7)
        queue.add(other)
        await done.wait()
        assert slow.calls == crowd[:7], "the others of the crowd wait"
        assert len(queue) == 3
        slow.go.set()
        await slow.until(10)
    assert slow.calls == crowd, "and keep their order"
    assert slow.most_at_once == 7


@pytest.mark.parametrize("concurrency", [1, 2, 8, 17])
async def test_nothing_that_was_added_is_forgotten_and_no_worker_idles_beside_it(
    registry: CollectorRegistry, concurrency: int
) -> None:
    """Keys of some namespaces come, fail, are put off and come again while they run, in a thousand ways."""
    queue, dice = make(registry, concurrency=concurrency), random.Random(concurrency)
    keys = [Key("Agent", f"tenant-{number % 4}", f"agent-{number}") for number in range(60)]
    awaited: set[Key] = set()
    held, stormy = asyncio.Event(), True

    async def reconcile(key: Key) -> float | None:
        awaited.discard(key)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if stormy and dice.random() < 0.5:
            raise TemporaryError("refused", delay=dice.choice([None, 0.002]))
        await held.wait()
        return 0.001 if stormy and dice.random() < 0.3 else None

    async def all_done() -> bool:
        return not (awaited or queue.running or queue.delayed or len(queue))

    async def all_at_work() -> bool:
        return len(queue.running) == concurrency and len(queue) > 0

    async with running(queue, reconcile):
        for _ in range(10):
            held.set()
            for _ in range(200):
                key = dice.choice(keys)
                awaited.add(key)
                queue.add(key, asked=dice.random() < 0.3)
                if dice.random() < 0.5:
                    await asyncio.sleep(0)
            held.clear()
            stormy = False
            for key in keys:
                awaited.add(key)
                queue.add(key)
            await eventually_async(all_at_work, what="each worker has a key", timeout=5, every=0.002)
            held.set()
            await eventually_async(all_done, what="nothing is left", timeout=5, every=0.002)
            stormy = True


async def test_what_the_api_server_asks_to_leave_alone_is_not_tried_before_whatever_happens(
    registry: CollectorRegistry,
) -> None:
    queue, tries, loop = make(registry), list[float](), asyncio.get_running_loop()

    async def reconcile(key: Key) -> float | None:
        if key == B:
            return None
        tries.append(loop.time())
        if len(tries) == 1:
            raise TemporaryError("too many requests", delay=0.5)
        return None

    async with running(queue, reconcile), asyncio.timeout(10):
        queue.add(A)

        async def failed() -> bool:
            return queue.failing == 1

        await eventually_async(failed, what="the first try has failed")
        queue.add(A)  # an event
        queue.add_after(A, 0.01)  # and a deadline
        assert (len(queue), queue.delayed) == (0, 1)

        async def succeeded() -> bool:
            return queue.failing == 0

        await eventually_async(succeeded, what="the second one has succeeded")
    first, second = tries
    assert second - first >= 0.5


async def test_it_finishes_what_runs_and_begins_nothing_more(registry: CollectorRegistry) -> None:
    queue, recorded = make(registry), Recorded()
    queue.add(A)
    queue.add(B)
    async with running(queue, recorded), asyncio.timeout(10):
        await recorded.until(1)
        finishing = asyncio.create_task(queue.finish(within=30))
        queue.add(A)
        recorded.go.set()
        await finishing
        assert recorded.calls == [A]
        assert not queue.running


async def test_it_does_not_wait_for_ever_for_what_does_not_end(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    queue, recorded = make(registry), Recorded()
    queue.add(A)
    async with running(queue, recorded), asyncio.timeout(10):
        await recorded.until(1)
        await queue.finish(within=0.01)
        assert queue.running == {A}
    assert "not finished within 0.01 s: Agent shop/a" in caplog.text


async def test_what_fails_is_tried_again_until_it_succeeds(registry: CollectorRegistry) -> None:
    queue = make(registry)
    done = asyncio.Event()
    tries = 0

    async def reconcile(key: Key) -> float | None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise TemporaryError("not yet")
        done.set()
        return None

    queue.add(A)
    async with running(queue, reconcile):
        await asyncio.wait_for(done.wait(), 5)

    assert tries == 4
    assert registry.get_sample_value(
        "kubeagents_operator_reconciles_total", {"kind": "Agent", "outcome": "error"}
    ) == pytest.approx(3)


async def test_failures_of_tries_that_events_ask_for_do_not_lengthen_the_backoff(registry: CollectorRegistry) -> None:
    backoff = Backoff(initial=2, longest=1000, jitter=0)
    queue = WorkQueue(metrics=QueueMetrics(registry), concurrency=1, backoff=backoff)
    tries = 0

    async def reconcile(key: Key) -> float | None:
        nonlocal tries
        tries += 1
        if tries <= 10:
            raise TemporaryError("the API server is away")
        return None

    async def tried(times: int) -> bool:
        return tries == times and not queue.running

    async with running(queue, reconcile), asyncio.timeout(20):
        for times in range(1, 11):
            queue.add(A)  # an event
            await eventually_async(partial(tried, times), what=f"try {times}")
        await eventually_async(partial(tried, 11), what="the try after the first backoff", timeout=10)


async def test_a_defect_in_one_reconcile_does_not_end_the_others(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make(registry)
    done = asyncio.Event()

    async def reconcile(key: Key) -> float | None:
        if key == A:
            raise KeyError("defect")
        done.set()
        return None

    queue.add(A)
    queue.add(B)
    async with running(queue, reconcile):
        await asyncio.wait_for(done.wait(), 5)

    assert "Agent shop/a" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_reconcile_that_hangs_is_cut_and_tried_again(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry, run_timeout=0.02), Recorded()
    queue.add(A)

    async with running(queue, reconcile):
        await reconcile.until(2)

    assert reconcile.calls[:2] == [A, A]


async def test_a_reconcile_that_asks_to_be_called_again_is(registry: CollectorRegistry) -> None:
    queue = make(registry)
    calls: list[Key] = []
    done = asyncio.Event()

    async def reconcile(key: Key) -> float | None:
        calls.append(key)
        if len(calls) == 3:
            done.set()
            return None
        return 0.001

    queue.add(A)
    async with running(queue, reconcile):
        await asyncio.wait_for(done.wait(), 5)

    assert calls == [A, A, A]


async def test_the_earlier_of_two_delays_counts(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    reconcile.go.set()
    queue.add_after(A, 3600)
    queue.add_after(A, 0.001)
    queue.add_after(B, 3600)

    async with running(queue, reconcile):
        await reconcile.until(1)

    assert reconcile.calls == [A]


async def test_a_forgotten_key_does_not_come_back(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    reconcile.go.set()
    queue.add_after(A, 0.001)
    queue.forget(A)
    queue.add_after(B, 0.002)

    async with running(queue, reconcile):
        await reconcile.until(1)

    assert reconcile.calls == [B]


async def test_it_is_stuck_only_while_there_is_work_that_does_not_move(registry: CollectorRegistry) -> None:
    queue, reconcile = make(registry), Recorded()
    assert queue.stuck_seconds() == 0
    queue.add(A)
    async with running(queue, reconcile):
        await reconcile.until(1)

        async def some_time_passed() -> bool:
            return queue.stuck_seconds() > 0

        await eventually_async(some_time_passed, what="time passes", timeout=5, every=0.001)
        reconcile.go.set()

        async def idle() -> bool:
            return queue.stuck_seconds() == 0 and not queue.running

        await eventually_async(idle, what="idle", timeout=5, every=0.001)


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(initial=1, longest=60, jitter=0)

    assert [backoff.delay(failures) for failures in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]
