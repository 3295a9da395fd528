# SPDX-License-Identifier: Apache-2.0
"""What cannot ever work ends at once and says why; what may work later is waited for."""

from functools import partial
from pathlib import Path

import pytest

from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, free_port


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("nowhere:handle", "importing module 'nowhere' failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("gives_up:handle", "importing module 'gives_up' failed: SystemExit: this module gives up"),
        ("handlers:missing", "module 'handlers' has no attribute 'missing'; its async functions are: "),
        ("handlers:not_async", "is not an async function: write `async def not_async(task, ctx)`"),
        ("handlers:one_argument", "must take exactly two arguments"),
    ],
)
def test_an_unusable_handler_ends_the_process_with_one_line_that_says_why(
    system: System, handler: str, says: str
) -> None:
    agent = system.agent(handler)
    assert agent.exit_code() == 78
    assert agent.termination()["reason"] == "HandlerNotFound"
    assert says in agent.termination()["message"]
    (line,) = agent.lines
    assert line["level"] == "error"
    assert says in line["message"]


def test_the_handler_is_imported_before_anything_else_is_tried(system: System) -> None:
    agent = system.agent("nowhere:handle", url="not a url")
    assert agent.exit_code() == 78
    assert agent.termination()["reason"] == "HandlerNotFound"


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379", "redis://:secret@host:port", "redis://:secret@host/x"])
def test_a_malformed_redis_url_ends_the_process_and_does_not_leak_the_password(system: System, url: str) -> None:
    for process in (system.agent(url=url), system.central(urls=[url])):
        assert process.exit_code() == 78
        assert process.termination()["reason"] == "RedisUrlInvalid"
        assert "secret" not in process.termination()["message"] + str(process.lines)


def test_a_configuration_of_another_version_ends_the_process(system: System, tmp_path: Path) -> None:
    path = tmp_path / "of-another-version.json"
    path.write_text('{"kind": "Agent", "colour": "blue"}')
    other = system.agent(environment={"KUBEAGENTS_CONFIG": str(path)})
    assert other.exit_code() == 78
    assert other.termination()["reason"] == "RuntimeConfigInvalid"
    assert "colour" in other.termination()["message"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "anywhere.example"])
def test_nobody_is_let_in_unasked_but_on_the_loopback_address(system: System, host: str) -> None:
    for process in (system.central(host=host), system.agent(host=host, endpoints={"http": 0})):
        assert process.exit_code() == 78
        assert process.termination()["reason"] == "RuntimeConfigInvalid"
        assert f"whoever reaches {host} could do everything" in process.termination()["message"]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("KUBEAGENTS_CONFIG", "", "KUBEAGENTS_CONFIG is not set"),
        ("KUBEAGENTS_CONFIG", "/nowhere/config.json", "cannot read the runtime configuration"),
        ("KUBEAGENTS_INSTANCE", "", "KUBEAGENTS_INSTANCE is not set"),
        ("KUBEAGENTS_QUEUE_0_URL", "", "KUBEAGENTS_QUEUE_0_URL is not set"),
        ("KUBEAGENTS_LOG_LEVEL", "loud", "use one of debug, info, warning, error"),
        ("KUBEAGENTS_LOG_FORMAT", "xml", "use json or text"),
    ],
)
def test_a_bad_environment_ends_the_process_and_names_the_variable(
    system: System, variable: str, value: str, says: str
) -> None:
    agent = system.agent(environment={variable: value})
    assert agent.exit_code() == 78
    assert agent.termination()["reason"] == "RuntimeConfigInvalid"
    assert variable in agent.termination()["message"] or value in agent.termination()["message"]
    assert says in agent.termination()["message"]


def test_a_port_that_is_taken_ends_the_process(system: System) -> None:
    first = system.agent().ready()
    second = system.agent(instance="worker-2", port=first.port)
    assert second.exit_code() == 78
    assert f"cannot listen on 127.0.0.1:{first.port}" in second.termination()["message"]


def test_a_termination_log_that_cannot_be_written_is_said_and_changes_nothing(system: System) -> None:
    environment = {"KUBEAGENTS_TERMINATION_LOG": "/nowhere/at/all"}
    agent = system.agent("nowhere:handle", environment=environment)
    assert agent.exit_code() == 78
    assert agent.logged("cannot write the termination log /nowhere/at/all")


def test_an_unreachable_redis_is_waited_for_and_said_once(system: System, redis_binary: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "late").mkdir()
    late = RedisServer(redis_binary, folder, port=free_port())
    agent = system.agent(url=late.url)
    central = system.central(urls=[late.url])

    for process in (agent, central):
        eventually(partial(process.logged, "does not answer, trying on"), what="the outage is logged")
        assert process.get("/healthz").status_code == 200, "a restart would not help"
        answer = process.get("/readyz")
        assert answer.status_code == 503
        assert f"Redis at 127.0.0.1:{late.port} does not answer" in answer.text
    refused = central.post("/v1/tasks", {"payload": 1})
    assert (refused.status_code, refused.json()["code"]) == (503, "QUEUE_UNAVAILABLE")
    assert refused.headers["retry-after"] == "2"

    with late:
        assert final(central.ready(), *submit(central, "at last"))[0]["result"] == "at last"
        agent.ready()
    for process in (agent, central):
        assert len(process.logged("does not answer, trying on")) <= 2, "one line for each way it fails"
        assert len(process.logged("answers again after")) == 1


def test_a_wrong_password_is_told_apart(system: System, redis_binary: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "locked").mkdir()
    with RedisServer(redis_binary, folder, password="right") as locked:  # noqa: S106 - of this test only
        agent = system.agent(url=f"redis://:wrong@127.0.0.1:{locked.port}/0")
        eventually(lambda: "refuses us" in agent.get("/readyz").text, what="the reason is shown")
        assert 'kubeagents_queue_errors_total{code="QUEUE_AUTH_FAILED",queue="main"}' in agent.get("/metrics").text
