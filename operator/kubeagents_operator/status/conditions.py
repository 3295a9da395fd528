# SPDX-License-Identifier: Apache-2.0
"""Conditions: from facts of this moment and the conditions of before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from kubeagents_api.conditions import ConditionStatus, ConditionType, Reason

_MESSAGE_LIMIT = 500
_TYPES = frozenset(ConditionType)
_MAIN = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)


class Phase(Enum):
    """The three kinds of verdict."""

    CURRENT = auto()
    PROGRESSING = auto()
    STALLED = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an object is doing, all in all."""

    phase: Phase
    reason: Reason
    message: str
    again: float | None = field(default=None, compare=False)
    """Seconds after which it is another one if nothing changes: its deadline."""

    def waiting(self) -> bool:
        """It is not where it should be."""
        return self.phase is not Phase.CURRENT


def current(reason: Reason, message: str) -> Verdict:
    """It does its job."""
    return Verdict(Phase.CURRENT, reason, message)


def progressing(reason: Reason, message: str) -> Verdict:
    """It gets there."""
    return Verdict(Phase.PROGRESSING, reason, message)


def stalled(reason: Reason, message: str) -> Verdict:
    """Somebody has to help."""
    return Verdict(Phase.STALLED, reason, message)


@dataclass(frozen=True, slots=True)
class Fact:
    """What a condition says, without its history."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""


def fact(type_: ConditionType, holds: bool, reason: Reason, message: str = "") -> Fact:
    """A fact that is known."""
    return Fact(type_, "True" if holds else "False", reason, message)


def unknown(type_: ConditionType, reason: Reason, message: str = "") -> Fact:
    """A fact that is not known."""
    return Fact(type_, "Unknown", reason, message)


def of_verdict(verdict: Verdict) -> list[Fact]:
    """The three conditions that every kind has."""
    phase, reason, message = verdict.phase, verdict.reason, verdict.message
    return [
        fact(ConditionType.READY, phase is Phase.CURRENT, reason, message),
        fact(ConditionType.RECONCILING, phase is Phase.PROGRESSING, reason, message),
        fact(ConditionType.STALLED, phase is Phase.STALLED, reason, message),
    ]


def with_deadline(verdict: Verdict, *, lasted: float, limit: float) -> Verdict:
    """What usually does not heal by itself: Progressing until its deadline has passed, then Stalled.

    `lasted` is for how many seconds it has been so, `limit` how many it may.
    """
    if verdict.phase is not Phase.PROGRESSING:
        return verdict
    if lasted > limit:
        return stalled(_late(verdict.reason), verdict.message)
    return replace(verdict, again=limit - lasted + 1.0)


class Previous:
    """The status as it was before."""

    def __init__(self, status: Mapping[str, Any], *, generation: int | None = None) -> None:
        """`generation` is that of the spec as it is now, for those who ask how long something has lasted."""
        self.fields = status
        self._other_spec = generation is not None and status.get("observedGeneration") != generation
        self._conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}

    def condition(self, type_: ConditionType) -> Mapping[str, Any]:
        """One condition; empty if there was none."""
        found: Mapping[str, Any] = self._conditions.get(type_, {})
        return found

    def fact(self, type_: ConditionType) -> Fact | None:
        """One condition as a fact; None if there was none, or if it had a reason that we do not know."""
        found = self.condition(type_)
        try:
            return Fact(type_, found["status"], Reason(found["reason"]), found.get("message", ""))
        except (KeyError, ValueError):
            return None

    def other_facts(self) -> list[Fact]:
        """All but the three that every kind has."""
        known = [self.fact(ConditionType(type_)) for type_ in self._conditions if type_ in _TYPES]
        return [one for one in known if one is not None and one.type not in _MAIN]

    def verdict(self) -> Verdict | None:
        """The verdict of before."""
        for type_, phase in (
            (ConditionType.STALLED, Phase.STALLED),
            (ConditionType.RECONCILING, Phase.PROGRESSING),
            (ConditionType.READY, Phase.CURRENT),
        ):
            found = self.fact(type_)
            if found is not None and found.status == "True":
                return Verdict(phase, found.reason, found.message)
        return None

    def lasted(self, type_: ConditionType, now: datetime, *, reason: Reason | None = None) -> float:
        """For how many seconds a condition has been False, as they count towards a deadline.

        What was Stalled sets out anew with another spec, and when it is another reason that keeps it: then nothing from
        before counts. Being part of the status, it survives a restart of the operator.
        """
        found = self.condition(ConditionType.STALLED)
        if found.get("status") == "True" and (self._other_spec or not _is(found["reason"], reason)):
            return 0.0
        seconds = self.seconds(type_, "False", now)
        if self.condition(ConditionType.RECONCILING).get("status") == "True":
            return min(seconds, self.seconds(ConditionType.RECONCILING, "True", now))
        return seconds

    def seconds(self, type_: ConditionType, status: ConditionStatus, now: datetime) -> float:
        """For how long a condition has had this status; 0 if it has another one."""
        found = self.condition(type_)
        if found.get("status") != status:
            return 0.0
        return (now - parse_time(found["lastTransitionTime"])).total_seconds()

    def merged(self, facts: Iterable[Fact], *, generation: int, now: datetime) -> list[dict[str, Any]]:
        """The new conditions. The time of the last transition stays unless the status flips."""
        return [
            {
                "type": str(new.type),
                "status": new.status,
                "reason": str(new.reason),
                "message": shortened(new.message),
                "lastTransitionTime": self._transition(new, now),
                "observedGeneration": generation,
            }
            for new in facts
        ]

    def _transition(self, new: Fact, now: datetime) -> str:
        old = self.condition(new.type)
        if old.get("status") == new.status:
            time: str = old["lastTransitionTime"]
            return time
        return format_time(now)


def _is(stalled: str, reason: Reason | None) -> bool:
    """What is Stalled by that reason may be so by this one; None stands for any."""
    return reason is None or stalled == _late(reason)


def _late(reason: Reason) -> Reason:
    """The reason after the deadline."""
    return Reason.PROGRESS_DEADLINE_EXCEEDED if reason is Reason.ROLLING_OUT else reason


def shortened(message: str) -> str:
    """A message that fits."""
    return message if len(message) <= _MESSAGE_LIMIT else message[: _MESSAGE_LIMIT - 1] + "…"


def format_time(moment: datetime) -> str:
    """A Kubernetes time: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The reverse, also for times with a fraction."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a status says. Fields that are None are absent."""

    verdict: Verdict
    facts: tuple[Fact, ...]
    fields: Mapping[str, Any]
    again: float | None = None
    """Seconds after which the same observations would give another report: a deadline, a Lease that runs out."""
    notes: tuple[tuple[str, str], ...] = ()
    """Reason and text of the Events about what was done, posted once the status says it too."""


def earliest(*seconds: float | None) -> float | None:
    """The first of several moments to look again."""
    known = [one for one in seconds if one is not None]
    return max(0.1, min(known)) if known else None
