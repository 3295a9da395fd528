# SPDX-License-Identifier: Apache-2.0
"""The Agent of the benchmark."""

from typing import Any

from agent_runtime.agent import Context, Task


async def echo(task: Task[Any], ctx: Context) -> Any:
    """What came."""
    return task.payload
