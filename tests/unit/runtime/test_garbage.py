# SPDX-License-Identifier: Apache-2.0
"""Sparing what stays in memory."""

import subprocess
import sys

PROGRAM = """
import gc
import sys
from agent_runtime import garbage
garbage.spare_what_stays()
assert gc.isenabled()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert not [one for one in gc.get_objects() if one is sys.modules["agent_runtime.garbage"]]
"""


def test_what_was_there_is_not_looked_through_again_and_garbage_is_still_collected() -> None:
    # In a process of its own: it cannot be taken back.
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
