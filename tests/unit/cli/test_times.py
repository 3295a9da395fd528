# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.times import moment, seconds


@pytest.mark.parametrize(
    ("text", "wanted"), [("0", 0), ("90", 90), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("1d", 86400)]
)
def test_spans_are_read_as_people_type_them(text: str, wanted: float) -> None:
    assert seconds("--delay", text) == wanted


@pytest.mark.parametrize("text", ["", "-5", "5 m", "1w", "m", "1h30m", "1e3", "٣"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(CliError, match=r"--delay .* is no span of time"):
        seconds("--delay", text)


def test_a_time_is_read_with_its_zone_or_in_this_machines() -> None:
    assert datetime.fromisoformat(moment("--deadline", "2026-05-01T18:00+02:00")) == datetime(
        2026, 5, 1, 16, tzinfo=UTC
    )
    local = datetime(2026, 5, 1, 18).astimezone()
    assert datetime.fromisoformat(moment("--deadline", "2026-05-01T18:00")) == local


def test_a_span_is_a_time_from_now_or_before_now() -> None:
    def off(text: str, wanted: timedelta) -> bool:
        return abs(datetime.fromisoformat(text) - datetime.now(UTC) - wanted) < timedelta(minutes=1)

    assert off(moment("--deadline", "2h"), timedelta(hours=2))
    assert off(moment("--before", "2h", past=True), timedelta(hours=-2))
