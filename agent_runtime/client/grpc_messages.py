# SPDX-License-Identifier: Apache-2.0
"""Between the parameters and answers that all wires have, and the messages of `kubeagents.v1`."""

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agent_runtime.client.transport import Params
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb

_MESSAGE_BYTES: Final = 1024 * 1024
"""Of tasks in one message of a batch, unless one is larger."""
_SECONDS: Final[Mapping[str, str]] = {"took": "seconds", "oldest_age": "oldest_seconds"}
"""Durations whose names are not just without `_seconds`."""


def new_task(body: Params) -> pb.NewTask:
    """A TaskRequest."""
    plain = {
        "id": "id", "queue": "queue", "agent": "agent", "capability": "capability", "instance": "instance",
        "type": "type", "priority": "priority", "maxAttempts": "max_attempts", "dependsOn": "depends_on",
        "tenant": "tenant", "idempotencyKey": "idempotency_key",
    }  # fmt: skip
    fields: dict[str, Any] = {plain[name]: value for name, value in body.items() if name in plain}
    if "payload" in body:
        fields["payload_json"] = orjson.dumps(body["payload"])
    for name, field in (("timeoutSeconds", "timeout"), ("delaySeconds", "delay")):
        if name in body:
            fields[field] = _duration(body[name])
    for name, field in (("notBefore", "not_before"), ("deadline", "deadline")):
        if name in body:
            fields[field] = _timestamp(datetime.fromisoformat(body[name]))
    if "onParentFailure" in body:
        fields["on_parent_failure"] = f"PARENT_FAILURE_POLICY_{body['onParentFailure'].upper()}"
    return pb.NewTask(**fields)


async def batch(params: Params) -> AsyncGenerator[pb.SubmitBatchRequest, None]:
    """The messages that bring a batch."""
    tasks: list[pb.NewTask] = []
    size = 0
    for body in params["tasks"]:
        task = new_task(body)
        if tasks and size + task.ByteSize() > _MESSAGE_BYTES:
            yield pb.SubmitBatchRequest(tasks=tasks)
            tasks, size = [], 0
        tasks.append(task)
        size += task.ByteSize()
    yield pb.SubmitBatchRequest(tasks=tasks)


def results(params: Params) -> pb.ResultsRequest:
    """Which results to wait for."""
    return pb.ResultsRequest(queue=params["queue"], ids=params["ids"], wait=_duration(params["timeoutSeconds"]))


def of_worker(kind: type[Any]) -> Callable[[Params], Any]:
    """A message that says who it is from, and of which queue."""
    return lambda params: kind(queue=params["queue"], worker=_worker(params["worker"]))


def of_claims(kind: type[Any]) -> Callable[[Params], Any]:
    """A message with what is held."""
    return lambda params: kind(queue=params["queue"], claims=[_claim_ref(claim) for claim in params["claims"]])


def heartbeat(params: Params) -> pb.HeartbeatRequest:
    """A heartbeat."""
    beat = params["beat"]
    request = pb.HeartbeatRequest(
        queue=params["queue"],
        worker=_worker(beat["worker"]),
        version=beat["version"],
        concurrency=beat["concurrency"],
        running=beat["running"],
        draining=beat.get("draining", False),
        started_at=_milliseconds(beat["startedAtMs"]),
        succeeded=beat.get("succeeded", 0),
        failed=beat.get("failed", 0),
        revision=beat.get("revision", ""),
        cordoned=beat.get("cordoned", False),
    )
    if (claimed_at := beat.get("claimedAtMs")) is not None:
        request.claimed_at.CopyFrom(_milliseconds(claimed_at))
    if (interface := beat.get("interface")) is not None:
        request.interface_json = orjson.dumps(interface)
    return request


def claim(params: Params) -> pb.ClaimRequest:
    """A wish for tasks."""
    wait = _duration(params["waitSeconds"])
    return pb.ClaimRequest(queue=params["queue"], worker=_worker(params["worker"]), limit=params["limit"], wait=wait)


def claimed(response: pb.ClaimResponse) -> dict[str, Any]:
    """What was taken."""
    return {"claims": [_claimed_task(task) for task in response.claims]}


def settle(params: Params) -> pb.SettleRequest:
    """How attempts have ended."""
    return pb.SettleRequest(queue=params["queue"], outcomes=[_outcome(outcome) for outcome in params["outcomes"]])


def emit(params: Params) -> pb.EmitRequest:
    """What a task says."""
    items = [
        pb.EmitRequest.Item(progress=pb.EmitRequest.Progress(fraction=item["fraction"], message=item["message"]))
        if item["kind"] == "progress"
        else pb.EmitRequest.Item(partial_json=orjson.dumps(item["data"]))
        for item in params["items"]
    ]
    return pb.EmitRequest(queue=params["queue"], claim=_claim_ref(params["claim"]), items=items)


def parents(params: Params) -> pb.ParentsRequest:
    """Whose parents are asked for."""
    return pb.ParentsRequest(queue=params["queue"], claim=_claim_ref(params["claim"]))


def decoded(message: Message) -> dict[str, Any]:
    """A message as the models take it: names in snake_case, what is not set left out."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = _repeated(field, value)
        elif field.name.endswith("_json"):
            if value:
                found[field.name.removesuffix("_json")] = orjson.loads(value)
        elif field.message_type is None or message.HasField(field.name):
            name, plain = _single(field, value)
            if plain is not None and plain != "":
                found[name] = plain
    return found


def _repeated(field: FieldDescriptor, value: Any) -> Any:
    kind = field.message_type
    if kind is None:
        return list(value)
    if kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        return {key: _single(inner, one)[1] for key, one in value.items()}
    return [decoded(one) for one in value]


def _single(field: FieldDescriptor, value: Any) -> tuple[str, Any]:
    if isinstance(value, Duration):
        return _SECONDS.get(field.name, f"{field.name}_seconds"), value.ToTimedelta().total_seconds()
    if isinstance(value, Timestamp):
        return field.name, value.ToDatetime(UTC)
    if isinstance(value, Message):
        return field.name, decoded(value)
    if field.enum_type is not None:
        return field.name, _word(field, value) if value else None
    if field.containing_oneof is not None and field.has_presence:
        return field.name, value
    return field.name, value


def _word(field: FieldDescriptor, value: int) -> str:
    # TASK_STATE_QUEUED is `queued`, PARENT_FAILURE_POLICY_FAIL is `Fail`, KIND_PARTIAL is `partial`.
    word: str = field.enum_type.values_by_number[value].name
    if field.enum_type.name == "ParentFailurePolicy":
        return word.removeprefix("PARENT_FAILURE_POLICY_").capitalize()
    return word.removeprefix("TASK_STATE_").removeprefix("KIND_").lower()


def _worker(info: Mapping[str, Any]) -> pb.Worker:
    return pb.Worker(**info)


def _claim_ref(ref: Mapping[str, Any]) -> pb.ClaimRef:
    return pb.ClaimRef(
        id=ref["id"],
        token=ref["token"],
        attempt=ref["attempt"],
        max_attempts=ref["maxAttempts"],
        timeout=_duration(ref["timeoutSeconds"]),
    )


def _claimed_task(task: pb.ClaimedTask) -> dict[str, Any]:
    found = decoded(task)
    found.update(found.pop("claim"))
    found["created_at_ms"] = task.created_at.ToMilliseconds()
    found.pop("created_at", None)
    if found.pop("deadline", None) is not None:
        found["deadline_ms"] = task.deadline.ToMilliseconds()
    return {"payload": None, "type": "", **found}


def _outcome(outcome: Mapping[str, Any]) -> pb.Outcome:
    told = pb.Outcome(claim=_claim_ref(outcome["claim"]))
    failure = outcome.get("failure")
    if failure is None:
        told.result_json = orjson.dumps(outcome["result"])
        return told
    told.failure.code, told.failure.message = failure["code"], failure["message"]
    told.failure.permanent = failure.get("permanent", False)
    if (delay := failure.get("delaySeconds")) is not None:
        told.failure.delay.CopyFrom(_duration(delay))
    return told


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _milliseconds(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp
