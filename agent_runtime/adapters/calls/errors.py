# SPDX-License-Identifier: Apache-2.0
"""From errors to what frames say about them."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.adapters.refusals import first_said, retry_said
from agent_runtime.telemetry.http_server import error_body
from kubeagents_api.errors import InvalidTaskError, KubeagentsError, PermanentError, TemporaryError


class InvalidCallError(PermanentError):
    """A frame that is no call: no JSON, an unknown call, parameters that do not fit."""

    code = "INVALID_REQUEST"

    def __init__(self, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code or InvalidCallError.code
        self.details = dict(details or {})


class TooManyCallsError(TemporaryError):
    """More calls at once than one connection may have."""

    code = "TOO_MANY_CALLS"


class DrainingError(TemporaryError):
    """A stream that ends because the process does. Go on elsewhere, after the last offset."""

    code = "DRAINING"


def faults_said(faults: Sequence[Mapping[str, Any]], *, skip: int = 0) -> tuple[str, dict[str, Any]]:
    """What pydantic found: a phrase that names the first field, and details with all of them. `skip` leaves out that
    much of the beginning of each path."""
    errors = [
        {"field": ".".join(str(part) for part in fault["loc"][skip:]), "message": fault["msg"]} for fault in faults
    ]
    return first_said(errors), {"errors": errors}


def body(error: KubeagentsError) -> str:
    """An error as an ErrorBody. `details` of one that is not for good say when to try again."""
    message, details = str(error), {}
    match error:
        case InvalidCallError():
            details = error.details
        case InvalidTaskError():
            details = {"field": error.field}
        case TemporaryError():
            message, seconds = retry_said(error)
            details = {"retryAfterSeconds": seconds}
    return error_body(message, code=error.code, details=details).decode()
