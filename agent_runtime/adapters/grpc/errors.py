# SPDX-License-Identifier: Apache-2.0
"""From errors to the statuses of calls. This table is the whole of it.

A status has google.rpc.ErrorInfo, whose `reason` is our stable code, and google.rpc.RetryInfo where trying again may
help. A payload that is too large is INVALID_ARGUMENT, not RESOURCE_EXHAUSTED, which many clients repeat: it would be
too large again.
"""

import re
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from agent_runtime.adapters.refusals import retry_said
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.errors import (
    CordonedError,
    DuplicateTaskError,
    ForbiddenError,
    InvalidTaskError,
    KeyNotFoundError,
    KubeagentsError,
    PermanentError,
    QueueClosedError,
    QueueFullError,
    QueueNotFoundError,
    RateLimitedError,
    TaskNotFoundError,
    TemporaryError,
    UnauthenticatedError,
)

DETAILS_KEY: Final = "grpc-status-details-bin"
DOMAIN: Final = "kubeagents.dev"
_LONGEST: Final = 1000
"""Bytes of a message: it travels twice in the trailing metadata, of which clients take 8 KiB in all."""
_LONGEST_FIELD: Final = 200
_WORDS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class RefusedError(PermanentError):
    """A message that never got as far as the core."""

    code = "INVALID_REQUEST"

    def __init__(self, message: str, *, field: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.code = code or RefusedError.code


# The first class that fits decides.
_CODES: Final[tuple[tuple[type[KubeagentsError], grpc.StatusCode], ...]] = (
    (DuplicateTaskError, grpc.StatusCode.ALREADY_EXISTS),
    (InvalidTaskError, grpc.StatusCode.INVALID_ARGUMENT),
    (RefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (TaskNotFoundError, grpc.StatusCode.NOT_FOUND),
    (QueueNotFoundError, grpc.StatusCode.NOT_FOUND),
    (KeyNotFoundError, grpc.StatusCode.NOT_FOUND),
    (QueueClosedError, grpc.StatusCode.FAILED_PRECONDITION),
    (CordonedError, grpc.StatusCode.FAILED_PRECONDITION),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
    (QueueFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (RateLimitedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TemporaryError, grpc.StatusCode.UNAVAILABLE),
)


class Refusal(NamedTuple):
    """How a call ends that failed."""

    code: grpc.StatusCode
    message: str
    details: bytes
    """A google.rpc.Status."""


def refusal(error: KubeagentsError, *, request_id: str) -> Refusal:
    """The answer to one of our errors. Raises it if it is none that callers are told."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None:
        raise error
    message, seconds = _said(error)
    field = _field(error)
    about = {"field": field} if field else {}
    return status(code, message, reason=error.code, request_id=request_id, retry_after=seconds, about=about)


def status(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    request_id: str,
    retry_after: int | None = None,
    about: dict[str, str] | None = None,
) -> Refusal:
    """A status with its details. A message that repeats something long from the call is cut."""
    if len(raw := message.encode()) > _LONGEST:
        message = f"{raw[:_LONGEST].decode(errors='ignore')}…"
    whole = Status(code=code.value[0], message=message)
    whole.details.add().Pack(
        ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id, **(about or {})})
    )
    if retry_after is not None:
        whole.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=retry_after)))
    return Refusal(code, message, whole.SerializeToString())


def fault(error: KubeagentsError) -> Any:
    """The same for one part of a stream that goes on."""
    message, seconds = _said(error)
    said = pb.Fault(code=error.code, message=message, field=_field(error))
    if seconds is not None:
        said.retry_after.seconds = seconds
    return said


def _field(error: KubeagentsError) -> str:
    """What is wrong, in the way of protos: `depends_on` is `dependsOn` elsewhere."""
    field: str = getattr(error, "field", "")
    return _WORDS.sub("_", field[:_LONGEST_FIELD]).lower()


def _said(error: KubeagentsError) -> tuple[str, int | None]:
    return retry_said(error) if isinstance(error, TemporaryError) else (str(error), None)
