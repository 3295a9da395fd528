# SPDX-License-Identifier: Apache-2.0
"""The short way past the web framework."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http import callers
from agent_runtime.adapters.http.application import build
from agent_runtime.adapters.http.callers import callers_core
from agent_runtime.adapters.http.direct import Direct


@pytest.fixture(autouse=True)
def core() -> Iterator[None]:
    """What the operations ask before they refuse."""
    token = callers.bind(cast("Core", SimpleNamespace(max_payload_bytes=1000)))
    yield
    callers.unbind(token)


async def status_of(app: Direct, method: str, path: str) -> tuple[int, str | None]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "root_path": "", "query_string": b"", "headers": [],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], getattr(scope.get("route"), "path", None)


async def test_a_refusal_is_answered_by_the_same_table_either_way() -> None:
    app = Direct(build(callers_core))
    for path in ("/v1/tasks", "/v1/tasks/batch", "/v1/queues/main/results"):
        status, route = await status_of(app, "POST", path)
        assert status == 415, "no content type"
        assert route == path.replace("main", "{queue}"), "the metrics name the route"


async def test_other_methods_and_paths_are_left_to_the_framework() -> None:
    app = Direct(build(callers_core))
    assert await status_of(app, "PUT", "/v1/tasks") == (405, "/v1/tasks")
    assert (await status_of(app, "POST", "/v1/tasks/"))[0] == 404
