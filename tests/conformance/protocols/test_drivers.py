# SPDX-License-Identifier: Apache-2.0
"""The table of the matrix itself."""

import pytest

from agent_runtime.adapters.registry import ADAPTERS
from tests.conformance.protocols import reference
from tests.conformance.protocols.driver import Driver
from tests.conformance.protocols.drivers import DRIVERS
from tests.conformance.protocols.features import MEANINGS, Feature


def test_every_adapter_has_a_row() -> None:
    assert {driver.endpoint for driver in DRIVERS} == set(ADAPTERS)


@pytest.mark.parametrize("driver", DRIVERS, ids=[driver.name for driver in DRIVERS])
def test_a_driver_says_something_about_each_feature_once(driver: Driver) -> None:
    assert driver.offers.keys() | driver.lacks.keys() == set(Feature)
    assert not driver.offers.keys() & driver.lacks.keys()


def test_every_feature_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Feature)


def test_the_page_is_up_to_date() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run `python -m tests.conformance.protocols.reference`"
    )
