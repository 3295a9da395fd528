# SPDX-License-Identifier: Apache-2.0
"""Log lines: JSON and text, with fields from process, work and call."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_runtime.telemetry import logs
from kubeagents_api.errors import RuntimeConfigError

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configure the logs of this process, and put them back afterwards."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    def apply(environ: dict[str, str], **fields: Any) -> io.StringIO:
        stream = io.StringIO()
        logs.configure(environ, process_fields=fields, stream=stream)
        return stream

    yield apply
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_json_lines_have_the_fields_of_process_work_and_call(configure: Configure) -> None:
    stream = configure({}, agent="echo", instance="echo-1")
    token = logs.bind({"task": "t1"})
    logging.getLogger("lib").warning("half of %d", 4, extra={"half": 2, "odd": {1, 2} and object})
    logs.unbind(token)
    logging.getLogger("lib").info("later")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "half of 4"
    assert (first["level"], first["logger"], first["agent"], first["task"]) == ("warning", "lib", "echo", "t1")
    assert first["half"] == 2
    assert first["odd"] == "<class 'object'>", "what is no JSON is shown as text"
    assert first["time"].endswith("+00:00")
    assert "task" not in second


def test_a_traceback_is_one_field_of_the_line(configure: Configure) -> None:
    stream = configure({})
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logging.getLogger("lib").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: bad\nvalue" in json.loads(line)["traceback"]


def test_text_lines_are_for_people(configure: Configure) -> None:
    stream = configure({"KUBEAGENTS_LOG_FORMAT": "text"}, agent="echo")
    logging.getLogger("lib").info("hello", extra={"task": "t1"})
    line = stream.getvalue()
    assert line.endswith(" INFO    hello task=t1\n")
    assert "\x1b" not in line, "no colours where there is no terminal"


def test_the_level_is_chosen_by_the_environment(configure: Configure) -> None:
    stream = configure({"KUBEAGENTS_LOG_LEVEL": "Error"})
    logging.getLogger("lib").warning("quiet")
    logging.getLogger("lib").error("loud")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["loud"]


@pytest.mark.parametrize("environ", [{"KUBEAGENTS_LOG_LEVEL": "loud"}, {"KUBEAGENTS_LOG_FORMAT": "xml"}])
def test_an_unknown_choice_is_refused(configure: Configure, environ: dict[str, str]) -> None:
    with pytest.raises(RuntimeConfigError, match=next(iter(environ))):
        configure(environ)


def test_a_field_logger_keeps_the_fields_of_the_call(configure: Configure) -> None:
    stream = configure({})
    logs.FieldLogger(logging.getLogger("lib"), {"task": "t1"}).info("both", extra={"colour": "blue"})
    line = json.loads(stream.getvalue())
    assert (line["task"], line["colour"]) == ("t1", "blue")
