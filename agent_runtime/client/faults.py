# SPDX-License-Identifier: Apache-2.0
"""Errors of a CentralAgent, made of their codes again; and those that a client has besides."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from kubeagents_api.errors import (
    InvalidTaskError,
    KubeagentsError,
    PermanentError,
    QueueUnavailableError,
    TemporaryError,
)
from kubeagents_api.task import TaskRecord

_DISTRUST = "CERTIFICATE_VERIFY_FAILED"
"""What all libraries of TLS call it."""


class UnreachableError(QueueUnavailableError):
    """No CentralAgent has answered. The call may have been carried out, unless `sent` is false."""

    code = "UNREACHABLE"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class UnknownServerError(PermanentError):
    """Something answers, but it is no CentralAgent, or one that does not speak the protocol."""

    code = "UNKNOWN_SERVER"


def unreachable(where: object, what: str, *, sent: bool) -> UnreachableError | UnknownServerError:
    """The error for what a library says about a connection that cannot be made."""
    if _DISTRUST in what:
        return UnknownServerError(
            f"the certificate of {where} is not trusted ({what}): name the authority that has signed it as the CA file"
        )
    return UnreachableError(f"cannot reach {where}: {what}", sent=sent)


class TaskFailedError(PermanentError):
    """A task has ended without success. `record` has all that is known about it; `code` is that of its failure."""

    def __init__(self, record: TaskRecord) -> None:
        failure = record.failures[-1] if record.failures else None
        super().__init__(f"task {record.id} is {record.state}" + (f": {failure.message}" if failure else ""))
        self.code = "FAILED" if failure is None else failure.code
        self.record = record


class NotFinishedError(TemporaryError):
    """A task has not ended in the time that there was to wait. It goes on."""

    code = "NOT_FINISHED"


def _kinds(kind: type[KubeagentsError]) -> Iterator[tuple[str, type[KubeagentsError]]]:
    yield kind.code, kind
    for narrower in kind.__subclasses__():
        if narrower.__module__ == kind.__module__:
            yield from _kinds(narrower)


_BY_CODE = dict(_kinds(KubeagentsError))


def rebuilt(
    code: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    retry_after: float | None = None,
    passing: bool = False,
) -> KubeagentsError:
    """The error that the server raised. An unknown code gives a PermanentError with that code, unless it is `passing`
    or the server said when to try again; then it is a TemporaryError."""
    details = details or {}
    delay = details.get("retryAfterSeconds", retry_after)
    kind = _BY_CODE.get(code)
    error: KubeagentsError
    if kind is not None and issubclass(kind, InvalidTaskError):
        error = kind(message, field=str(details.get("field", "")))
    elif kind is not None and issubclass(kind, PermanentError):
        error = kind(message)
    elif kind is not None and issubclass(kind, TemporaryError):
        error = kind(message, delay=delay)
    elif passing or delay is not None or kind is KubeagentsError:  # the latter is INTERNAL
        error = TemporaryError(message, delay=delay)
    else:
        error = PermanentError(message)
    error.code = code
    return error


def from_body(body: Any, *, retry_after: float | None = None, passing: bool = False) -> KubeagentsError | None:
    """The error that an ErrorBody stands for, given as JSON or decoded; None if it is none."""
    if isinstance(body, bytes | str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
    if not isinstance(body, dict):
        return None
    message, code, details = body.get("error"), body.get("code"), body.get("details")
    if not (isinstance(message, str) and isinstance(code, str)):
        return None
    found = details if isinstance(details, dict) else None
    return rebuilt(code, message, details=found, retry_after=retry_after, passing=passing)
