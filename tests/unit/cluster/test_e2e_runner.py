# SPDX-License-Identifier: Apache-2.0
"""What `python -m tests.e2e` makes of the exit codes of its runs of pytest."""

import pytest

from tests.e2e.__main__ import INTERRUPTED, NONE_COLLECTED, outcome


@pytest.mark.parametrize(("ended", "code"), [
    ([0, 0], 0),
    ([0, NONE_COLLECTED], 0),
    ([NONE_COLLECTED, 0], 0),
    ([NONE_COLLECTED, NONE_COLLECTED], NONE_COLLECTED),
    ([1, 0], 1),
    ([0, 1], 1),
    ([NONE_COLLECTED, 1], 1),
    ([INTERRUPTED], INTERRUPTED),
])  # fmt: skip
def test_a_run_is_green_if_no_part_failed_and_some_part_had_tests(ended: list[int], code: int) -> None:
    assert outcome(ended) == code


def test_a_part_that_was_killed_by_a_signal_is_a_failure() -> None:
    assert outcome([-9, 0]) == 1
    assert outcome([0, -15]) == 1
