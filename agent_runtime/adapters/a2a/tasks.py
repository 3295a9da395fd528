# SPDX-License-Identifier: Apache-2.0
"""Between our tasks and those of A2A.

blocked, scheduled, queued ─► SUBMITTED     succeeded           ─► COMPLETED
running                    ─► WORKING       failed, dead, expired ─► FAILED
                                            cancelled           ─► CANCELED, or REJECTED if its queue had no room

A2A has fewer states, so ours is always in the metadata, with what else is known: nothing is lost.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from a2a.types import Artifact, Message, Role, SendMessageRequest, Task, TaskState, TaskStatus
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.a2a.conversations import Origin
from agent_runtime.adapters.a2a.parts import json_object, parts_of, payload, struct
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import StreamItem, TaskRecord, TaskRequest
from kubeagents_api.task import TaskState as OurState

OURS: Final = "kubeagents.dev/"
"""Begins the names of metadata that are ours."""
RESULT: Final = "result"
"""Id of the artifact with the result."""
_STATES: Final = {
    OurState.BLOCKED: TaskState.TASK_STATE_SUBMITTED,
    OurState.SCHEDULED: TaskState.TASK_STATE_SUBMITTED,
    OurState.QUEUED: TaskState.TASK_STATE_SUBMITTED,
    OurState.RUNNING: TaskState.TASK_STATE_WORKING,
    OurState.SUCCEEDED: TaskState.TASK_STATE_COMPLETED,
    OurState.FAILED: TaskState.TASK_STATE_FAILED,
    OurState.DEAD: TaskState.TASK_STATE_FAILED,
    OurState.EXPIRED: TaskState.TASK_STATE_FAILED,
    OurState.CANCELLED: TaskState.TASK_STATE_CANCELED,
}
_SHED: Final = "SHED"
"""The code of what a full queue has dropped."""
_TOLD: Final = frozenset(
    {"queue", "agent", "capability", "type", "priority", "tenant", "attempts", "max_attempts", "worker", "replays"}
)
"""What the metadata has of a record, besides the state."""


def request(asked: SendMessageRequest, address: Address, origin: Origin) -> TaskRequest:
    """The task for a message. Raises InvalidTaskError.

    Metadata of ours, of the message or of the request, are fields of the task: `kubeagents.dev/priority` and so on.
    """
    message = asked.message
    fields: dict[str, Any] = {}
    for metadata, where in ((asked.metadata, "metadata"), (message.metadata, "message.metadata")):
        found = json_object(metadata, where)
        fields |= {name.removeprefix(OURS): item for name, item in found.items() if name.startswith(OURS)}
    for name in {"payload", "id", "idempotencyKey"} & fields.keys():
        raise InvalidTaskError(f"{OURS}{name} comes from the message itself: leave it out", field=f"metadata.{name}")
    for name, value in (("agent", address.agent), ("queue", address.queue)):
        if value is not None and fields.setdefault(name, value) != value:
            raise InvalidTaskError(f"{OURS}{name} is not the one of {address}", field=f"metadata.{OURS}{name}")
    fields |= {"payload": payload(message), "idempotencyKey": origin.key}
    try:
        return TaskRequest.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        field = f"metadata.{OURS}{name}" if name else "metadata"
        raise InvalidTaskError(f"{field}: {fault['msg']}", field=field) from error


def task(record: TaskRecord, address: Address, *, history: int | None = None) -> Task:
    """A task as A2A sees it. `history`: of how many messages; none if unset, as they are as large as payloads."""
    origin = Origin.of_record(record)
    name = address.task_name(record.queue, record.id)
    found = Task(id=name, context_id=origin.context, status=status(record), metadata=metadata(record))
    if record.state is OurState.SUCCEEDED:
        found.artifacts.append(result(record))
    if history:
        found.history.append(
            Message(
                message_id=origin.message,
                context_id=origin.context,
                task_id=name,
                role=Role.ROLE_USER,
                parts=parts_of(record.payload),
            )
        )
    return found


def state(record: TaskRecord) -> TaskState:
    """The state as A2A knows it."""
    if record.state is OurState.CANCELLED and record.failures and record.failures[-1].code == _SHED:
        return TaskState.TASK_STATE_REJECTED
    return _STATES[record.state]


def status(record: TaskRecord) -> TaskStatus:
    """The state, since when, and what is to say about it."""
    at = record.finished_at or record.started_at or record.created_at
    found = TaskStatus(state=state(record), timestamp=timestamp(at))
    if record.state.final and record.state is not OurState.SUCCEEDED and record.failures:
        last = record.failures[-1]
        text = f"{last.code}: {last.message}"
        found.message.CopyFrom(said(record, text, {"code": last.code, "attempt": last.attempt}))
    elif record.state is OurState.RUNNING and record.progress is not None:
        progress = record.progress
        found.message.CopyFrom(said(record, progress.message, {"fraction": progress.fraction}))
        found.timestamp.CopyFrom(timestamp(progress.at))
    return found


def said(about: TaskRecord, text: str, more: Mapping[str, Any], *, number: str = "status") -> Message:
    """Something that an agent says about a task. `number` tells it from others."""
    origin = Origin.of_record(about)
    kept = {OURS + name: value for name, value in more.items() if value is not None}
    return Message(
        message_id=f"{about.id}-{number}",
        context_id=origin.context,
        role=Role.ROLE_AGENT,
        parts=parts_of(text),
        metadata=struct(kept),
    )


def metadata(record: TaskRecord) -> Any:
    """What is known of a task besides what A2A has a place for."""
    known = record.model_dump(mode="json", by_alias=False, include=set(_TOLD), exclude_none=True)
    wire = {OURS + _camel(name): value for name, value in known.items() if value != ""}
    wire[OURS + "state"] = record.state.value
    if record.failures:
        wire[OURS + "failures"] = [failure.to_wire() for failure in record.failures]
        if record.state.final:
            wire[OURS + "code"] = record.failures[-1].code
    if record.deadline is not None:
        wire[OURS + "deadline"] = record.deadline.isoformat()
    return struct(wire)


def result(record: TaskRecord) -> Artifact:
    """What the handler has returned."""
    return Artifact(artifact_id=RESULT, name=RESULT, parts=parts_of(record.result))


def partial(item: StreamItem) -> Artifact:
    """A part of the result. Each attempt begins an artifact of its own."""
    return Artifact(
        artifact_id=f"partial-{item.attempt}",
        name="partial",
        description="Parts of the result, as they come.",
        parts=parts_of(item.data),
        metadata=struct({OURS + "attempt": item.attempt}),
    )


def timestamp(at: datetime) -> Timestamp:
    """A moment, to the millisecond."""
    found = Timestamp()
    found.FromMilliseconds(int(at.timestamp() * 1000))
    return found


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
