# SPDX-License-Identifier: Apache-2.0
"""URLs, keys, and errors made of their codes."""

from pathlib import Path

import pytest

from agent_runtime.client import AgentClient
from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import from_body, rebuilt
from kubeagents_api import errors
from kubeagents_api.labels import GRPC_PORT


@pytest.mark.parametrize(
    ("url", "protocol", "authority", "secure"),
    [
        ("grpc://hub", "grpc", f"hub:{GRPC_PORT}", False),
        ("grpcs://hub:443/", "grpc", "hub:443", True),
        ("ws://hub:8080", "websocket", "hub:8080", False),
        ("wss://hub/agents/", "websocket", "hub:443", True),
        ("http://[::1]:8080", "http", "[::1]:8080", False),
        ("https://hub", "http", "hub:443", True),
    ],
)
def test_a_url_says_how_and_where(url: str, protocol: str, authority: str, secure: bool) -> None:
    found = Endpoint.parse(url)
    assert (found.protocol, found.authority, found.secure) == (protocol, authority, secure)


@pytest.mark.parametrize(
    "url", ["hub:8080", "redis://hub", "http://", "http://hub:port", "http://me:secret@hub", "grpc://hub/path", ""]
)
def test_what_is_no_url_of_ours_is_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(EndpointError) as error:
        Endpoint.parse(url)
    assert "secret" not in str(error.value)


def test_a_key_is_never_shown_where_it_might_be_logged(tmp_path: Path) -> None:
    assert "ka_1" not in repr(Key("ka_1"))
    with pytest.raises(EndpointError, match="cannot be read"):
        Key(file=tmp_path / "none")
    (tmp_path / "odd").write_text("two words")
    with pytest.raises(EndpointError, match="no API key"):
        Key(file=tmp_path / "odd")
    with pytest.raises(EndpointError, match="not both"):
        Key("one", tmp_path / "odd")


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"none\.pem"):
        Trust(tmp_path / "none.pem").context()


def test_every_error_is_rebuilt_from_its_code() -> None:
    kinds: list[type[errors.KubeagentsError]] = [
        errors.TaskNotFoundError,
        errors.QueueFullError,
        errors.ForbiddenError,
        errors.CordonedError,
    ]
    for kind in kinds:
        found = rebuilt(kind.code, "text", retry_after=3)
        assert type(found) is kind
        assert str(found) == "text"
    full = rebuilt("QUEUE_FULL", "full", retry_after=3)
    assert isinstance(full, errors.QueueFullError)
    assert full.delay == 3
    duplicate = rebuilt("DUPLICATE_TASK", "twice", details={"field": "tasks.0.id"})
    assert isinstance(duplicate, errors.DuplicateTaskError)
    assert duplicate.field == "tasks.0.id"


def test_unknown_codes_are_kept_and_say_whether_trying_again_may_help() -> None:
    new = rebuilt("NEW_CODE", "new")
    later = rebuilt("NEW_CODE", "new", details={"retryAfterSeconds": 2})
    assert (type(new), new.code) == (errors.PermanentError, "NEW_CODE")
    assert (type(later), later.code) == (errors.TemporaryError, "NEW_CODE")
    assert isinstance(rebuilt("INTERNAL", "broken"), errors.TemporaryError)
    for odd in (b"<html>", b"[]", b'{"error": 1, "code": "X"}', {"error": "no code"}, None):
        assert from_body(odd) is None


def test_a_client_needs_an_endpoint() -> None:
    with pytest.raises(EndpointError, match="at least one"):
        AgentClient([])
