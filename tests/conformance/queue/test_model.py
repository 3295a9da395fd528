# SPDX-License-Identifier: Apache-2.0
"""Random interleavings of everything that can be done with a queue, held against the reference.

`KUBEAGENTS_HYPOTHESIS=thorough` looks for long, and elsewhere each time; otherwise the same examples run each time.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent_runtime.queue import (
    Beat,
    Claim,
    CordonedError,
    Failed,
    Orders,
    Outcome,
    Succeeded,
    TaskQueue,
    Worker,
    open_queue,
)
from agent_runtime.queue.base import Gate, Progress
from agent_runtime.queue.keys import Keys
from agent_runtime.testing import ManualClock, MemoryTaskQueue
from kubeagents_api.errors import KubeagentsError, QueueFullError
from kubeagents_api.limits import QueueLimits, TenantLimits
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import DeadFilter, TaskEventKind, TaskRequest, TaskState
from kubeagents_api.task_queue import RetryPolicy
from tests.conformance.queue.conftest import queue_config
from tests.conformance.queue.reference import BACKOFF, DEADLINE, DELAY, LEASE, WAITING, Reference, Refused, Wish
from tests.support.redis_server import RedisServer

T = TypeVar("T")
WORKERS = {
    "echo-1": Worker("echo", "echo-1", ("ocr",)),
    "echo-2": Worker("echo", "echo-2"),
    "count-1": Worker("count", "count-1", ("ocr", "pdf")),
}
LANES: dict[str, dict[str, str]] = {
    "": {},
    "a echo": {"agent": "echo"},
    "a count": {"agent": "count"},
    "c ocr": {"capability": "ocr"},
    "i echo-2": {"instance": "echo-2"},
}
TARGETS = {
    "": "",
    "a echo": "agent/echo",
    "a count": "agent/count",
    "c ocr": "capability/ocr",
    "i echo-2": "instance/echo-2",
}
SERVED = {
    "echo-1": {"", "a echo", "c ocr"},
    "echo-2": {"", "a echo", "i echo-2"},
    "count-1": {"", "a count", "c ocr"},
}
TERMINAL = {
    TaskEventKind.SUCCEEDED,
    TaskEventKind.FAILED,
    TaskEventKind.DEAD,
    TaskEventKind.CANCELLED,
    TaskEventKind.EXPIRED,
}
# No sum of these comes close below a time of the reference, so that the time a test takes does not matter.
STEPS = st.sampled_from([2300.0, 7100.0, 70100.0])

wishes = st.builds(
    Wish,
    id=st.just(""),
    lane=st.sampled_from([*LANES, "", ""]),
    priority=st.sampled_from([5, 5, 5, 1, 9]),
    tenant=st.sampled_from([None, None, "a", "b"]),
    max_attempts=st.sampled_from([1, 2, 3]),
    delayed=st.sampled_from([False, False, False, True]),
    mortal=st.sampled_from([False, False, False, True]),
    key=st.sampled_from([None, None, None, None, "k1", "k2"]),
    policy=st.sampled_from(["Fail", "Skip", "Run"]),
)
limits = st.builds(
    QueueLimits,
    max_depth=st.sampled_from([None, None, 6]),
    concurrency=st.sampled_from([None, None, 3]),
    per_tenant=st.builds(TenantLimits, concurrency=st.sampled_from([None, 1])),
)


class Storage:
    """Where the queue of an example is, and how time passes there."""

    def __init__(self, server: RedisServer | None) -> None:
        self._server = server
        self._clock = ManualClock()
        self._keys: list[str] = []

    def open(self, config: QueueConfig) -> TaskQueue:
        """A queue that is empty."""
        if self._server is None:
            self._clock = ManualClock()
            return MemoryTaskQueue(config, clock=self._clock)
        keys = Keys(config.namespace, config.name)
        self._keys = [keys.name(part) for part in ("leases", "scheduled", "deadlines")]
        with self._server.client() as client:
            client.flushall()
        return open_queue(config, url=self._server.url)

    def now(self) -> datetime:
        """The time there."""
        return self._clock.now() if self._server is None else datetime.now(UTC)

    def pass_time(self, seconds: float) -> None:
        """Let everything that has a time come closer to it."""
        if self._server is None:
            self._clock.advance(seconds)
            return
        with self._server.client() as client:
            for key in self._keys:
                moments = client.zrange(key, 0, -1, withscores=True)
                assert isinstance(moments, list)
                if moments:
                    client.zadd(key, {member: score - seconds * 1000 for member, score in moments})


class QueueMachine(RuleBasedStateMachine):
    """What clients, workers and operators do, in any order."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage
        self.runner = asyncio.Runner()
        self.queue: TaskQueue
        self.reference: Reference
        self.claims: list[Claim] = []
        """All that were ever handed out: most are stale."""
        self.names = 0
        self.lives: Counter[str] = Counter()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self.runner.run(asyncio.wait_for(work, 30))

    @initialize(chosen=limits, shed=st.booleans())
    def begin(self, chosen: QueueLimits, shed: bool) -> None:
        shed = shed and chosen.max_depth is not None
        chosen = chosen.model_copy(update={"when_full": "Shed" if shed else "Refuse"})
        config = queue_config(
            "model",
            limits=chosen,
            lease_seconds=LEASE,
            retry=RetryPolicy(initial_seconds=BACKOFF, max_seconds=BACKOFF, jitter=0),
            deduplication_seconds=31_536_000.0,
            result_ttl_seconds=31_536_000,
        )
        self.queue = self.storage.open(config)
        self.reference = Reference(
            max_depth=chosen.max_depth,
            shed=shed,
            concurrency=chosen.concurrency,
            tenant_concurrency=chosen.per_tenant.concurrency,
        )

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(batch=st.lists(wishes, min_size=1, max_size=4), data=st.data())
    def submit(self, batch: list[Wish], data: st.DataObject) -> None:
        known = sorted(self.reference.tasks)
        for wish in batch:
            self.names += 1
            wish.id = f"t{self.names}"
        if known and data.draw(st.integers(0, 19)) == 0:
            batch[-1].id = data.draw(st.sampled_from(known), label="an id that is taken")
        own = [wish.id for wish in batch]
        for wish in batch:
            others = [name for name in (*known[-8:], *own) if name != wish.id]
            if others and not wish.delayed and data.draw(st.integers(0, 2)) == 0:
                wish.parents = tuple(data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=3, unique=True)))
        tasks = [self._request(wish) for wish in batch]
        try:
            expected = self.reference.submit(batch)
        except Refused as refused:
            with pytest.raises(QueueFullError if refused.full else KubeagentsError):
                self.do(self.queue.submit(tasks))
            return
        assert self.do(self.queue.submit(tasks)) == expected

    def _request(self, wish: Wish) -> TaskRequest:
        return TaskRequest(
            id=wish.id,
            priority=wish.priority,
            tenant=wish.tenant,
            max_attempts=wish.max_attempts,
            delay_seconds=DELAY if wish.delayed else None,
            deadline=self.storage.now() + timedelta(seconds=DEADLINE) if wish.mortal else None,
            idempotency_key=wish.key,
            depends_on=list(wish.parents),
            on_parent_failure=wish.policy,
            payload=wish.id,
            **LANES[wish.lane],
        )

    @precondition(lambda self: self.reference.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_ids = data.draw(
            st.lists(st.sampled_from(sorted(self.reference.tasks)), min_size=1, max_size=3, unique=True)
        )
        expected = self.reference.cancel(task_ids)
        assert self.do(self.queue.cancel(task_ids, by="test")) == expected

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(name=st.sampled_from(sorted(WORKERS)), limit=st.integers(1, 4))
    def claim(self, name: str, limit: int) -> None:
        self.reference.tidy()
        if self.reference.cordons.get(name):
            with pytest.raises(CordonedError):
                self.do(self.queue.claim(WORKERS[name], limit=limit, wait_seconds=0))
            return
        claims = self.do(self.queue.claim(WORKERS[name], limit=limit, wait_seconds=0))
        for claim in claims:
            candidates = self.reference.may_be_next(SERVED[name])
            assert claim.id in candidates, f"{name} got {claim.id} instead of one of {candidates}"
            assert self.reference.start(claim.id, claim.token, name).attempts == claim.attempt
        if len(claims) < limit:
            assert not self.reference.may_be_next(SERVED[name]), "tasks were left behind"
        self.claims += claims

    def _some_claims(self, data: st.DataObject) -> list[Claim]:
        # Mostly new ones, which are held. One of a task at most: no worker has several attempts of the same.
        recent = self.claims[-6:]
        chosen: list[Claim] = data.draw(
            st.lists(
                st.sampled_from(recent) | st.sampled_from(self.claims),
                min_size=1,
                max_size=3,
                unique_by=lambda claim: claim.id,
            )
        )
        return chosen

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        outcomes: list[Outcome] = []
        expected = []
        for claim in self._some_claims(data):
            how = data.draw(st.sampled_from(["good", "good", "bad", "bad at once", "hopeless"]))
            if how == "good":
                outcomes.append(Succeeded(claim, b'"ok"'))
            else:
                wait = 0.0 if how == "bad at once" else None
                outcomes.append(Failed(claim, "FAILED", "no", permanent=how == "hopeless", delay_seconds=wait))
            expected.append(self.reference.settle(claim.id, claim.token, how=how))
        assert self.do(self.queue.settle(outcomes)) == expected

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claims = self._some_claims(data)
        for claim in claims:
            self.reference.release(claim.id, claim.token)
        self.do(self.queue.release(claims))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        claims = self._some_claims(data)
        lost = [claim for claim in claims if not self.reference.extend(claim.id, claim.token)]
        assert self.do(self.queue.extend(claims)) == lost

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def speak_and_read(self, data: st.DataObject) -> None:
        claim = self._some_claims(data)[0]
        task = self.reference.holder(claim.id, claim.token)
        assert self.do(self.queue.emit(claim, [Progress(0.5)])) is (task is not None)
        if task is not None:
            outcomes = self.do(self.queue.parents(claim))
            assert {name: outcome.state for name, outcome in outcomes.items()} == task.outcomes
            assert set(claim.depends_on) == set(task.outcomes)

    # ── operators and time ──────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.reference.tasks)
    @rule(data=st.data(), everything=st.booleans())
    def replay(self, data: st.DataObject, everything: bool) -> None:
        names = None if everything else data.draw(st.lists(st.sampled_from(sorted(self.reference.tasks)), max_size=3))
        expected = self.reference.dead(names)
        replayed = self.do(self.queue.replay(DeadFilter(ids=names), by="test"))
        assert sorted(replayed) == sorted(expected)
        for name in replayed:
            self.reference.replay(name)

    @precondition(lambda self: self.reference.count(TaskState.DEAD))
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.reference.tasks)), min_size=1, max_size=2, unique=True))
        expected = self.reference.dead(names)
        assert sorted(self.do(self.queue.purge(DeadFilter(ids=names), by="test"))) == sorted(expected)
        for name in expected:
            self.reference.purge(name)

    @rule(gate=st.sampled_from(list(Gate)), shut=st.sampled_from([True, False, False]), by=st.sampled_from(["x", "y"]))
    def set_gate(self, gate: Gate, shut: bool, by: str) -> None:
        self.do(self.queue.set_gate(gate, shut=shut, by=by))
        names = self.reference.gates[gate.value]
        (names.add if shut else names.discard)(by)

    @rule(
        names=st.lists(st.sampled_from(sorted(WORKERS)), min_size=1, max_size=2, unique=True),
        cordoned=st.sampled_from([True, False, False]),
        by=st.sampled_from(["x", "y"]),
    )
    def set_cordon(self, names: list[str], cordoned: bool, by: str) -> None:
        self.do((self.queue.cordon if cordoned else self.queue.uncordon)(names, by=by))
        for name in names:
            who = self.reference.cordons.setdefault(name, set())
            (who.add if cordoned else who.discard)(by)

    @rule(name=st.sampled_from(sorted(WORKERS)))
    def beat(self, name: str) -> None:
        beat = Beat(WORKERS[name], "1", concurrency=1, running=0, draining=False, started_at_ms=0)
        who = self.reference.cordons.get(name, set())
        assert self.do(self.queue.beat(beat)) == Orders(cordoned=bool(who))
        known = {info.instance: info for info in self.do(self.queue.instances(timeout_seconds=60))}
        assert known[name].cordoned_by == sorted(who)

    @rule(name=st.sampled_from(sorted(WORKERS)))
    def leave(self, name: str) -> None:
        self.do(self.queue.leave(WORKERS[name]))
        self.reference.cordons.pop(name, None)

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.storage.pass_time(seconds)
        self.reference.now += seconds

    @rule()
    def ask_for_figures(self) -> None:
        self.reference.tidy()
        stats = self.do(self.queue.stats())
        count, totals = self.reference.count, self.reference.totals
        assert (stats.queued, stats.running, stats.scheduled, stats.blocked, stats.dead) == (
            count(TaskState.QUEUED),
            count(TaskState.RUNNING),
            count(TaskState.SCHEDULED),
            count(TaskState.BLOCKED),
            count(TaskState.DEAD),
        )
        assert (stats.succeeded_total, stats.failed_total, stats.cancelled_total, stats.expired_total) == (
            totals["succeeded"],
            totals["failed"],
            totals["cancelled"],
            totals["expired"],
        )
        assert stats.submitted_total == totals["submitted"]
        waiting = Counter(t.wish.lane for t in self.reference.tasks.values() if t.state is TaskState.QUEUED)
        assert stats.waiting == {TARGETS[lane]: count for lane, count in waiting.items()}
        gates = self.reference.gates
        assert (stats.paused_by, stats.closed_by) == (sorted(gates["claims"]), sorted(gates["submissions"]))

    # ── always ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def every_task_is_where_it_should_be(self) -> None:
        if not hasattr(self, "reference"):
            return
        records = self.do(self.queue.wait(list(self.reference.tasks), timeout_seconds=0))
        for record, task in zip(records, self.reference.tasks.values(), strict=True):
            waits_for = len(task.parents) - len(task.outcomes) if task.state is TaskState.BLOCKED else 0
            assert (record.id, record.state, record.attempts, record.replays, record.waits_for) == (
                task.wish.id,
                task.state,
                task.attempts,
                task.replays,
                waits_for,
            )
            assert [failure.code for failure in record.failures] == task.failures
            assert (record.due_at is not None) == (task.state is TaskState.SCHEDULED)
            assert (record.finished_at is not None) == task.state.final
            assert tuple(record.depends_on) == task.parents
            if task.state is TaskState.RUNNING:
                assert record.worker == task.worker

    def teardown(self) -> None:
        """Whatever has happened, all tasks come to one end each."""
        try:
            if hasattr(self, "reference"):
                self._work_off()
                self._count_ends()
        finally:
            if hasattr(self, "queue"):
                self.do(self.queue.aclose())
            self.runner.close()

    def _work_off(self) -> None:
        for gate in Gate:
            for name in tuple(self.reference.gates[gate.value]):
                self.set_gate(gate, shut=False, by=name)
        for name, who in self.reference.cordons.items():
            for by in tuple(who):
                self.set_cordon([name], cordoned=False, by=by)
        for _ in range(200):
            if not self.reference.count(*WAITING, TaskState.RUNNING):
                break
            for name in WORKERS:
                before = len(self.claims)
                self.claim(name, 4)
                for claim in self.claims[before:]:
                    assert self.reference.settle(claim.id, claim.token, how="good")
                    assert self.do(self.queue.settle([Succeeded(claim, b"null")])) == [True]
            self.time_passes(7100.0)
        self.ask_for_figures()
        self.every_task_is_where_it_should_be()
        assert not self.reference.count(*WAITING, TaskState.RUNNING), "tasks that nobody can work off"

    def _count_ends(self) -> None:
        ends: Counter[str] = Counter()
        offset = ""
        while page := self.do(self.queue.events(after=offset, limit=1000)):
            offset = page[-1].offset
            for event in page:
                if event.task is not None:
                    ends[event.task] += (event.kind in TERMINAL) - (event.kind is TaskEventKind.REPLAYED)
        assert {name: ends[name] for name in self.reference.tasks} == dict.fromkeys(self.reference.tasks, 1)


THOROUGH = os.environ.get("KUBEAGENTS_HYPOTHESIS") == "thorough"


def profile(examples: int) -> settings:
    """How long to look."""
    return settings(
        max_examples=examples * 20 if THOROUGH else examples,
        stateful_step_count=60 if THOROUGH else 30,
        derandomize=not THOROUGH,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if THOROUGH else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_any_interleaving_ends_as_the_reference_says(server: RedisServer | None) -> None:
    storage = Storage(server)

    class Machine(QueueMachine):
        def __init__(self) -> None:
            super().__init__(storage)

    run_state_machine_as_test(Machine, settings=profile(300 if server is None else 150))
