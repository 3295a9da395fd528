# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from agent_runtime.cli.options import Format
from agent_runtime.cli.output import Column, age, duration, show_list, show_task, task_columns

SUCCEEDED: dict[str, Any] = {
    "id": "a1",
    "queue": "tasks",
    "state": "succeeded",
    "priority": 5,
    "payload": {"text": "größer [bold]"},
    "attempts": 1,
    "maxAttempts": 3,
    "createdAt": "2026-01-01T00:00:00Z",
    "startedAt": "2026-01-01T00:00:01.000Z",
    "finishedAt": "2026-01-01T00:00:01.250Z",
    "result": {"words": 2},
    "newerThanThisClient": True,
}
DEAD = {
    **{key: value for key, value in SUCCEEDED.items() if key != "result"},
    "id": "b2",
    "state": "dead",
    "attempts": 3,
    "failures": [{"code": "FAILED", "message": "ValueError: no", "attempt": 3}],
}


def test_a_table_has_one_line_per_row_however_long_its_cells_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([SUCCEEDED, {**DEAD, "id": "x" * 300}], task_columns(), output=Format.TABLE, empty="none")
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "STATE", "ATTEMPTS", "TOOK", "RESULT"]
    assert first.split() == ["a1", "succeeded", "1/3", "250ms", '{"words":', "2}"]
    assert second.startswith("x" * 300)
    assert second.endswith("FAILED: ValueError: no")


@pytest.mark.parametrize(("output", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_json_and_yaml_have_everything_the_server_said(
    output: Format, read: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show_list([SUCCEEDED], task_columns(), output=output, empty="none")
    show_list([], task_columns(), output=output, empty="none")
    text = capsys.readouterr().out
    assert "größer [bold]" in text
    [rows, nothing] = [text[: text.rindex("[]")], "[]"]
    assert read(rows) == [SUCCEEDED]
    assert read(nothing) == []


def test_nothing_to_show_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([], task_columns(), output=Format.TABLE, empty="there are no tasks")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "there are no tasks\n")


def test_one_task_is_shown_with_its_result_or_its_failures(capsys: pytest.CaptureFixture[str]) -> None:
    show_task(SUCCEEDED, output=Format.TABLE)
    text = capsys.readouterr().out
    assert 'payload    {"text": "größer [bold]"}' in text
    assert '"words": 2' in text
    show_task(DEAD, output=Format.TABLE)
    assert "failure 3  FAILED: ValueError: no" in capsys.readouterr().out


def test_empty_cells_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([{}], (Column("A", lambda row: row.get("a")), Column("B", lambda row: 0)), output=Format.TABLE, empty="")
    assert capsys.readouterr().out.splitlines()[1].split() == ["-", "0"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (125, "2m"), (7300, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_ages_read_as_in_kubectl(seconds: int, text: str) -> None:
    assert age((datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()) == text


def test_a_task_that_has_not_ended_has_no_duration() -> None:
    assert duration({"startedAt": "2026-01-01T00:00:00Z"}) == ""
    assert duration({**SUCCEEDED, "finishedAt": "2026-01-01T00:00:03.500Z"}) == "2.5s"
