# SPDX-License-Identifier: Apache-2.0
"""Tasks that last until the test opens their gate: real workers that are busy for as long as a test wants."""

import asyncio
import threading

from agent_runtime.agent import Context, Task


class Gate:
    """`handle` is the handler. Workers live in another thread than the test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def handle(self, task: Task, ctx: Context) -> str:
        """Wait until the gate is open; the result is who did it."""
        mine = asyncio.Event()
        with self._lock:
            if self._opened:
                return ctx.instance
            self._waiting.append((asyncio.get_running_loop(), mine))
        await mine.wait()
        return ctx.instance

    def open(self) -> None:
        """Let all tasks end, those that begin later too."""
        with self._lock:
            self._opened = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)
