# SPDX-License-Identifier: Apache-2.0
"""Options of the test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-cluster", action="store_true", help="leave the cluster, and the namespaces of failed tests, for a look"
    )
