# SPDX-License-Identifier: Apache-2.0
"""From errors to answers. This table is the whole of it."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agent_runtime.adapters.refusals import first_said, retry_said
from agent_runtime.telemetry.http_server import error_body
from kubeagents_api.errors import (
    CordonedError,
    DuplicateTaskError,
    ForbiddenError,
    InvalidTaskError,
    IssuerUnavailableError,
    KeyNotFoundError,
    KubeagentsError,
    PayloadTooLargeError,
    PermanentError,
    QueueClosedError,
    QueueFullError,
    QueueNotFoundError,
    QueueUnavailableError,
    RateLimitedError,
    TaskNotFoundError,
    UnauthenticatedError,
)

_log = logging.getLogger(__name__)

# The first class that fits decides. What may work later is below: it says when to try again.
_STATUS: tuple[tuple[type[KubeagentsError], int], ...] = (
    (PayloadTooLargeError, 413),
    (DuplicateTaskError, 409),
    (InvalidTaskError, 400),
    (TaskNotFoundError, 404),
    (QueueNotFoundError, 404),
    (QueueClosedError, 409),
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (KeyNotFoundError, 404),
    (CordonedError, 409),
)


class RefusedError(PermanentError):
    """A request that never got as far as the core."""

    def __init__(self, status: int, code: str, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details or {}


def answer(
    status: int,
    code: str,
    message: str,
    *,
    details: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An ErrorBody as a response."""
    return Response(
        error_body(message, code=code, details=details),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


def invalid(faults: list[Mapping[str, Any]], *, where: str) -> RefusedError:
    """The refusal for what pydantic found: the sentence names the first field, the details name all."""
    errors = [{"field": _field(fault), "message": fault["msg"]} for fault in faults]
    message = f"{where} is not valid: {first_said(errors)}"
    return RefusedError(400, "INVALID_REQUEST", message, details={"errors": errors})


def install(app: FastAPI) -> None:
    """Let the application answer its errors by the table."""
    app.add_exception_handler(KubeagentsError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)


def _on_ours(_: Request, error: Exception) -> Response:
    return refusal(error)


def refusal(error: Exception) -> Response:
    """The answer to one of our errors. Raises it if it is none of them."""
    match error:
        case RefusedError():
            return answer(error.status, error.code, str(error), details=error.details)
        case QueueUnavailableError() | IssuerUnavailableError() | QueueFullError() | RateLimitedError():
            text, seconds = retry_said(error)
            status = 503 if isinstance(error, (QueueUnavailableError, IssuerUnavailableError)) else 429
            return answer(status, error.code, text, headers={"retry-after": str(seconds)})
        case KubeagentsError():
            details = {"field": error.field} if isinstance(error, InvalidTaskError) else {}
            headers = {"www-authenticate": "Bearer"} if isinstance(error, UnauthenticatedError) else None
            for kind, status in _STATUS:
                if isinstance(error, kind):
                    return answer(status, error.code, str(error), details=details, headers=headers)
    raise error


def _on_validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return refusal(invalid(list(error.errors()), where="the request"))


def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path, method = request.url.path, request.method
    match error.status_code:
        case 404:
            return answer(404, "NOT_FOUND", f"there is nothing at {path}; see /docs for what there is")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            text = f"{method} is not possible at {path}: use {allowed or 'another method'}"
            return answer(405, "METHOD_NOT_ALLOWED", text, headers=error.headers)
    return answer(error.status_code, "HTTP_ERROR", str(error.detail), headers=error.headers)


async def _on_fault(request: Request, error: Exception) -> Response:
    """Starlette would answer in plain text: leave it to the envelope, which says what to look for in the log."""
    raise error


def _field(fault: Mapping[str, Any]) -> str:
    # FastAPI says where a parameter was found; the name alone is what a user typed.
    path = [str(part) for part in fault["loc"]]
    if path and path[0] in ("query", "path", "header", "body"):
        path = path[1:]
    return ".".join(path)
