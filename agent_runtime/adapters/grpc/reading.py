# SPDX-License-Identifier: Apache-2.0
"""From messages to our models. Whatever does not fit is refused, with the name that the field has on all wires."""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from agent_runtime.adapters.grpc.envelope import Message
from agent_runtime.adapters.grpc.errors import RefusedError
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.task import TASK_ID, DeadFilter, TaskRequest
from kubeagents_api.work import ClaimRef, WorkerBeat, WorkerInfo, WorkItem, WorkOutcome

Model = TypeVar("Model", bound=BaseModel)

_NAMES: Final = {
    "timeout_seconds": "timeout",
    "delay_seconds": "delay",
    "started_at_ms": "started_at",
    "claimed_at_ms": "claimed_at",
}
"""How messages call what has another name in the models."""
_POLICIES: Final = {0: "Fail", 1: "Fail", 2: "Skip", 3: "Run"}


def checked(model: type[Model], fields: dict[str, Any], *, where: str = "") -> Model:
    """The fields as a model. Raises RefusedError, which names the first one that is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        path = (_NAMES.get(str(part), str(part)) for part in fault["loc"])
        field = ".".join((where, *path) if where else path)
        what = f"{field}: {fault['msg']}" if field else str(fault["msg"])
        raise RefusedError(f"the message is not valid: {what}", field=field) from error


def new_task(message: Message, *, where: str = "") -> TaskRequest:
    """A task to submit. `where` it stands in the message."""
    fields: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name, read = _TASK_FIELDS[descriptor.name]
        fields[name] = read(value, f"{where}.{name}" if where else name)
    return checked(TaskRequest, fields, where=where)


def json_value(raw: bytes, field: str) -> Any:
    """Strict JSON; null for nothing."""
    if not raw:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"{field} is no JSON: {error}", field=field, code="INVALID_JSON") from error


def moment(message: Message, field: str) -> datetime:
    """A Timestamp."""
    try:
        found: datetime = message.ToDatetime(tzinfo=UTC)
    except ValueError as error:
        raise RefusedError(f"{field} is no Timestamp: {error}", field=field) from error
    return found


def seconds(message: Message, field: str = "") -> float:
    """A Duration."""
    del field  # every Duration is a number of seconds
    return float(message.seconds) + float(message.nanos) * 1e-9


def wait_seconds(message: Message, *, default: float, most: float) -> float:
    """How long a call may wait. `default` if it does not say."""
    if not message.HasField("wait"):
        return default
    found = seconds(message.wait)
    if not 0 <= found <= most:
        raise RefusedError(f"wait is {found:g} s, it must be 0 to {most:g} s", field="wait")
    return found


def within(left: float) -> datetime:
    """The moment in so many seconds, at the latest a year from now."""
    return datetime.now(UTC) + timedelta(seconds=min(left, 31_536_000.0))


def task_id(text: str) -> str:
    """An id that a task may have."""
    if not TASK_ID.fullmatch(text):
        raise RefusedError(
            "id: it must be 1 to 128 letters, digits and . _ : - and begin with one of the former two", field="id"
        )
    return text


def dead_filter(message: Message) -> DeadFilter:
    """Which dead tasks."""
    fields: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        fields[name] = moment(value, name) if name in ("before", "after") else list(value) if name == "ids" else value
    return checked(DeadFilter, fields, where="filter")


def worker(message: Message) -> WorkerInfo:
    """Who works."""
    fields = {"agent": message.agent, "instance": message.instance, "capabilities": list(message.capabilities)}
    return checked(WorkerInfo, fields, where="worker")


def beat(message: Message) -> WorkerBeat:
    """A heartbeat."""
    fields: dict[str, Any] = {
        "worker": worker(message.worker),
        "started_at_ms": _milliseconds(message, "started_at") or 0,
        "claimed_at_ms": _milliseconds(message, "claimed_at"),
    }
    for name in ("version", "concurrency", "running", "draining", "succeeded", "failed", "revision", "cordoned"):
        fields[name] = getattr(message, name)
    if message.interface_json:
        fields["interface"] = json_value(message.interface_json, "interface")
    return checked(WorkerBeat, fields)


def claim_refs(messages: Iterable[Message]) -> list[ClaimRef]:
    """Attempts that are held."""
    return [claim_ref(message, where=f"claims.{index}") for index, message in enumerate(messages)]


def claim_ref(message: Message, *, where: str = "claim") -> ClaimRef:
    """An attempt that is held."""
    fields = {
        "id": message.id,
        "token": message.token,
        "attempt": message.attempt,
        "max_attempts": message.max_attempts,
        "timeout_seconds": seconds(message.timeout),
    }
    return checked(ClaimRef, fields, where=where)


def outcome(message: Message, *, where: str) -> WorkOutcome:
    """How an attempt ended."""
    fields: dict[str, Any] = {"claim": claim_ref(message.claim, where=f"{where}.claim")}
    match message.WhichOneof("how"):
        case "result_json":
            fields["result"] = json_value(message.result_json, f"{where}.result")
        case "failure":
            failure = message.failure
            fields["failure"] = {
                "code": failure.code,
                "message": failure.message,
                "permanent": failure.permanent,
                "delay_seconds": seconds(failure.delay) if failure.HasField("delay") else None,
            }
        case _:
            raise RefusedError(f"{where} has neither a result nor a failure", field=where)
    return checked(WorkOutcome, fields, where=where)


def work_item(message: Message, *, where: str) -> WorkItem:
    """One thing that a task says."""
    match message.WhichOneof("what"):
        case "progress":
            progress = message.progress
            fraction = progress.fraction if progress.HasField("fraction") else None
            return checked(
                WorkItem, {"kind": "progress", "fraction": fraction, "message": progress.message}, where=where
            )
        case "partial_json":
            return checked(WorkItem, {"kind": "partial", "data": json_value(message.partial_json, where)}, where=where)
        case _:
            raise RefusedError(f"{where} says nothing", field=where)


def _milliseconds(message: Message, name: str) -> int | None:
    if not message.HasField(name):
        return None
    return math.floor(moment(getattr(message, name), name).timestamp() * 1000)


def _as_it_is(value: Any, _: str) -> Any:
    return value


def _policy(value: int, field: str) -> str:
    if value not in _POLICIES:
        raise RefusedError(f"{field} is {value}, which has no meaning", field=field)
    return _POLICIES[value]


_OTHERS: Final[dict[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "payload_json": ("payload", json_value),
    "timeout": ("timeout_seconds", seconds),
    "delay": ("delay_seconds", seconds),
    "not_before": ("not_before", moment),
    "deadline": ("deadline", moment),
    "depends_on": ("depends_on", lambda value, _: tuple(value)),
    "on_parent_failure": ("on_parent_failure", _policy),
}
_TASK_FIELDS: Final = {
    field.name: _OTHERS.get(field.name, (field.name, _as_it_is)) for field in pb.NewTask.DESCRIPTOR.fields
}
"""The fields of a new task: how the model calls them, and how they are read."""
