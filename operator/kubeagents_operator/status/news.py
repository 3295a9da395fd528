# SPDX-License-Identifier: Apache-2.0
"""From one status to the next: what people should hear of it, as Events. Only transitions are news."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.status.conditions import Fact, Previous, Report

_WORTH_A_WARNING = frozenset(
    {
        Reason.HEARTBEAT_MISSED,
        Reason.LEASE_EXPIRED,
        Reason.REDIS_AUTH_FAILED,
        Reason.REDIS_UNREACHABLE,
    }
)
"""Reasons for which something that was ready is not any more, and that are no part of everyday life."""

_OVER = {
    Reason.SPEC_SUSPENDED: "Resumed",
    Reason.PAUSED: "Resumed",
    Reason.CLOSED: "Opened",
    Reason.QUEUE_FULL: "Accepting",
    Reason.TASKS_UNROUTABLE: "Routable",
    Reason.NO_CENTRAL_AGENT: "SchedulesServed",
    Reason.EVICTION_POLICY_UNSAFE: "StorageHealthy",
    Reason.PERSISTENCE_OFF: "StorageHealthy",
}
"""Why a condition is not as it normally is -> the Event for its end. When it begins, the reason itself is the Event."""
_WANTED = frozenset({Reason.SPEC_SUSPENDED, Reason.PAUSED, Reason.CLOSED})
"""Those that somebody wanted: no warning."""
_TOLD = (
    ConditionType.SUSPENDED,
    ConditionType.ACCEPTING,
    ConditionType.ROUTABLE,
    ConditionType.SCHEDULES_SERVED,
    ConditionType.STORAGE_HEALTHY,
)


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell."""

    reason: str
    note: str
    warns: bool = False


def news(previous: Previous, report: Report) -> Iterator[News]:
    """What has changed between the status of before and the report."""
    facts = {one.type: one for one in report.facts}
    yield from _of_verdict(previous, facts)
    for type_ in _TOLD:
        if (found := facts.get(type_)) is not None:
            yield from _of_condition(previous.fact(type_), found)
    yield from _of_dead(previous, facts.get(ConditionType.DEAD_LETTERING))
    yield from _of_backlog(previous, facts.get(ConditionType.BACKLOGGED))
    yield from _of_leader(previous, report.fields, facts.get(ConditionType.LEADER_ELECTED))
    for type_ in (ConditionType.READY, ConditionType.AUTOSCALED):
        if (found := facts.get(type_)) is not None and found.reason is Reason.SCALING_DEFERRED_BUSY:
            before = previous.fact(type_)
            if before is None or before.reason is not found.reason:
                yield News("ScaleDeferred", found.message)


def _of_verdict(previous: Previous, facts: Mapping[ConditionType, Fact]) -> Iterator[News]:
    ready, stalled = facts[ConditionType.READY], facts[ConditionType.STALLED]
    was_ready, was_stalled = previous.fact(ConditionType.READY), previous.fact(ConditionType.STALLED)
    if stalled.status == "True":
        if not _same(stalled, was_stalled):
            yield News(str(stalled.reason), stalled.message, warns=True)
    elif ready.status == "True" and (was_ready is None or was_ready.status != "True"):
        recovered = was_stalled is not None and was_stalled.status == "True"
        yield News("Recovered" if recovered else "Ready", ready.message)
    elif (
        ready.status == "False"
        and ready.reason in _WORTH_A_WARNING
        and was_ready is not None
        and was_ready.status == "True"
    ):
        yield News(str(ready.reason), ready.message, warns=True)


def _of_condition(before: Fact | None, found: Fact) -> Iterator[News]:
    if found.status == "Unknown" or _same(found, before):
        return
    if found.reason in _OVER:
        yield News(str(found.reason), found.message, warns=found.reason not in _WANTED)
    elif before is not None and before.reason in _OVER and {before.status, found.status} == {"True", "False"}:
        yield News(_OVER[before.reason], found.message or f"no longer {before.message}")


def _of_dead(previous: Previous, dead: Fact | None) -> Iterator[News]:
    before = previous.fact(ConditionType.DEAD_LETTERING)
    if dead is not None and dead.status == "True" and (before is None or before.status == "False"):
        yield News("TaskDeadLettered", dead.message, warns=True)


def _of_backlog(previous: Previous, backlogged: Fact | None) -> Iterator[News]:
    before = previous.fact(ConditionType.BACKLOGGED)
    was = before is not None and before.status == "True"
    if backlogged is not None and backlogged.status == "True" and not was:
        yield News("QueueBacklogged", backlogged.message, warns=True)
    elif backlogged is not None and backlogged.status == "False" and was:
        yield News("QueueRecovered", "no more tasks wait, and none for longer, than spec.backlog allows")


def _of_leader(previous: Previous, fields: Mapping[str, Any], elected: Fact | None) -> Iterator[News]:
    if elected is None:
        return
    leader, before = fields.get("leader"), previous.fields.get("leader")
    if leader is not None and leader != before:
        yield News("LeaderElected", f"pod {leader} leads (term {fields.get('leaseTransitions')})")
    elif leader is None and before is not None and elected.status == "False":
        yield News("LeaderLost", f"pod {before} leads no more: {elected.message}", warns=True)


def _same(one: Fact, other: Fact | None) -> bool:
    return other is not None and (one.status, one.reason) == (other.status, other.reason)
