# SPDX-License-Identifier: Apache-2.0
"""Handlers that language models call as tools."""

import asyncio
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError


class Order(BaseModel):
    """What to add up."""

    numbers: list[int] = Field(description="The numbers.")
    currency: Literal["EUR", "USD"] = "EUR"


class Room(BaseModel):
    folder: Path


async def add(task: Task[Order], ctx: Context) -> dict[str, Any]:
    """Adds numbers up."""
    return {"sum": sum(task.payload.numbers), "currency": task.payload.currency}


async def anything(task: Task, ctx: Context) -> Any:
    match task.payload:
        case {"refuse": why}:
            raise PermanentError(why)
        case {"about": _}:
            return {"id": task.id, "priority": task.priority, "tenant": task.tenant, "queue": ctx.queue}
    return task.payload


async def shout(task: Task[str], ctx: Context) -> str:
    """Says it louder."""
    return task.payload.upper()


async def report(task: Task, ctx: Context) -> Any:
    """Says how far it is."""
    await ctx.progress(0.25, "a quarter")
    await ctx.partial({"line": 1})
    await ctx.progress(0.75, "three quarters")
    return "all of it"


async def gated(task: Task[Room], ctx: Context) -> Any:
    """Waits until somebody opens the gate."""
    folder = task.payload.folder
    (folder / f"started-{task.id}").touch()
    await ctx.progress(0.5, "at the gate")
    try:
        while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (folder / f"cancelled-{task.id}").touch()
        raise
    return {"by": ctx.instance}
