# SPDX-License-Identifier: Apache-2.0
"""From our errors to those of A2A. This table is the whole of it.

The details of each have our stable `code` as metadata, beside the reason that A2A knows; an invalid field is named, and
what may work later says when to try again. What has no like in A2A gets an error of its own: the dispatchers of the SDK
look the numbers of errors up in its tables, so these are added there.
"""

import functools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from a2a.server.jsonrpc_models import JSONRPCError
from a2a.server.request_handlers.response_helpers import EXCEPTION_MAP
from a2a.utils import errors as a2a
from a2a.utils.errors import A2AError, ErrorMapping
from a2a.utils.proto_utils import validate_proto_required_fields
from google.protobuf.message import Message as ProtoMessage
from starlette.requests import ClientDisconnect

from agent_runtime.adapters.a2a.addresses import AgentNotFoundError
from agent_runtime.adapters.refusals import retry_said
from kubeagents_api.errors import (
    ForbiddenError,
    InvalidTaskError,
    KubeagentsError,
    PayloadTooLargeError,
    QueueClosedError,
    QueueFullError,
    QueueNotFoundError,
    QueueUnavailableError,
    RateLimitedError,
    TaskNotFoundError,
    TemporaryError,
    UnauthenticatedError,
)

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class UnauthenticatedA2AError(A2AError):
    """The key was revoked meanwhile. Who shows none does not get here."""


class ForbiddenA2AError(A2AError):
    """The caller may not do that."""


class AgentNotFoundA2AError(A2AError):
    """There is no such agent, or queue."""


class TooLargeA2AError(A2AError):
    """The message, or the payload it makes, is too large."""


class ClosedA2AError(A2AError):
    """The queue takes no new tasks."""


class ExhaustedA2AError(A2AError):
    """The queue is full, or the caller has called too often."""


class UnavailableA2AError(A2AError):
    """The queue does not answer."""


# HTTP status, gRPC status, reason; and the code of JSON-RPC.
_OURS: Final[dict[type[A2AError], tuple[ErrorMapping, int]]] = {
    UnauthenticatedA2AError: (ErrorMapping(401, "UNAUTHENTICATED", "UNAUTHENTICATED"), -32090),
    ForbiddenA2AError: (ErrorMapping(403, "PERMISSION_DENIED", "FORBIDDEN"), -32091),
    AgentNotFoundA2AError: (ErrorMapping(404, "NOT_FOUND", "AGENT_NOT_FOUND"), -32092),
    TooLargeA2AError: (ErrorMapping(413, "INVALID_ARGUMENT", "PAYLOAD_TOO_LARGE"), -32093),
    ClosedA2AError: (ErrorMapping(409, "FAILED_PRECONDITION", "QUEUE_CLOSED"), -32094),
    ExhaustedA2AError: (ErrorMapping(429, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"), -32095),
    UnavailableA2AError: (ErrorMapping(503, "UNAVAILABLE", "UNAVAILABLE"), -32096),
}

for _kind, (_mapping, _number) in _OURS.items():
    a2a.A2A_ERROR_MAPPING[_kind] = _mapping
    a2a.A2A_ERROR_REASONS[_kind] = _mapping.reason
    a2a.JSON_RPC_ERROR_CODE_MAP[_kind] = _number
    EXCEPTION_MAP[_kind] = JSONRPCError
EXCEPTION_MAP[a2a.JSONParseError] = JSONRPCError  # the SDK has it for itself only

# The first class that fits decides.
_TABLE: Final[tuple[tuple[type[KubeagentsError], type[A2AError]], ...]] = (
    (PayloadTooLargeError, TooLargeA2AError),
    (InvalidTaskError, a2a.InvalidParamsError),
    (TaskNotFoundError, a2a.TaskNotFoundError),
    (AgentNotFoundError, AgentNotFoundA2AError),
    (QueueNotFoundError, AgentNotFoundA2AError),
    (QueueClosedError, ClosedA2AError),
    (UnauthenticatedError, UnauthenticatedA2AError),
    (ForbiddenError, ForbiddenA2AError),
    (QueueUnavailableError, UnavailableA2AError),
    (QueueFullError, ExhaustedA2AError),
    (RateLimitedError, ExhaustedA2AError),
)


def translated(error: KubeagentsError) -> A2AError:
    """The error as A2A knows it."""
    kind = next((wanted for ours, wanted in _TABLE if isinstance(error, ours)), None)
    if kind is None:
        return internal(error)
    text, data = str(error), {"code": error.code}
    if isinstance(error, TemporaryError):
        text, seconds = retry_said(error)
        data["retryAfterSeconds"] = str(seconds)
    if isinstance(error, InvalidTaskError):
        return kind(text, invalid(error.field, str(error), code=error.code).data)
    return kind(text, data)


def invalid(field: str, message: str, *, code: str = "INVALID_REQUEST") -> a2a.InvalidParamsError:
    """The error for a field that is wrong."""
    data = {"code": code, "field": field, "errors": [{"field": field, "message": message}]}
    return a2a.InvalidParamsError(message, data)


def internal(error: Exception) -> a2a.InternalError:
    """The last catch. What went wrong is for the log only."""
    _log.error("a call over A2A failed", exc_info=error)
    return a2a.InternalError("something went wrong in the server; its log has more", {"code": "INTERNAL"})


def answering(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let an operation be called with whole messages only, and raise errors of A2A only."""

    @functools.wraps(call)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            _check(args)
            return await call(*args, **kwargs)
        except A2AError:
            raise
        except Exception as error:
            raise _known(error) from error

    return wrapper


def streaming(call: Callable[P, AsyncGenerator[T, None]]) -> Callable[P, AsyncGenerator[T, None]]:
    """The same for an asynchronous generator."""

    @functools.wraps(call)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        items = call(*args, **kwargs)
        try:
            _check(args)
            async for item in items:
                yield item
        except A2AError:
            raise
        except Exception as error:
            raise _known(error) from error
        finally:
            await items.aclose()

    return wrapper


def _known(error: Exception) -> A2AError:
    match error:
        case KubeagentsError():
            return translated(error)
        case ClientDisconnect():
            return UnavailableA2AError("the client has gone", {"code": "CLIENT_GONE"})  # nobody reads it
    return internal(error)


def _check(args: tuple[object, ...]) -> None:
    """Raises InvalidParamsError for messages that lack what A2A requires."""
    for one in args:
        if isinstance(one, ProtoMessage):
            validate_proto_required_fields(one)


def status(error: A2AError) -> tuple[ErrorMapping, dict[str, Any]]:
    """How the error is called on the wires, and what is known of it."""
    mapping = a2a.A2A_ERROR_MAPPING.get(type(error), a2a.A2A_ERROR_MAPPING[a2a.InternalError])
    return mapping, error.data or {}
