# SPDX-License-Identifier: Apache-2.0
"""Handlers that say something while they run. They meet the test in a folder that the payload names."""

import asyncio
from pathlib import Path
from typing import Any

from agent_runtime.agent import Context, Task


async def speak(task: Task, ctx: Context) -> Any:
    """Says how far it is and hands out parts, waits for the gate in the middle, and fails at first if told to."""
    folder = Path(task.payload["folder"])
    await ctx.progress(0.25, "begun")
    await ctx.partial({"part": 1})
    if task.payload.get("fail") and task.attempt == 1:
        raise ValueError("once more")
    while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)
    await ctx.partial("two\nlines")
    await ctx.progress(1.0, "done")
    return "said"
