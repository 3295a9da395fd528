# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.queue.timetable import Timetable
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.schedule import Schedule

BERLIN = "Europe/Berlin"  # clocks change on 2026-03-29 (02:00 -> 03:00) and on 2026-10-25 (03:00 -> 02:00)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def timetable(cron: str | None = None, *, every: int | None = None, zone: str = "Etc/UTC") -> Timetable:
    # model_construct: manifests with such mistakes are mostly refused before they come here.
    return Timetable(Schedule.model_construct(name="s", cron=cron, every_seconds=every, time_zone=zone))


def dues(table: Timetable, start: str, *, count: int) -> list[str]:
    moment, found = at(start), []
    for _ in range(count):
        moment = table.next(moment)
        found.append(moment.strftime("%d. %H:%M"))
    return found


def test_a_cron_is_due_at_its_times_in_its_zone() -> None:
    assert dues(timetable("30 6 * * 1-5"), "2026-05-01T06:30", count=3) == ["04. 06:30", "05. 06:30", "06. 06:30"]
    assert dues(timetable("0 9 1 * *", zone=BERLIN), "2026-01-15T00:00", count=4) == [
        "01. 08:00", "01. 08:00", "01. 07:00", "01. 07:00",
    ]  # fmt: skip


def test_an_interval_is_due_at_its_multiples_since_1970() -> None:
    assert dues(timetable(every=3600), "2026-05-01T10:00:01", count=2) == ["01. 11:00", "01. 12:00"]
    assert timetable(every=7).next(at("2026-05-01T00:00")).timestamp() % 7 == 0
    assert timetable(every=60).next(at("2026-05-01T00:01:00")) == at("2026-05-01T00:02:00"), "later, not at the time"


def test_a_time_that_clocks_skip_is_due_right_after_the_gap() -> None:
    daily = timetable("30 2 * * *", zone=BERLIN)
    assert dues(daily, "2026-03-27T12:00", count=3) == ["28. 01:30", "29. 01:00", "30. 00:30"]
    assert daily.next(at("2026-03-29T01:00")) == at("2026-03-30T00:30"), "not twice"


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    daily = timetable("30 2 * * *", zone=BERLIN)
    assert dues(daily, "2026-10-24T12:00", count=2) == ["25. 00:30", "26. 01:30"]
    assert daily.next(at("2026-10-25T01:10")) == at("2026-10-26T01:30"), "begun within the second 2 o'clock"
    assert daily.last(after=at("2026-10-24T12:00"), until=at("2026-10-25T12:00")) == at("2026-10-25T00:30")


def test_what_is_due_every_few_minutes_follows_the_time_that_really_passes() -> None:
    often = timetable("*/30 * * * *", zone=BERLIN)
    assert dues(often, "2026-03-29T00:20", count=3) == ["29. 00:30", "29. 01:00", "29. 01:30"]
    assert dues(often, "2026-10-25T00:20", count=4) == ["25. 00:30", "25. 01:00", "25. 01:30", "25. 02:00"]


@pytest.mark.parametrize(
    "cron", ["0 0 29 2 *", "0 12 L * *", "15 10 * * MON#1", "0 0 * 2 MON#5", "0 8,20 * JAN-MAR SUN"]
)
def test_rare_times_are_found(cron: str) -> None:
    assert timetable(cron).next(at("2026-01-01T00:00")) > at("2026-01-01T00:00")


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* * * *", "must be five fields, for example '30 6 * * 1-5'"),
        ("0 * * * * *", "must be five fields"),
        ("@daily", "must be five fields"),
        ("", "must be five fields"),
        ("60 * * * *", "the minute of cron '60 * * * *' is not valid"),
        ("* 24 * * *", "the hour of"),
        ("* * 0 * *", "the day-of-month of"),
        ("* * * 13 *", "the month of"),
        ("* * * * MOON", "the day-of-week of"),
        ("*/0 * * * *", "the minute of"),
        ("5-1 * * * *", "the minute of"),
        ("0 0 30 2 *", "the day-of-month of"),
        ("² * * * *", "must be five fields"),
    ],
)
def test_a_bad_cron_is_refused_with_what_to_write(cron: str, message: str) -> None:
    with pytest.raises(InvalidManifestError) as refused:
        timetable(cron)
    assert message in str(refused.value)
    assert str(refused.value).startswith("schedule 's': ")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "", "Europe/Berlin\0"])
def test_a_time_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(InvalidManifestError, match="is not known here: write for example 'Europe/Berlin'"):
        timetable("0 0 * * *", zone=zone)


MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
TABLES = st.sampled_from(
    [
        timetable("30 2 * * *", zone=BERLIN),
        timetable("*/7 * * * *", zone=BERLIN),
        timetable("0 0 1 1 *", zone="America/New_York"),
        timetable("15,45 1-3 * * SUN", zone="Australia/Lord_Howe"),
        timetable(every=97),
    ]
)


@given(table=TABLES, start=MOMENTS)
def test_the_last_due_time_is_the_one_that_counting_forward_finds(table: Timetable, start: datetime) -> None:
    due = table.next(start)
    assert due > start
    following = table.next(due)
    assert following > due
    for until in (due, due + timedelta(seconds=1), following - timedelta(seconds=1)):
        assert table.last(after=start, until=until) == due
    assert table.last(after=start, until=following) == following
    assert table.last(after=due, until=following - timedelta(seconds=1)) is None
    assert table.last(after=due, until=start) is None
