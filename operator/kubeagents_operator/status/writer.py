# SPDX-License-Identifier: Apache-2.0
"""Writes a report into the status of its object: only what changed, at once when it matters, else in a while.

A change of a condition's status or reason, a new generation, and a decision (who leads, how many replicas there should
be, where a canary is, what was asked for by annotation) are written at once, together with all figures of that moment.
Figures and texts alone wait until COUNTER_SECONDS have passed since the last write, so that a rollout of a hundred pods
is not a hundred writes. What an object passes through on its way while the reason of Ready stays the same waits for
STEP_SECONDS: one that becomes ready soon is written twice, when it sets out and when it has arrived. In a crowd, that
is, while what somebody has asked for in its namespace waits for a worker, that it sets out is not worth a write until
CROWD_SECONDS have passed: it may have arrived by then. A limit per object holds for all. A restart begins with the
statuses as they are: an operator that ends again and again writes no figures alone, but gets on with its decisions.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from kubeagents_api.conditions import ConditionType
from kubeagents_operator.buckets import Buckets
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.events import Recorder
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Custom
from kubeagents_operator.status.conditions import Previous, Report, earliest
from kubeagents_operator.status.news import news
from kubeagents_operator.watched import BY_KIND

COUNTER_SECONDS: Final = 15.0
"""Between two writes of a status that change only counts or texts."""
STEP_SECONDS: Final = 5.0
"""Between two writes of which both say that the object is being brought where it should be."""
CROWD_SECONDS: Final = 5.0
"""For how long it may not show that an object has set out in a crowd."""
_URGENT = ("observedGeneration", "desiredReplicas", "handled", "leader")
"""Fields that change with a decision, not with a count."""
_COUNTED = ("succeeded", "failed")
"""The counts in the field `rollout`, of which the rest changes with a decision."""


class StatusWriter:
    """Knows when each status was written last, or seen first."""

    def __init__(self, cluster: Cluster, cache: Cache, recorder: Recorder, *, crowded: Callable[[str], bool]) -> None:
        """`crowded` says of a namespace whether what somebody has asked for waits in it."""
        self._cluster = cluster
        self._cache = cache
        self._recorder = recorder
        self._clock = asyncio.get_running_loop().time
        self._limits = Buckets(burst=20, refill_seconds=3.0)
        self._crowded = crowded
        self._written_at: dict[Key, float] = {}
        self._put_off: dict[Key, float] = {}
        """What has set out in a crowd, and until when that is put off."""

    async def write(self, custom: Custom, report: Report, *, now: datetime) -> float | None:
        """Bring the status up to date. Returns after how many seconds to look again, if at all."""
        previous = Previous(custom.status)
        wanted: dict[str, Any] = {
            "observedGeneration": custom.generation,
            "conditions": previous.merged(report.facts, generation=custom.generation, now=now),
            **report.fields,
        }
        patch = _difference(custom.status, wanted)
        # What this process has not written may have been written a moment ago, by the one before it.
        written_at = self._written_at.setdefault(custom.key, self._clock())
        if not patch:
            return report.again
        pause = written_at + patience(custom.status, patch) - self._clock()
        if pause <= 0:
            pause = self._put_off_in_a_crowd(custom.key, wanted["conditions"])
        if pause > 0 or (pause := self._limits.take(custom.uid)) > 0:
            return earliest(report.again, pause)
        with self._cache.expecting(custom.key, wanted):
            body = await self._cluster.patch_status(custom.key, uid=custom.uid, patch=patch)
            self._cache.seen(BY_KIND[custom.key.kind], body)
        self._written_at[custom.key] = self._clock()
        # A write that failed is repeated, and has announced nothing.
        for one in news(previous, report):
            announce = self._recorder.warning if one.warns else self._recorder.normal
            announce(custom, one.reason, one.note)
        for reason, note in report.notes:
            self._recorder.normal(custom, reason, note)
        return report.again

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._written_at.pop(key, None)
        self._put_off.pop(key, None)

    def _put_off_in_a_crowd(self, key: Key, conditions: Any) -> float:
        """For how long that an object has set out is put off: for more than 0 s if it did so in a crowd."""
        if _way(conditions) is None:
            self._put_off.pop(key, None)
            return 0.0
        if key not in self._put_off and self._crowded(key.namespace):
            self._put_off[key] = self._clock() + CROWD_SECONDS
        return self._put_off.get(key, 0.0) - self._clock()


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch from one status to the other. Fields that we do not know are left alone."""
    return {name: _without_rest(old.get(name), value) for name, value in new.items() if old.get(name) != value}


def _without_rest(old: Any, new: Any) -> Any:
    """A merge patch leaves fields of an object that it does not name: those that are gone have to be named."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**dict.fromkeys(old.keys() - new.keys()), **new}
    return new


def patience(old: Mapping[str, Any], patch: Mapping[str, Any]) -> float:
    """For how long after the last write this one can wait."""
    if any(name in patch for name in _URGENT) or _decided(old.get("rollout"), patch.get("rollout", old.get("rollout"))):
        return 0.0
    before, after = old.get("conditions") or (), patch.get("conditions")
    if after is None or _essence(before) == _essence(after):
        return COUNTER_SECONDS
    way = _way(before)
    return STEP_SECONDS if way is not None and way == _way(after) else 0.0


def _decided(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """A rollout is somewhere else than before, whatever it has counted."""
    one, other = ({k: v for k, v in (part or {}).items() if v is not None and k not in _COUNTED} for part in (old, new))
    return one != other


def _way(conditions: Any) -> str | None:
    """Why an object is on its way; None if it is not."""
    reasons = (
        one["reason"] for one in conditions if one["type"] == ConditionType.RECONCILING and one["status"] == "True"
    )
    return next(reasons, None)


def _essence(conditions: Any) -> list[tuple[str, str, str]]:
    return [(one["type"], one["status"], one["reason"]) for one in conditions]
