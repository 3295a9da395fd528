# SPDX-License-Identifier: Apache-2.0
"""Handlers of the tests, as a user would write them. They meet the test in a folder that the payload names."""

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError, TemporaryError


async def echo(task: Task, ctx: Context) -> Any:
    return task.payload


async def about(task: Task, ctx: Context) -> Any:
    ctx.log.info("said by the context", extra={"colour": "blue"})
    logging.getLogger("library").info("said by a library")
    return {"type": task.type, "priority": task.priority, "attempt": task.attempt, "instance": ctx.instance,
            "agent": ctx.agent, "queue": ctx.queue}  # fmt: skip


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


async def fail(task: Task, ctx: Context) -> Any:
    """Ends as the payload says."""
    match task.payload:
        case "permanent":
            raise PermanentError("never will")
        case "temporary":
            if task.attempt == 1:
                raise TemporaryError("not now", delay=0.1)
            return "now"
        case "error":
            raise ValueError("bad value")
        case "odd":
            raise Odd
        case "exit":
            sys.exit(3)
        case "cancels itself":
            raise asyncio.CancelledError
        case "set":
            return {1, 2}
        case "keys":
            return {1: "one"}
        case "large":
            return "x" * 5000
        case "slow":
            await asyncio.sleep(3600)
        case "long text":
            raise ValueError("y" * 100_000)


async def gate(task: Task, ctx: Context) -> Any:
    """Says that it runs, and goes on when the test opens the gate."""
    folder = Path(task.payload)
    (folder / f"started-{task.id}-{ctx.instance}").touch()
    try:
        while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (folder / f"cancelled-{task.id}-{ctx.instance}").touch()
        raise
    return {"by": ctx.instance, "attempt": task.attempt, "pid": os.getpid()}


async def stubborn(task: Task, ctx: Context) -> Any:
    """Ignores every cancellation."""
    (Path(task.payload) / f"started-{task.id}-{ctx.instance}").touch()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            (Path(task.payload) / f"cancelled-{task.id}-{ctx.instance}").touch()


async def thread(task: Task, ctx: Context) -> Any:
    """Waits in a thread, which nothing can cancel."""
    (Path(task.payload) / f"started-{task.id}-{ctx.instance}").touch()
    await asyncio.to_thread(time.sleep, 3600)


async def block(task: Task, ctx: Context) -> Any:
    time.sleep(task.payload)  # noqa: ASYNC251 - the mistake that the test is about
    return "done"


async def one_argument(task: Task) -> Any:
    return None


def not_async(task: Task, ctx: Context) -> Any:
    return None


class Counter:
    def __init__(self) -> None:
        self.seen = 0

    async def handle(self, task: Task, ctx: Context) -> Any:
        self.seen += 1
        return self.seen
