# SPDX-License-Identifier: Apache-2.0
import io
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.cli.api import BATCH_BYTES, BATCH_TASKS, batches
from agent_runtime.cli.main import main

COMMANDS: tuple[list[str], ...] = (
    [],
    ["dev"],
    ["submit"],
    ["result"],
    ["get"],
    ["get", "agents"],
    ["get", "queues"],
    ["get", "task"],
    ["get", "dead"],
    ["get", "schedules"],
    ["dead"],
    ["dead", "list"],
    ["dead", "show"],
    ["dead", "replay"],
    ["dead", "purge"],
    ["queue"],
    ["queue", "pause"],
    ["queue", "resume"],
    ["queue", "close"],
    ["queue", "open"],
    ["mcp"],
    ["mcp", "stdio"],
    ["cancel"],
    ["cordon"],
    ["uncordon"],
    ["events"],
    ["watch"],
    ["logs"],
    ["version"],
)


def flat(text: str) -> str:
    """Text as it is without the terminal's line breaks and boxes."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: {' '.join(['kubeagents', *command])}" in text
    assert "{prog}" not in text
    assert "[dim]" not in text
    assert "[none]" not in text
    _, _, examples = text.partition(" Example")
    if examples:
        assert "\n     kubeagents " in examples, "examples are indented"


def test_help_names_the_program_as_the_user_called_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-agents"])
    assert main(["submit", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: kubectl agents submit" in text
    assert "kubectl agents submit --file tasks.jsonl" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "give the task's input either as PAYLOAD or with --file"),
        (["submit", "1", "--file", "x"], "either as PAYLOAD or with --file"),
        (["submit", "{oops"], "the payload is not JSON"),
        (["submit", "--file", "/nowhere"], "cannot read /nowhere: No such file or directory"),
        (["submit", "1", "--priority", "10"], "Invalid value for '--priority'"),
        (["submit", "1", "--bogus"], "No such option"),
        (["submit", "1", "--delay", "soon"], "--delay 'soon' is no span of time: write for example 90s"),
        (["submit", "1", "--deadline", "tomorrow"], "--deadline 'tomorrow' is no time: write for example 2026-05-01"),
        (["submit", "1", "--on-parent-failure", "cry"], "Invalid value for '--on-parent-failure'"),
        (["cancel"], "Missing argument"),
        (["dead", "purge"], "say what to purge: either ids, or options that choose, or --all"),
        (["dead", "replay", "x", "--all"], "say what to replay"),
        (["dead", "replay", "x", "--code", "TIMEOUT"], "say what to replay"),
        (["dead", "list", "--after", "yore"], "--after 'yore' is no time"),
        (["get", "queues", "-o", "xml"], "Invalid value for '--output'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["dev"], "Missing argument"),
        (["dev", "x.yaml", "--"], "-- must be followed by a command to run"),
        (["dev", "x.yaml", "--keep-running"], "--keep-running goes with a COMMAND after --"),
        (["dev", "x.yaml", "--", "no-such-program"], "there is no program 'no-such-program' to run"),
        (["dev", "x.yaml", "--port", "70000"], "Invalid value for '--port'"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in flat(captured.err)
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "standard input is empty"),
        ('{"a": 1}\n{"a": 2\n', "nor JSON Lines (line 2:"),
    ],
)
def test_a_broken_file_names_the_line(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["submit", "--file", "-"]) == 2
    assert message in flat(capsys.readouterr().err)


def test_an_id_goes_with_one_task_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("1\n\n2\n")
    assert main(["submit", "--file", str(file), "--id", "one"]) == 2
    assert "--id names one task, but the input has 2" in flat(capsys.readouterr().err)


def test_a_key_goes_with_one_task_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("1\n2\n")
    assert main(["submit", "--file", str(file), "--key", "one"]) == 2
    assert "--key would merge all 2 tasks of the input into one" in flat(capsys.readouterr().err)


def test_the_version_of_the_client_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--client", "-o", "json"]) == 0
    assert '"client": "' in capsys.readouterr().out
    assert main(["version"]) == 0
    assert "no server: found no server" in capsys.readouterr().err


def test_batches_are_cut_by_count_and_by_size_and_lose_nothing() -> None:
    small = [{"payload": number} for number in range(BATCH_TASKS * 2 + 1)]
    assert [len(batch) for batch in batches(small)] == [BATCH_TASKS, BATCH_TASKS, 1]
    large = [{"payload": "x" * (BATCH_BYTES // 2 + 1)}] * 3
    assert [len(batch) for batch in batches(large)] == [1, 1, 1]
    assert list(batches([])) == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from agent_runtime.cli.main import main; main(['--help']);"
        "heavy = {'httpx', 'kubernetes', 'redis', 'fastapi', 'pydantic', 'yaml'} & set(sys.modules);"
        "print('HEAVY', heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY set()" in done.stderr
