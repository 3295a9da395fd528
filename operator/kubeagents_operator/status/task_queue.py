# SPDX-License-Identifier: Apache-2.0
"""The status of a TaskQueue."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.observed import Pod, Rollout
from kubeagents_operator.sampler import Sample
from kubeagents_operator.status import rollout as rollouts
from kubeagents_operator.status.conditions import (
    Fact,
    Phase,
    Previous,
    Report,
    Verdict,
    current,
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

_COUNTERS = ("depth", "running", "scheduled", "dead", "oldestTaskTime", "consumers", "backend")


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


def report(state: TaskQueueState, previous: Previous, *, now: datetime) -> Report:
    """The status."""
    not_ready = previous.not_ready_seconds(now)
    verdict = _verdict(state, previous, not_ready)
    facts = (*of_verdict(verdict), *_facts(state, previous, verdict))
    return Report(verdict, facts, _fields(state, previous), again=_deadline(state, verdict, not_ready))


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
    if state.sample is None:
        before = previous.verdict()
        if before is not None and before.reason in _LEARNT_BY_SAMPLING:
            return before
        return progressing(Reason.ROLLING_OUT, "Redis has not been asked yet")
    if state.sample.trouble is None:
        return current(Reason.AVAILABLE, "tasks can be submitted and taken")
    return _verdict_on_trouble(state, not_ready)


_LEARNT_BY_SAMPLING = frozenset(
    {
        Reason.AVAILABLE,
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
            return stalled(reason, f"{message}: correct the user and password in the Secret")
        case Reason.REDIS_UNREACHABLE if state.managed is None and not_ready > UNREACHABLE_DEADLINE:
            return stalled(reason, f"{message}: correct the address in the Secret, or start that Redis")
    if not_ready > START_DEADLINE:
        return stalled(reason, message)
    return progressing(reason, message)


def _facts(state: TaskQueueState, previous: Previous, verdict: Verdict) -> list[Fact]:
    types = (
        ConditionType.ACCEPTING,
        ConditionType.DRAINED,
        ConditionType.DEAD_LETTERING,
        ConditionType.STORAGE_HEALTHY,
    )
    sample = state.sample
    if sample is None and verdict == previous.verdict():
        return [previous.fact(type_) or unknown(type_, verdict.reason, verdict.message) for type_ in types]
    if sample is None or sample.stats is None or sample.storage is None:
        accepting = fact(ConditionType.ACCEPTING, False, verdict.reason, verdict.message)
        return [accepting, *(unknown(type_, verdict.reason, verdict.message) for type_ in types[1:])]
    stats = sample.stats
    pending = stats.queued + stats.running + stats.scheduled
    return [
        fact(ConditionType.ACCEPTING, True, Reason.AVAILABLE, "tasks can be submitted"),
        fact(ConditionType.DRAINED, False, Reason.TASKS_PENDING, "tasks are queued, scheduled or running")
        if pending
        else fact(ConditionType.DRAINED, True, Reason.EMPTY, "nothing is queued, scheduled or running"),
        fact(ConditionType.DEAD_LETTERING, True, Reason.DEAD_TASKS, "tasks have used up their attempts and are kept")
        if stats.dead
        else fact(ConditionType.DEAD_LETTERING, False, Reason.NO_DEAD_TASKS),
        _storage(sample),
    ]


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
