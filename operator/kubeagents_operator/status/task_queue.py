# SPDX-License-Identifier: Apache-2.0
"""The status of a TaskQueue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent_runtime.queue.gates import SPEC
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import QueueStats
from kubeagents_api.task_queue import BacklogThresholds
from kubeagents_operator.observed import Pod, Rollout
from kubeagents_operator.replays import Replayed
from kubeagents_operator.sampler import Sample
from kubeagents_operator.status import backlog, routing, workload
from kubeagents_operator.status import rollout as rollouts
from kubeagents_operator.status.conditions import (
    Fact,
    Phase,
    Previous,
    Report,
    Verdict,
    current,
    earliest,
    fact,
    format_time,
    of_verdict,
    progressing,
    stalled,
    unknown,
)

START_DEADLINE: Final = 300.0
"""Seconds that a managed Redis may take to start, pulling its image included."""
UNREACHABLE_DEADLINE: Final = 120.0
"""Seconds for which an external Redis may be out of reach before somebody should look."""

_COUNTERS = (
    "depth",
    "running",
    "scheduled",
    "blocked",
    "unroutable",
    "dead",
    "oldestTaskTime",
    "consumers",
    "backend",
)


@dataclass(frozen=True, slots=True)
class ManagedState:
    """The Redis that the operator runs."""

    rollout: Rollout | None
    template: str | None
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class TaskQueueState:
    """All that the status of a TaskQueue depends on."""

    obstacle: Verdict | None
    """What keeps the operator from doing anything for it."""
    managed: ManagedState | None
    """None for an external Redis."""
    sample: Sample | None
    fault: str | None = None
    """What is wrong with the schedules."""
    max_depth: int | None = None
    unroutable: Mapping[str, int] = field(default_factory=dict)
    """Targets that no Agent of the queue has -> how many tasks wait for them."""
    schedules_served: bool | None = None
    """Whether a CentralAgent serves the queue; None if it has no schedules."""
    backlog: BacklogThresholds = field(default_factory=BacklogThresholds)
    replayed: Replayed | None = None
    """The replay that the annotation of now asks for, once it has been done."""


def report(state: TaskQueueState, previous: Previous, *, now: datetime) -> Report:
    """The status."""
    not_ready = previous.lasted(ConditionType.READY, now)
    verdict = _verdict(state, previous, not_ready)
    facts = (*of_verdict(verdict), *_facts(state, previous, verdict, now))
    fields = {
        **_fields(state, previous),
        **workload.handled(previous, replayDead=state.replayed.wish if state.replayed is not None else None),
    }
    again = earliest(_deadline(state, verdict, not_ready), _backlog_due(state, now))
    return Report(verdict, facts, fields, again=again, notes=_notes(state, previous))


def overdue_sample(state: TaskQueueState, *, now: datetime) -> bool:
    """The oldest task has reached its threshold since the sample, if it still waits: only another sample tells."""
    due = _due(state)
    return due is not None and now >= due


def _due(state: TaskQueueState) -> datetime | None:
    sample = state.sample
    if sample is None or sample.stats is None or sample.at is None:
        return None
    return backlog.due(state.backlog, sample.stats, at=sample.at)


def _backlog_due(state: TaskQueueState, now: datetime) -> float | None:
    """When to look for a sample of after that moment: they come within a second of being asked for."""
    due = _due(state)
    return max(1.0, (due - now).total_seconds() + 0.1) if due is not None else None


def _notes(state: TaskQueueState, previous: Previous) -> tuple[tuple[str, str], ...]:
    replayed = state.replayed
    if replayed is None or (previous.fields.get("handled") or {}).get("replayDead") == replayed.wish:
        return ()
    tasks = "1 dead task" if replayed.tasks == 1 else f"{replayed.tasks} dead tasks"
    return (("DLQReplayed", f"queued {tasks} again, as the annotation replayDead asks"),)


def _verdict(state: TaskQueueState, previous: Previous, not_ready: float) -> Verdict:
    if state.obstacle is not None:
        return state.obstacle
    redis = None
    if state.managed is not None:
        redis = rollouts.judge(
            state.managed.rollout,
            wanted=1,
            template=state.managed.template,
            pods=state.managed.pods,
            overdue=not_ready > START_DEADLINE,
        )
        if redis.waiting():
            return Verdict(redis.phase, redis.reason, f"Redis: {redis.message}")
    if state.fault is not None and (state.sample is None or state.sample.trouble is None):
        return stalled(Reason.INVALID_SPEC, f"{state.fault}; all other schedules and tasks go on")
    if state.sample is None:
        before = previous.verdict()
        if before is not None and before.reason in _LEARNT_BY_SAMPLING:
            return before
        return progressing(Reason.ROLLING_OUT, "Redis has not been asked yet")
    if state.sample.trouble is None:
        return _verdict_on_gates(state.sample.stats)
    return _verdict_on_trouble(state, not_ready)


def _verdict_on_gates(stats: QueueStats | None) -> Verdict:
    """A queue that somebody has shut does what it should."""
    if stats is not None and stats.paused_by:
        return current(Reason.PAUSED, f"paused by {_by(stats.paused_by, 'spec.paused')}: agents take no tasks")
    if stats is not None and stats.closed_by:
        return current(Reason.CLOSED, f"closed by {_by(stats.closed_by, 'spec.closed')}: new tasks are refused")
    return current(Reason.AVAILABLE, "tasks can be submitted and taken")


def _by(names: Sequence[str], field: str) -> str:
    return routing.listed(field if name == SPEC else name for name in names)


_LEARNT_BY_SAMPLING = frozenset(
    {
        Reason.AVAILABLE,
        Reason.PAUSED,
        Reason.CLOSED,
        Reason.REDIS_UNREACHABLE,
        Reason.REDIS_AUTH_FAILED,
        Reason.REDIS_URL_INVALID,
    }
)
"""Verdicts of before a restart that stand until there is a new sample."""


def _verdict_on_trouble(state: TaskQueueState, not_ready: float) -> Verdict:
    assert state.sample is not None  # noqa: S101 - the caller has looked
    assert state.sample.trouble is not None  # noqa: S101 - the caller has looked
    reason, message = state.sample.trouble.reason, state.sample.trouble.message
    match reason:
        case Reason.SECRET_NOT_FOUND | Reason.REDIS_URL_INVALID:
            return stalled(reason, message)
        case Reason.REDIS_AUTH_FAILED if state.managed is None:
            return stalled(reason, message)
        case Reason.REDIS_UNREACHABLE if state.managed is None and not_ready > UNREACHABLE_DEADLINE:
            return stalled(reason, f"{message}: correct the address in the Secret, or start that Redis")
    if not_ready > START_DEADLINE:
        return stalled(reason, message)
    return progressing(reason, message)


def _facts(state: TaskQueueState, previous: Previous, verdict: Verdict, now: datetime) -> list[Fact]:
    types = [
        ConditionType.ACCEPTING,
        ConditionType.SUSPENDED,
        ConditionType.BACKLOGGED,
        ConditionType.DRAINED,
        ConditionType.DEAD_LETTERING,
        ConditionType.ROUTABLE,
        ConditionType.STORAGE_HEALTHY,
    ]
    if state.schedules_served is not None:
        types.append(ConditionType.SCHEDULES_SERVED)
    sample = state.sample
    if sample is None and verdict == previous.verdict():
        return [previous.fact(type_) or unknown(type_, verdict.reason, verdict.message) for type_ in types]
    if sample is None or sample.stats is None or sample.storage is None:
        accepting = fact(ConditionType.ACCEPTING, False, verdict.reason, verdict.message)
        return [accepting, *(unknown(type_, verdict.reason, verdict.message) for type_ in types[1:])]
    facts = [
        _accepting(sample.stats, state.max_depth),
        _suspended(sample.stats),
        backlog.backlogged(
            state.backlog, sample.stats, at=sample.at or now, before=previous.fact(ConditionType.BACKLOGGED)
        ),
        _drained(sample.stats),
        _dead_lettering(sample.stats),
        _routable(state.unroutable),
        _storage(sample),
    ]
    if state.schedules_served is not None:
        facts.append(_schedules_served(state.schedules_served))
    return facts


def _accepting(stats: QueueStats, max_depth: int | None) -> Fact:
    type_ = ConditionType.ACCEPTING
    if stats.closed_by:
        message = f"closed by {_by(stats.closed_by, 'spec.closed')}: new tasks are refused"
        return fact(type_, False, Reason.CLOSED, message)
    if max_depth is not None and stats.queued + stats.scheduled + stats.blocked >= max_depth:
        message = "as many tasks wait as limits.maxDepth allows: start more agents, or raise it"
        return fact(type_, False, Reason.QUEUE_FULL, message)
    return fact(type_, True, Reason.AVAILABLE, "tasks can be submitted")


def _suspended(stats: QueueStats) -> Fact:
    type_ = ConditionType.SUSPENDED
    if stats.paused_by:
        message = f"paused by {_by(stats.paused_by, 'spec.paused')}: agents take no tasks, new ones wait"
        return fact(type_, True, Reason.PAUSED, message)
    return fact(type_, False, Reason.ACTIVE, "agents take tasks")


def _drained(stats: QueueStats) -> Fact:
    if stats.queued + stats.running + stats.scheduled + stats.blocked:
        message = "tasks are queued, scheduled, blocked or running"
        return fact(ConditionType.DRAINED, False, Reason.TASKS_PENDING, message)
    return fact(ConditionType.DRAINED, True, Reason.EMPTY, "nothing is queued, scheduled, blocked or running")


def _dead_lettering(stats: QueueStats) -> Fact:
    if stats.dead:
        message = "tasks have used up their attempts and are kept"
        return fact(ConditionType.DEAD_LETTERING, True, Reason.DEAD_TASKS, message)
    return fact(ConditionType.DEAD_LETTERING, False, Reason.NO_DEAD_TASKS)


def _routable(unroutable: Mapping[str, int]) -> Fact:
    if unroutable:
        message = (
            f"tasks wait for {routing.described(unroutable)}, which no Agent of this queue is or has: create the "
            "Agent, add the capability to an Agent's spec.capabilities, or cancel the tasks"
        )
        return fact(ConditionType.ROUTABLE, False, Reason.TASKS_UNROUTABLE, message)
    return fact(ConditionType.ROUTABLE, True, Reason.TASKS_ROUTABLE, "there is an Agent for every waiting task")


def _schedules_served(served: bool) -> Fact:
    type_ = ConditionType.SCHEDULES_SERVED
    if served:
        return fact(type_, True, Reason.SERVED, "a CentralAgent serves the queue")
    message = (
        "no CentralAgent with a replica has this queue in spec.queueRefs: its schedules do not fire; add it to one"
    )
    return fact(type_, False, Reason.NO_CENTRAL_AGENT, message)


def _storage(sample: Sample) -> Fact:
    storage = sample.storage
    assert storage is not None  # noqa: S101 - the caller has looked
    type_ = ConditionType.STORAGE_HEALTHY
    if storage.eviction_policy not in (None, "noeviction"):
        message = f"maxmemory-policy is {storage.eviction_policy}: set it to noeviction, or tasks may vanish"
        return fact(type_, False, Reason.EVICTION_POLICY_UNSAFE, message)
    if not storage.append_only:
        return fact(type_, False, Reason.PERSISTENCE_OFF, "set appendonly to yes, or a restart of Redis loses tasks")
    if storage.eviction_policy is None:
        message = "the server does not tell its maxmemory-policy: make sure that it is noeviction"
        return unknown(type_, Reason.EVICTION_POLICY_UNSAFE, message)
    return fact(type_, True, Reason.DURABLE, "what Redis acknowledges it keeps")


def _fields(state: TaskQueueState, previous: Previous) -> dict[str, Any]:
    sample = state.sample
    if sample is None:
        return {name: previous.fields.get(name) for name in _COUNTERS}
    backend = previous.fields.get("backend")
    if sample.storage is not None:
        backend = f"{'managed' if state.managed is not None else 'external'} {sample.storage.server}"
    if sample.stats is None:
        return {**dict.fromkeys(_COUNTERS), "backend": backend}
    stats = sample.stats
    return {
        "depth": stats.queued,
        "running": stats.running,
        "scheduled": stats.scheduled,
        "blocked": stats.blocked,
        "unroutable": sum(state.unroutable.values()),
        "dead": stats.dead,
        "oldestTaskTime": format_time(stats.oldest_at) if stats.oldest_at is not None else None,
        "consumers": len(sample.instances),
        "backend": backend,
    }


def _deadline(state: TaskQueueState, verdict: Verdict, not_ready: float) -> float | None:
    """When a verdict of "it gets there" becomes one of "it does not"."""
    if verdict.phase is not Phase.PROGRESSING:
        return None
    limit = START_DEADLINE if state.managed is not None else UNREACHABLE_DEADLINE
    return limit - not_ready + 1.0 if not_ready <= limit else None
