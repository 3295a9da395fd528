# SPDX-License-Identifier: Apache-2.0
"""Runs a handler that takes one task at a time.

A handler that never waits for anything costs no asyncio task, no timer and no turn of the event loop: one runner works
on one claim after the other. The first time that a handler has to wait, its runner stays with it until it ends, and
others take what is left. So a claim is worked on at once, whatever the handlers before it do.

Each attempt has a context (in the sense of `contextvars`) of its own, though several may share an asyncio task: what
one handler sets there, no other sees. A runner that a handler has waited in is not used again: libraries tie things to
the asyncio task, and it may carry a cancellation that was meant for what has ended.
"""

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from time import monotonic
from typing import Any, cast

import orjson

from agent_runtime.agent import Context, Handler, StopReason, Task
from agent_runtime.agent.attempt import Attempt
from agent_runtime.agent.process import AgentProcess
from agent_runtime.queue.base import Outcome
from agent_runtime.telemetry import logs
from agent_runtime.worker.clocks import Clocks
from agent_runtime.worker.speech import last_words
from agent_runtime.worker.verdicts import Verdicts

_TURN_SECONDS = 0.005
"""How long handlers that do not wait keep the event loop to themselves, one after the other."""


class Singles:
    """Runs each attempt by itself."""

    def __init__(
        self,
        handler: Handler,
        *,
        process: AgentProcess,
        verdicts: Verdicts,
        clocks: Clocks,
        on_end: Callable[[Attempt, Outcome | None], None],
        crashed: "asyncio.Future[None]",
    ) -> None:
        self._handler = handler
        self._process = process
        self._verdicts = verdicts
        self._clocks = clocks
        self._on_end = on_end
        self._crashed = crashed
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[Attempt] = deque()
        self._starting = 0
        """Runners that have been made and have not begun."""

    def begin(self, attempts: Sequence[Attempt]) -> None:
        """Work on the attempts, each in its own time."""
        self._backlog.extend(attempts)
        self._start()

    def stop(self, attempt: Attempt) -> None:
        """It has been told to stop."""
        attempt.cancel()

    def hurry(self) -> None:
        """Nothing waits here that could be hurried."""

    def _start(self) -> None:
        self._loop.create_task(self._work())  # kept alive by the loop, and by its attempt while it waits
        self._starting += 1

    def _pass_on(self) -> None:
        """Let others take what is left."""
        for _ in range(len(self._backlog) - self._starting):
            self._start()

    async def _work(self) -> None:
        self._starting -= 1
        backlog = self._backlog
        runner = cast("asyncio.Task[None]", asyncio.current_task())
        since = monotonic()
        try:
            while backlog:
                attempt = backlog.popleft()
                attempt.task = runner
                attempt.begun_at = monotonic()
                outcome = self._begin(attempt)
                used = False
                if isinstance(outcome, _Waiting):
                    used = True
                    self._pass_on()
                    outcome = await self._go_on(attempt, outcome)
                if attempt.voice is not None:
                    used = True
                    self._pass_on()
                    outcome = await last_words(attempt, outcome, self._verdicts)
                self._on_end(attempt, outcome)
                if used or runner.cancelling():
                    self._pass_on()
                    return
                if backlog and monotonic() - since > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    since = monotonic()
        except BaseException as bug:
            if not self._crashed.done():
                self._crashed.set_exception(bug)
            raise

    def _begin(self, attempt: Attempt) -> "Outcome | _Waiting | None":
        """Call the handler. It has ended when this returns, or waits for something."""
        claim = attempt.claim
        try:
            payload = orjson.loads(claim.payload)
        except orjson.JSONDecodeError as error:
            return self._verdicts.unreadable(claim, error)
        if attempt.stop is not None:
            return self._verdicts.stopped(attempt)
        variables = copy_context()
        waiting = _Waiting(variables)
        try:
            waiting.waits_for = variables.run(self._call, attempt, Task.of(claim, payload), waiting)
        except StopIteration as done:
            return self._verdicts.success(claim, done.value)
        # SystemExit: a handler that calls sys.exit() fails its task, it does not take the others down with it.
        except (asyncio.CancelledError, Exception, SystemExit) as error:
            return self._verdicts.failure(claim, error)
        return waiting

    def _call(self, attempt: Attempt, task: Task, waiting: "_Waiting") -> Any:
        """The first step of the handler, in its own context. Raises StopIteration with what it returns."""
        logs.bind({"task": task.id})
        called = self._handler(task, Context(self._process, attempt))
        coroutine = called if called.__class__ is types.CoroutineType else _awaited(called)
        waiting.coroutine = coroutine
        return coroutine.send(None)

    @types.coroutine
    def _go_on(self, attempt: Attempt, waiting: "_Waiting") -> Generator[Any, Any, Outcome | None]:
        """Stay with a handler that waits, always in its own context, until it ends."""
        self._clocks.start(attempt, attempt.claim.timeout_seconds)
        run, coroutine, waits_for = waiting.variables.run, waiting.coroutine, waiting.waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    run(coroutine.close)
                    raise
                except BaseException as error:
                    waits_for = run(coroutine.throw, error)
                else:
                    waits_for = run(coroutine.send, sent)
        except StopIteration as done:
            if attempt.stop is None or attempt.stop is StopReason.DRAIN:
                return self._verdicts.success(attempt.claim, done.value)
            return self._verdicts.stopped(attempt)
        except (asyncio.CancelledError, Exception, SystemExit) as error:
            if attempt.stop is None:
                return self._verdicts.failure(attempt.claim, error)
            return self._verdicts.stopped(attempt)
        finally:
            self._clocks.stop(attempt)


class _Waiting:
    """A handler that has begun and waits for something."""

    __slots__ = ("coroutine", "variables", "waits_for")

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.coroutine: Coroutine[Any, Any, Any]
        self.waits_for: Any = None


async def _awaited(called: Any) -> Any:
    return await called
