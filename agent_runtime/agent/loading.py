# SPDX-License-Identifier: Apache-2.0
"""Imports what the Agent's `handler` names, and looks whether it can be one."""

import importlib
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from agent_runtime.agent.context import BatchContext, Context
from agent_runtime.agent.task import Task
from kubeagents_api.errors import HandlerNotFoundError

Handler = Callable[[Task, Context], Awaitable[Any]]
"""Works on one task, and returns its result."""
BatchHandler = Callable[[list[Task], BatchContext], Awaitable[Sequence[Any]]]
"""Works on several tasks, and returns as many results, in the same order."""


def load_handler(target: str, *, code_path: str | None = None) -> Handler:
    """Import `module:attribute` and make it callable; a class is instantiated and its `handle` method used.

    Raises HandlerNotFoundError whose message says what was tried and what went wrong, import errors included.
    """
    handler: Handler = _load(target, code_path=code_path, signature="(task, ctx)")
    if _takes_many(handler):
        raise HandlerNotFoundError(
            f"handler {target!r} takes a list of tasks, but the Agent has no `batch`: set `batch: {{}}` in its spec, "
            "or let the handler take one `task: Task`"
        )
    return handler


def load_batch_handler(target: str, *, code_path: str | None = None) -> BatchHandler:
    """Like `load_handler`, for an Agent with `batch`."""
    handler: BatchHandler = _load(target, code_path=code_path, signature="(tasks, ctx)")
    if _takes_many(handler) is False:
        raise HandlerNotFoundError(
            f"handler {target!r} takes one task, but the Agent has `batch`: let it take `tasks: list[Task]` and return "
            "a list of as many results, or remove `batch` from the spec"
        )
    return handler


def _takes_many(handler: Callable[..., Any]) -> bool | None:
    """Whether its first argument is several tasks; None if its annotations do not say."""
    try:
        hints = typing.get_type_hints(handler)
    except Exception:  # for example names that only type checkers import: no reason to refuse it
        return None
    hint = hints.get(next(iter(inspect.signature(handler).parameters)))
    if _is_task(hint):
        return False
    kind = typing.get_origin(hint)
    many = inspect.isclass(kind) and issubclass(kind, Iterable) and any(map(_is_task, typing.get_args(hint)))
    return True if many else None


def _is_task(hint: Any) -> bool:
    return hint is Task or typing.get_origin(hint) is Task


def _load(target: str, *, code_path: str | None, signature: str) -> Any:
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
            f"handler {target!r} is not an async function: write `async def {attribute}{signature}`"
        )
    if len(inspect.signature(found).parameters) != 2:
        raise HandlerNotFoundError(f"handler {target!r} must take exactly two arguments, {signature}")
    return found
