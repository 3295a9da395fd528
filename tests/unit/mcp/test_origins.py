# SPDX-License-Identifier: Apache-2.0
"""Which web pages may call."""

import pytest

from agent_runtime.adapters.mcp.origins import is_local, refused


def scope(host: str, origin: str | None) -> dict[str, object]:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    return {"type": "http", "headers": headers}


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8080", None, False),
        ("localhost", None, False),
        ("[::1]:8080", "http://[::1]:3000", False),
        ("localhost:8080", "https://localhost", False),
        ("evil.example:8080", None, True),
        ("localhost:8080", "http://evil.example", True),
        ("localhost:8080", "http://localhost.evil.example", True),
        ("localhost:8080", "null", True),
        ("127.0.0.1.evil.example", None, True),
        ("", None, True),
    ],
)
def test_a_local_server_takes_its_own_names_only(host: str, origin: str | None, expected: bool) -> None:
    assert refused(scope(host, origin), local=True) is expected


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("agents.example.com", None, False),
        ("anything:8080", None, False),
        ("agents.example.com", "https://agents.example.com", False),
        ("agents.example.com", "https://evil.example", True),
        ("agents.example.com:8080", "https://agents.example.com", True),
        ("agents.example.com", "null", True),
    ],
)
def test_elsewhere_a_page_may_call_where_it_came_from(host: str, origin: str | None, expected: bool) -> None:
    assert refused(scope(host, origin), local=False) is expected


def test_loopback_addresses_are_local() -> None:
    assert all(is_local(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_local(host) for host in ("0.0.0.0", "::", "10.0.0.1", "agents.example.com"))
