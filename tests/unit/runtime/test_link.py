# SPDX-License-Identifier: Apache-2.0
"""The state of a connection: logged when it changes."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import LinkMetrics
from kubeagents_api.errors import QueueAuthError, QueueUnavailableError

GONE = QueueUnavailableError("nobody there")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def link(registry: CollectorRegistry) -> Link:
    return Link("main", metrics=LinkMetrics(registry))


def up(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("kubeagents_queue_up", {"queue": "main"})


def test_a_link_is_not_up_before_it_has_answered(link: Link, registry: CollectorRegistry) -> None:
    assert (link.up, link.trouble, up(registry)) == (False, "has not answered yet", 0)
    link.answered()
    assert (link.up, link.trouble, up(registry)) == (True, None, 1)


def test_an_outage_is_two_log_lines_however_long_it_is(
    link: Link, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    link.answered()
    for _ in range(50):
        link.failed(GONE)
    assert link.trouble is not None
    assert link.trouble.startswith("nobody there (for 0 s)")
    assert up(registry) == 0
    for _ in range(50):
        link.answered()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "queue main answers"),
        ("WARNING", "queue main does not answer, trying on: nobody there"),
        ("INFO", "queue main answers again after 0.0 s"),
    ]


def test_a_new_reason_is_said_within_an_outage(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    link.failed(GONE)
    link.failed(QueueAuthError("wrong password"))
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["nobody there", "wrong password"]


def test_errors_are_counted_by_code(link: Link, registry: CollectorRegistry) -> None:
    for error in (GONE, GONE, QueueAuthError("wrong password")):
        link.failed(error)
    count = {
        code: registry.get_sample_value("kubeagents_queue_errors_total", {"queue": "main", "code": code})
        for code in ("QUEUE_UNAVAILABLE", "QUEUE_AUTH_FAILED")
    }
    assert count == {"QUEUE_UNAVAILABLE": 2, "QUEUE_AUTH_FAILED": 1}
