# SPDX-License-Identifier: Apache-2.0
"""When a schedule is due. Pure: no clock, no Redis.

Cron fields are read as Debian's cron reads them, also when clocks change: a fixed time that is skipped in spring is due
right after the gap, one that comes twice in autumn is due the first time, and fields such as `*/15` follow the time
that really passes.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.schedule import Schedule

_FIRST_SPAN: Final = timedelta(minutes=2)
_LONG_AGO: Final = datetime(2024, 1, 1, tzinfo=UTC)
_FIELDS: Final = re.compile(r"[0-9A-Za-z*/,#-]+")


class Timetable:
    """The due times of one schedule, in UTC, all whole seconds."""

    def __init__(self, schedule: Schedule) -> None:
        """Raises InvalidManifestError, which says what to write instead, for a cron or a time zone that is none."""
        self._every = schedule.every_seconds
        self._cron = schedule.cron or ""
        self._zone = ZoneInfo("UTC")
        if self._every is None:
            self._zone = _zone(schedule)
            _check_cron(schedule)
            if next(self._from(_LONG_AGO), None) is None:
                raise _fault(schedule, f"cron {self._cron!r} names a day that does not exist, so it is never due")

    def next(self, after: datetime) -> datetime:
        """The first due time after the given time."""
        return next(self._from(after))

    def last(self, *, after: datetime, until: datetime) -> datetime | None:
        """The last due time that is later than `after` and not later than `until`."""
        # Cron can be computed forwards only (backwards it differs where clocks change), so look behind the end in
        # growing steps: however long the time is, few due times are computed.
        span = _FIRST_SPAN
        while after < until:
            begin = max(after, until - span)
            found = None
            for due in self._from(begin):
                if due > until:
                    break
                found = due
            if found is not None or begin == after:
                return found
            span *= 2
        return None

    def _from(self, after: datetime) -> Iterator[datetime]:
        if self._every is not None:
            count = int(after.timestamp() // self._every)
            while True:
                count += 1
                yield datetime.fromtimestamp(count * self._every, UTC)
        for due in CronSim(self._cron, after.astimezone(self._zone)):
            # Computed by the clock on the wall: begun in the second of two equal hours, it may name the first one.
            if (moment := due.astimezone(UTC)) > after:
                yield moment


def _check_cron(schedule: Schedule) -> None:
    fields = (schedule.cron or "").split()
    shape = "five fields, for example '30 6 * * 1-5': minute, hour, day of month, month, day of week"
    if len(fields) != 5 or not all(map(_FIELDS.fullmatch, fields)):
        raise _fault(schedule, f"cron {schedule.cron!r} must be {shape}")
    try:
        CronSim(schedule.cron or "", _LONG_AGO)
    except CronSimError as error:
        text = str(error).removeprefix("Bad ")
        raise _fault(schedule, f"the {text} of cron {schedule.cron!r} is not valid: write {shape}") from error


def _zone(schedule: Schedule) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.time_zone)
    except (ValueError, OSError, KeyError) as error:  # malformed, a folder of zones, unknown
        raise _fault(
            schedule, f"the time zone {schedule.time_zone!r} is not known here: write for example 'Europe/Berlin'"
        ) from error


def _fault(schedule: Schedule, what: str) -> InvalidManifestError:
    return InvalidManifestError(f"schedule {schedule.name!r}: {what}")
