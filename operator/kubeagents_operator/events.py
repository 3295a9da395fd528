# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Events: what `kubectl describe` shows below a custom resource.

They are for people, and best effort: posted in the background, so that no reconcile waits for them; aggregated, so that
the same news again counts up instead of filling the list; limited per object, so that one that flaps does not drown the
others, and for warnings apart, so that a warning is never left out because of what went well before it; and what went
well is limited per namespace, so that a thousand Agents that are applied at once do not cost two thousand writes more,
and waits until they have what they need. Namespaces take turns, and each may have so much waiting and no more: the news
of one are not lost among those of another. What is left out is in the log all the same, and is counted in a metric.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from kubeagents_api.errors import KubeagentsError
from kubeagents_api.labels import API_VERSION, GROUP
from kubeagents_operator.buckets import Buckets
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.metrics import EventMetrics
from kubeagents_operator.observed import Custom
from kubeagents_operator.turns import Turns

_log = logging.getLogger(__name__)

_NOTE_LIMIT = 1000
_BACKLOG = 200
"""News of one namespace that wait to be posted."""
_BUSY_PAUSE = 0.5
"""Seconds between two looks whether the operator is still busy."""
_REMEMBERED = 4096
_SAME_WITHIN = 600.0
"""Seconds within which the same news is the same Event."""

EventType = Literal["Normal", "Warning"]


@dataclass(slots=True)
class _Posted:
    name: str
    count: int
    last: float


@dataclass(frozen=True, slots=True, eq=False)
class _News:
    owner: Custom
    type: EventType
    reason: str
    note: str
    at: str


class Recorder:
    """Takes news about custom resources and posts them as Events while `run` runs."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        instance: str,
        metrics: EventMetrics,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`busy` says whether there is something more important to write than that all is well."""
        self._cluster = cluster
        self._instance = instance
        self._metrics = metrics
        self._clock = asyncio.get_running_loop().time
        self._busy = busy
        self._news: Turns[_News] = Turns()
        self._waiting = asyncio.Semaphore(0)
        """As many as there are news."""
        self._posted: OrderedDict[tuple[str, str, str], _Posted] = OrderedDict()
        self._limits = Buckets(burst=25, refill_seconds=30.0)
        """Per object and type. An Agent with a canary of three steps has some 15 from its creation to the end."""
        self._normal_limit = Buckets(burst=20, refill_seconds=2.0)

    def normal(self, owner: Custom, reason: str, note: str) -> None:
        """Something went as it should."""
        self._take(owner, "Normal", reason, note)

    def warning(self, owner: Custom, reason: str, note: str) -> None:
        """Something that people should know."""
        self._take(owner, "Warning", reason, note)

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            await self._waiting.acquire()
            news = await self._next()
            try:
                await self._post(news)
            except KubeagentsError as error:
                self._posted.pop(_same(news), None)
                self._metrics.dropped.labels("error").inc()
                _log.warning("Event %s of %s was not posted: %s", news.reason, news.owner.key, error)
            except Exception:
                # A defect. It is not worth the leader's term.
                self._metrics.dropped.labels("error").inc()
                _log.exception("Event %s of %s was not posted", news.reason, news.owner.key)

    async def _next(self) -> _News:
        """Warnings come first. What went well waits while the operator is busy: it keeps the time at which it did."""
        while self._busy():
            if (warning := self._news.take_first()) is not None:
                return warning
            await asyncio.sleep(_BUSY_PAUSE)
        return self._news.take()

    def _take(self, owner: Custom, type_: EventType, reason: str, note: str) -> None:
        shown = note if len(note) <= _NOTE_LIMIT else note[: _NOTE_LIMIT - 1] + "…"
        level = logging.INFO if type_ == "Normal" else logging.WARNING
        _log.log(level, "%s: %s", owner.key, shown, extra={"object": str(owner.key), "reason": reason})
        namespace = owner.key.namespace
        too_much = self._limits.take((owner.uid, type_)) > 0
        if too_much or (type_ == "Normal" and self._normal_limit.take(namespace) > 0):
            self._metrics.dropped.labels("rate").inc()
            return
        if self._news.waiting(namespace) >= _BACKLOG:
            self._metrics.dropped.labels("backlog").inc()
            return
        self._news.put(namespace, _News(owner, type_, reason, shown, _micro_time()), first=type_ == "Warning")
        self._waiting.release()

    async def _post(self, news: _News) -> None:
        same = _same(news)
        posted = self._posted.get(same)
        now = self._clock()
        if posted is not None and now - posted.last < _SAME_WITHIN:
            posted.count, posted.last = posted.count + 1, now
            series = {"series": {"count": posted.count, "lastObservedTime": news.at}}
            await self._cluster.patch_event(news.owner.key.namespace, posted.name, series)
            return
        event = self._event(news)
        await self._cluster.create_event(event)
        self._posted[same] = _Posted(event["metadata"]["name"], 1, now)
        self._posted.move_to_end(same)
        if len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)

    def _event(self, news: _News) -> dict[str, Any]:
        key = news.owner.key
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{key.name}.{uuid.uuid4().hex[:16]}", "namespace": key.namespace},
            "eventTime": news.at,
            "type": news.type,
            "reason": news.reason,
            "note": news.note,
            "action": "Reconcile",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": news.owner.uid,
            },
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
        }


def _same(news: _News) -> tuple[str, str, str]:
    return news.owner.uid, news.reason, news.note


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
