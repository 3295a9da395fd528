# SPDX-License-Identifier: Apache-2.0
"""The extension io.modelcontextprotocol/tasks: a call that takes long is answered with a task, which any replica knows.

blocked, scheduled, queued, running ─► working      succeeded ─► completed
                                                    failed, dead, expired ─► completed, with `isError`
                                                    cancelled ─► cancelled

`failed` is for faults of the protocol only, says the extension. Our state is always in `_meta`, and for people in
`statusMessage`, so nothing is lost. A task never asks its client for input.
"""

from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY, RequestParams

from agent_runtime.adapters.mcp import resources
from agent_runtime.adapters.mcp.calls import Request, about, is_modern, outcome
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import TaskRecord, TaskState

EXTENSION: Final = "io.modelcontextprotocol/tasks"
PATIENCE_SECONDS: Final = 1.0
"""How long a call of a client that knows tasks waits before it is answered with one, unless the client says."""
_POLL_MS: Final = 1000


class TaskParams(RequestParams):
    """Parameters of tasks/get, tasks/update and tasks/cancel."""

    task_id: str


def knows_tasks(request: Request) -> bool:
    """Whether the client has declared the extension with this request."""
    capabilities = request.session.client_capabilities
    extensions = capabilities.extensions if capabilities is not None else None
    return is_modern(request) and extensions is not None and EXTENSION in extensions


def require(request: Request) -> None:
    """Raises MCPError if the client may not use the methods of the extension."""
    if not is_modern(request):
        raise MCPError(METHOD_NOT_FOUND, "Method not found", request.method)
    if not knows_tasks(request):
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"this needs the extension {EXTENSION}: declare it in the client capabilities of each request",
            {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def parsed(task_id: str) -> tuple[str, str]:
    """The queue and the id of a task. Raises InvalidTaskError."""
    queue, slash, name = task_id.partition("/")
    if not (queue and slash and name) or "/" in name:
        raise InvalidTaskError(f"there is no task {task_id!r}: task ids are <queue>/<task>", field="taskId")
    return queue, name


def created(record: TaskRecord) -> dict[str, Any]:
    """The answer to a call that goes on as a task."""
    return {"resultType": "task", **_task(record), "_meta": about(record)}


def detailed(record: TaskRecord) -> dict[str, Any]:
    """A task, with its result if it has one."""
    said = {**_task(record), "_meta": about(record)}
    if said["status"] == "completed":
        result = outcome(record, modern=True)
        said["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return said


def _task(record: TaskRecord) -> dict[str, Any]:
    progress = record.progress
    updated = record.finished_at or (progress.at if progress is not None else None) or record.started_at
    ttl = (record.deadline - record.created_at).total_seconds() * 1000 if record.deadline is not None else None
    return {
        "taskId": resources.task_name(record.queue, record.id),
        "status": _status(record.state),
        "statusMessage": _message(record),
        "createdAt": record.created_at.isoformat(),
        "lastUpdatedAt": (updated or record.created_at).isoformat(),
        "ttlMs": round(ttl) if ttl is not None else None,
        "pollIntervalMs": _POLL_MS,
    }


def _status(state: TaskState) -> str:
    if not state.final:
        return "working"
    return "cancelled" if state is TaskState.CANCELLED else "completed"


def _message(record: TaskRecord) -> str:
    progress = record.progress
    if record.state is TaskState.RUNNING and progress is not None:
        share = f" {progress.fraction:.0%}" if progress.fraction is not None else ""
        return f"{record.state}{share}{': ' if progress.message else ''}{progress.message}"
    if record.failures and record.state is not TaskState.SUCCEEDED:
        return f"{record.state}: {record.failures[-1].message}"
    return record.state.value
