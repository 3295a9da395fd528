# SPDX-License-Identifier: Apache-2.0
"""The handler of the matrix. It does what the payload says, and meets the test in a folder that the payload names."""

import asyncio
from pathlib import Path
from typing import Any

from agent_runtime.agent import Context, Task


async def act(task: Task, ctx: Context) -> Any:
    """Echo a value, wait for the gate, or speak before and after it opens."""
    match task.payload:
        case {"do": "wait", "folder": folder}:
            await _opened(Path(folder), task, ctx)
            return "waited"
        case {"do": "speak", "folder": folder}:
            await ctx.progress(0.25, "begun")
            await ctx.partial({"part": 1})
            await _opened(Path(folder), task, ctx)
            await ctx.partial({"part": 2})
            await ctx.progress(1.0, "done")
            return "said"
        case {"value": value}:
            return value
        case _:
            return task.payload


async def _opened(folder: Path, task: Task, ctx: Context) -> None:
    (folder / f"started-{task.id}").touch()
    try:
        while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (folder / f"stopped-{task.id}").write_text(str(ctx.cancelled.reason))
        raise
