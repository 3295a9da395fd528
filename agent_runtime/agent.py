# SPDX-License-Identifier: Apache-2.0
"""What a user writes: one async function (or a class with one) that takes a task and a context.

    async def handle(task: Task, ctx: Context) -> Any:
        ctx.log.info("counting")
        return {"words": len(task.payload["text"].split())}

It returns any JSON value. It may raise PermanentError (do not try again) or TemporaryError(delay=…) (try again then);
any other exception is a failed attempt and is retried by the queue's policy. It may run more than once for the same
task (at-least-once), so effects outside should be idempotent: `task.id` is the natural key.
"""

import importlib
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kubeagents_api.errors import HandlerNotFoundError


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt of a task, as a handler sees it."""

    id: str
    type: str
    payload: Any
    """The decoded JSON payload."""
    priority: int
    attempt: int
    """Counted from 1."""
    max_attempts: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds an attempt."""

    agent: str
    """Name of the Agent."""
    instance: str
    """Name of this process; in a cluster the pod's name."""
    queue: str
    """Name of the TaskQueue."""
    log: logging.LoggerAdapter[logging.Logger]
    """Logger that adds the agent and the task id to each line."""


Handler = Callable[[Task, Context], Awaitable[Any]]


def load_handler(target: str, *, code_path: str | None = None) -> Handler:
    """Import `module:attribute` and make it callable; a class is instantiated and its `handle` method used.

    Raises HandlerNotFoundError whose message says what was tried and what went wrong, import errors included.
    """
    if code_path is not None and code_path not in sys.path:
        sys.path.insert(0, code_path)
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise HandlerNotFoundError(
            f"handler {target!r}: importing module {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    try:
        found: Any = getattr(module, attribute)
    except AttributeError:
        public = sorted(name for name, value in vars(module).items() if inspect.iscoroutinefunction(value))
        raise HandlerNotFoundError(
            f"handler {target!r}: module {module_name!r} has no attribute {attribute!r}"
            + (f"; its async functions are: {', '.join(public)}" if public else "")
        ) from None
    if inspect.isclass(found):
        try:
            instance: Any = found()
            found = instance.handle
        except (Exception, SystemExit) as error:
            raise HandlerNotFoundError(
                f"handler {target!r}: class {attribute!r} cannot be used as a handler: {type(error).__name__}: {error}"
            ) from error
    if not inspect.iscoroutinefunction(found):
        raise HandlerNotFoundError(
            f"handler {target!r} is not an async function: write `async def {attribute}(task, ctx)`"
        )
    if len(inspect.signature(found).parameters) != 2:
        raise HandlerNotFoundError(f"handler {target!r} must take exactly two arguments, (task, ctx)")
    handler: Handler = found
    return handler
