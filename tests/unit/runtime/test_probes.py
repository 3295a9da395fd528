# SPDX-License-Identifier: Apache-2.0
"""The probes and what they say."""

from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest

from agent_runtime.telemetry.metrics import new_registry
from agent_runtime.telemetry.probes import Probes, Report, all_of

Answer = tuple[int, dict[str, str], bytes]


async def ask(path: str, *, ready: Report, method: str = "GET") -> Answer:
    probes = Probes(live=lambda: all_of({"loop": None}), ready=lambda: ready, registry=new_registry("test"))
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("a probe has no body")

    await probes({"type": "http", "method": method, "path": path}, receive, send)
    head, body = messages
    return head["status"], {name.decode(): value.decode() for name, value in head["headers"]}, body["body"]


async def test_readyz_says_which_check_fails() -> None:
    status, _, body = await ask("/readyz", ready=all_of({"queue": "does not answer", "handler": None}))
    assert status == 503
    assert orjson.loads(body) == {"ok": False, "checks": {"queue": "does not answer", "handler": "ok"}}


async def test_healthz_does_not_care_about_readiness() -> None:
    status, _, body = await ask("/healthz", ready=all_of({"queue": "does not answer"}))
    assert (status, orjson.loads(body)) == (200, {"ok": True, "checks": {"loop": "ok"}})


async def test_metrics_are_in_the_text_format() -> None:
    status, headers, body = await ask("/metrics", ready=all_of({}))
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert b'kubeagents_build_info{component="test"' in body
    assert b"process_resident_memory_bytes" in body


@pytest.mark.parametrize(("path", "method", "status"), [("/other", "GET", 404), ("/metrics", "POST", 405)])
async def test_anything_else_is_an_error_body(path: str, method: str, status: int) -> None:
    got, _, body = await ask(path, ready=all_of({}), method=method)
    assert got == status
    assert set(orjson.loads(body)) == {"error", "code", "timestamp", "details"}
