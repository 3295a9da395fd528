# SPDX-License-Identifier: Apache-2.0
"""The table of adapters."""

import pytest

from agent_runtime.adapters.http.adapter import HttpAdapter
from agent_runtime.adapters.registry import ADAPTERS, adapter
from kubeagents_api.endpoints import Endpoint


def test_the_table_is_sorted() -> None:
    assert list(ADAPTERS) == sorted(ADAPTERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_line_of_the_table_can_be_imported_and_has_the_methods(name: Endpoint) -> None:
    found = adapter(name)
    assert all(callable(getattr(found, method)) for method in ("start", "stop"))


def test_http_is_in_the_table() -> None:
    assert adapter("http") is HttpAdapter
