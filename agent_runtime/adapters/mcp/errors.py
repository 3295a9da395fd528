# SPDX-License-Identifier: Apache-2.0
"""From our errors to those of JSON-RPC. `data` always has our stable `code`."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from agent_runtime.adapters.refusals import RETRY_AFTER_SECONDS, retry_said
from kubeagents_api.errors import (
    ForbiddenError,
    InvalidTaskError,
    KubeagentsError,
    PermanentError,
    QueueNotFoundError,
    TaskNotFoundError,
    TemporaryError,
    UnauthenticatedError,
)

_log = logging.getLogger(__name__)

# MCP leaves -32000 to -32019 to implementations; the first two are used by its SDK.
FORBIDDEN: Final = -32003
UNAUTHENTICATED: Final = -32004
REFUSED: Final = -32005
UNAVAILABLE: Final = -32006


class UnknownToolError(PermanentError):
    """No such tool, or one that the caller may not use."""

    code = "TOOL_NOT_FOUND"


class UnknownResourceError(PermanentError):
    """No such resource, or one that the caller may not read."""

    code = "RESOURCE_NOT_FOUND"


class UnfinishedError(TemporaryError):
    """A call cannot wait any longer, because the process stops or the queue does not answer. The task goes on."""

    def __init__(self, why: str, *, code: str, task_id: str, uri: str) -> None:
        super().__init__(f"{why}; the task goes on: read its result at {uri}")
        self.code = code
        self.task_id = task_id


_CODES: Final[tuple[tuple[type[KubeagentsError], int], ...]] = (
    (UnknownToolError, INVALID_PARAMS),
    (UnknownResourceError, INVALID_PARAMS),
    (InvalidTaskError, INVALID_PARAMS),
    (TaskNotFoundError, INVALID_PARAMS),
    (QueueNotFoundError, INVALID_PARAMS),
    (ForbiddenError, FORBIDDEN),
    (UnauthenticatedError, UNAUTHENTICATED),
    (TemporaryError, UNAVAILABLE),
    (PermanentError, REFUSED),
)


def translated(error: KubeagentsError) -> MCPError:
    """One of our errors as JSON-RPC has it."""
    message = str(error)
    data: dict[str, Any] = {"code": error.code}
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    match error:
        case InvalidTaskError():
            data["field"] = error.field
        case UnfinishedError():
            data |= {"taskId": error.task_id, "retryAfterSeconds": RETRY_AFTER_SECONDS}
        case TemporaryError():
            message, data["retryAfterSeconds"] = retry_said(error)
    return MCPError(code, message, data)


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raise our errors as JSON-RPC has them."""
    try:
        yield
    except KubeagentsError as error:
        raise translated(error) from error
