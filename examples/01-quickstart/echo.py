# SPDX-License-Identifier: Apache-2.0
"""The smallest agent: it gives back what it gets."""

from typing import Any

from agent_runtime.agent import Context, Task


async def handle(task: Task, ctx: Context) -> dict[str, Any]:
    """Answer with the payload and with who did it."""
    ctx.log.debug("echoing task %s", task.id)
    return {"echo": task.payload, "attempt": task.attempt, "by": ctx.instance}
