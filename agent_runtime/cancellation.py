# SPDX-License-Identifier: Apache-2.0
"""Ending asyncio tasks for certain.

One `cancel()` is a request that may get lost: until Python 3.12 `asyncio.wait_for` drops it when what it waits for ends
in the same turn of the loop, and Redis' client waits that way. A loop whose only end is its cancellation then runs on.
"""

import asyncio
from typing import Any

_ASK_AGAIN_SECONDS = 0.2


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel the tasks, as often as it takes, and wait until they have ended. Their errors are left to their owner."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_SECONDS)
