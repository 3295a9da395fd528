# SPDX-License-Identifier: Apache-2.0
"""What a handler's docstring and type hints say: to callers, who are shown it, and about payloads, which must fit."""

import functools
import inspect
import logging
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from agent_runtime.agent.context import BatchContext, Context
from agent_runtime.agent.task import Task
from kubeagents_api.errors import HandlerNotFoundError, PermanentError
from kubeagents_api.interface import INTERFACE_BYTES, Interface

_log = logging.getLogger(__name__)

_DESCRIPTION_BYTES: Final = 4096
_NAMED_FAULTS: Final = 5
INVALID_PAYLOAD = "INVALID_PAYLOAD"
"""Code of a task whose payload is not what its handler takes."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A handler and what it takes."""

    handler: Callable[..., Any]
    """Calls the handler with payloads of its type. The handler itself if it does not name one."""
    interface: Interface


def contract_of(handler: Callable[..., Any]) -> Contract:
    """What a handler, which takes one task or a list of them, says about itself.

    Raises HandlerNotFoundError if its payloads shall be of a type that pydantic cannot make of JSON.
    """
    description = _description(handler)
    typed = _payload_type(handler)
    if typed is None:
        return Contract(handler, Interface(description=description))
    payload, many = typed
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(payload)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        raise HandlerNotFoundError(
            f"the handler wants payloads of the type {payload!r}, which cannot be made of JSON: {error.message}"
        ) from error
    try:
        interface = Interface(description=description, input_schema=schema)
    except ValidationError:
        _log.warning(
            "the JSON Schema of the payload is larger than %d bytes: callers are not shown it, but it holds",
            INTERFACE_BYTES,
        )
        interface = Interface(description=description)
    return Contract((_checked_batch if many else _checked)(handler, adapter), interface)


def _checked(handler: Callable[..., Any], adapter: TypeAdapter[Any]) -> Callable[..., Any]:
    validate = adapter.validate_python

    @functools.wraps(handler)
    async def checked(task: Task[Any], ctx: Context) -> Any:
        try:
            task.payload = validate(task.payload)
        except ValidationError as error:
            raise _refusal(error) from None
        return await handler(task, ctx)

    return checked


def _checked_batch(handler: Callable[..., Any], adapter: TypeAdapter[Any]) -> Callable[..., Any]:
    validate = adapter.validate_python

    @functools.wraps(handler)
    async def checked(tasks: list[Task[Any]], ctx: BatchContext) -> Any:
        refused: dict[int, PermanentError] = {}
        for number, task in enumerate(tasks):
            try:
                task.payload = validate(task.payload)
            except ValidationError as error:
                refused[number] = _refusal(error)
        if not refused:
            return await handler(tasks, ctx)
        good = [task for number, task in enumerate(tasks) if number not in refused]
        results = await handler(good, ctx) if good else []
        if not (isinstance(results, list | tuple) and len(results) == len(good)):
            return results  # which fails them all
        rest = iter(results)
        return [refused[number] if number in refused else next(rest) for number in range(len(tasks))]

    return checked


def _refusal(error: ValidationError) -> PermanentError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}" for fault in faults[:_NAMED_FAULTS]]
    more = f" (and {len(faults) - len(said)} more)" if len(faults) > len(said) else ""
    refusal = PermanentError(f"the payload is not what the handler takes: {'; '.join(said)}{more}")
    refusal.code = INVALID_PAYLOAD
    return refusal


def _payload_type(handler: Callable[..., Any]) -> tuple[Any, bool] | None:
    """What payloads are, and whether the handler takes many tasks; None if its annotations do not say."""
    try:
        hints = typing.get_type_hints(handler, include_extras=True)
    except Exception:  # for example names that only type checkers import: no reason to refuse it
        return None
    hint = hints.get(next(iter(inspect.signature(handler).parameters)))
    many = False
    kind = typing.get_origin(hint)
    if inspect.isclass(kind) and kind is not Task and issubclass(kind, Iterable):
        many = True
        hint = next(iter(typing.get_args(hint)))
    if typing.get_origin(hint) is not Task:
        return None
    (payload,) = typing.get_args(hint)
    return None if payload is Any or isinstance(payload, typing.TypeVar) else (payload, many)


def _description(handler: Callable[..., Any]) -> str:
    """The docstring; that of its class if a method has none."""
    owner = getattr(handler, "__self__", None)
    text = handler.__doc__ or (type(owner).__doc__ if owner is not None else None) or ""
    return inspect.cleandoc(text).encode("utf-8", "replace")[:_DESCRIPTION_BYTES].decode("utf-8", "ignore")
