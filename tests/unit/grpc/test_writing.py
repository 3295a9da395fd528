# SPDX-License-Identifier: Apache-2.0
"""Our models as messages."""

import pytest

from agent_runtime.adapters.grpc import writing


@pytest.mark.parametrize(("seconds", "whole", "nanos"), [(0.25, 0, 250_000_000), (2.9999999999, 3, 0), (30, 30, 0)])
def test_a_duration_never_has_a_whole_second_of_nanoseconds(seconds: float, whole: int, nanos: int) -> None:
    found = writing.duration(seconds)
    assert (found.seconds, found.nanos) == (whole, nanos)
