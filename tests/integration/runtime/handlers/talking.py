# SPDX-License-Identifier: Apache-2.0
"""Handlers that use what their context offers. They meet the test in a folder that the payload names."""

import asyncio
from pathlib import Path
from typing import Any

from agent_runtime.agent import BatchContext, Context, Task
from kubeagents_api.errors import PermanentError
from kubeagents_api.task import TaskRequest


async def opened(folder: Path) -> None:
    """Wait until the test opens the gate."""
    while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)


async def handle(task: Task, ctx: Context) -> Any:
    """Does what the task's type says."""
    match task.type:
        case "speak":
            await ctx.progress(0.25, "a quarter")
            for number in range(3):
                await ctx.partial({"part": number})
            await opened(Path(task.payload))
            for number in range(3, 6):
                await ctx.partial({"part": number})
            await ctx.progress(1)
            return "said"
        case "wait":
            folder = Path(task.payload)
            (folder / f"started-{task.id}").touch()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                (folder / f"stopped-{task.id}").write_text(str(ctx.cancelled.reason))
                raise
        case "who":
            return {"agent": ctx.agent, "instance": ctx.instance, "payload": task.payload}
        case "sum":
            return sum(parent.result for parent in (await ctx.parents()).values())
        case "refuse":
            raise PermanentError("as asked")
        case "start":
            return await start(task, ctx)
        case _:
            return task.payload


async def start(task: Task, ctx: Context) -> Any:
    """Uses all ways to give work to others."""
    answer = await ctx.call("called", agent="clerk", type="who")
    try:
        await ctx.call(agent="clerk", type="refuse")
    except PermanentError as error:
        refusal = f"{error.code}: {error}"
    return {
        "called": answer,
        "refused": refusal,
        "sent": await ctx.send("direct", instance="clerk-2", type="who"),
        "capable": await ctx.send("read this", capability="reading", type="who"),
        "broadcast": await ctx.broadcast("to all", agent="clerk", type="who"),
        "sum": (
            await ctx.submit_all(
                [
                    TaskRequest(id=f"{task.id}.1", payload=1),
                    TaskRequest(id=f"{task.id}.2", payload=2),
                    TaskRequest(id=f"{task.id}.sum", type="sum", depends_on=[f"{task.id}.1", f"{task.id}.2"]),
                ]
            )
        )[2],
    }


async def together(tasks: list[Task], ctx: BatchContext) -> list[Any]:
    """A batch handler: each element says how large the batch was, or is an error."""
    if any(task.payload == "all" for task in tasks):
        raise ValueError("all of them")
    return [PermanentError("just this one") if task.payload == "one" else [len(tasks), task.payload] for task in tasks]
