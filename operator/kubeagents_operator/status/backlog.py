# SPDX-License-Identifier: Apache-2.0
"""Whether more waits in a queue, or for longer, than `spec.backlog` allows.

Ages are those of the moment of the sample: a task that was old enough a while after it may have been taken meanwhile.
So when the oldest task reaches the threshold, another sample is taken (`due`), and that one decides.

It ends when both figures are well below their thresholds, so that a queue at the threshold does not flap.
"""

from datetime import datetime, timedelta
from typing import Final

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.task import QueueStats
from kubeagents_api.task_queue import BacklogThresholds
from kubeagents_operator.status.conditions import Fact, fact

RECOVERED: Final = 0.8
"""The share of a threshold at which a backlog is over."""


def backlogged(thresholds: BacklogThresholds, stats: QueueStats, *, at: datetime, before: Fact | None) -> Fact:
    """The condition, by the figures of the moment `at`."""
    type_ = ConditionType.BACKLOGGED
    factor = RECOVERED if before is not None and before.status == "True" else 1.0
    age = (at - stats.oldest_at).total_seconds() if stats.oldest_at is not None else 0.0
    if thresholds.max_depth is not None and stats.queued > thresholds.max_depth * factor:
        message = (
            f"more tasks wait than spec.backlog.maxDepth ({thresholds.max_depth}) allows: start more agents, or see "
            "what keeps them from taking tasks"
        )
        return fact(type_, True, Reason.DEPTH_ABOVE_THRESHOLD, message)
    if thresholds.max_age_seconds is not None and age > thresholds.max_age_seconds * factor:
        message = (
            f"the oldest task waits for longer than spec.backlog.maxAgeSeconds ({thresholds.max_age_seconds:g} s) "
            "allows: start more agents, or see what keeps them from taking it"
        )
        return fact(type_, True, Reason.OLDEST_TASK_TOO_OLD, message)
    return fact(type_, False, Reason.WITHIN_THRESHOLDS)


def due(thresholds: BacklogThresholds, stats: QueueStats, *, at: datetime) -> datetime | None:
    """When the oldest task is too old, if it still waits then; None if that is so already, or cannot be."""
    if thresholds.max_age_seconds is None or stats.oldest_at is None:
        return None
    moment = stats.oldest_at + timedelta(seconds=thresholds.max_age_seconds)
    return moment if moment >= at else None
