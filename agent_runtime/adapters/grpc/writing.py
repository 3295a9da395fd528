# SPDX-License-Identifier: Apache-2.0
"""From our models to messages."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import to_json

from agent_runtime.adapters.grpc.envelope import Message
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.queue.base import Claim
from kubeagents_api.task import (
    InstanceInfo,
    ParentOutcome,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskFailure,
    TaskRecord,
    TaskState,
)
from kubeagents_api.work import Terms

STATES: Final[Mapping[TaskState | None, pb.TaskState]] = {
    None: pb.TASK_STATE_UNSPECIFIED,
    **{state: pb.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState},
}
_KINDS: Final = {
    "progress": pb.StreamItem.KIND_PROGRESS,
    "partial": pb.StreamItem.KIND_PARTIAL,
    "gap": pb.StreamItem.KIND_GAP,
}
_POLICIES: Final = {
    "Fail": pb.PARENT_FAILURE_POLICY_FAIL,
    "Skip": pb.PARENT_FAILURE_POLICY_SKIP,
    "Run": pb.PARENT_FAILURE_POLICY_RUN,
}


def moment(at: datetime | None) -> Message:
    """A Timestamp."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def duration(seconds: float) -> Message:
    """A Duration, to the nanosecond."""
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=nanos)


def task(record: TaskRecord) -> Message:
    """A task and all that is known about it."""
    progress = record.progress
    return pb.Task(
        id=record.id,
        queue=record.queue,
        state=STATES[record.state],
        agent=record.agent,
        capability=record.capability,
        instance=record.instance,
        type=record.type,
        priority=record.priority,
        tenant=record.tenant,
        payload_json=to_json(record.payload),
        depends_on=record.depends_on,
        waits_for=record.waits_for,
        on_parent_failure=_POLICIES[record.on_parent_failure],
        idempotency_key=record.idempotency_key,
        deadline=moment(record.deadline),
        attempts=record.attempts,
        max_attempts=record.max_attempts,
        timeout=duration(record.timeout_seconds),
        created_at=moment(record.created_at),
        due_at=moment(record.due_at),
        progress=None
        if progress is None
        else pb.TaskProgress(fraction=progress.fraction, message=progress.message, at=moment(progress.at)),
        started_at=moment(record.started_at),
        finished_at=moment(record.finished_at),
        worker=record.worker,
        result_json=to_json(record.result) if record.state is TaskState.SUCCEEDED else b"",
        failures=[failure(one) for one in record.failures],
        replays=record.replays,
    )


def failure(found: TaskFailure) -> Message:
    """Why an attempt failed."""
    return pb.TaskFailure(
        code=found.code, message=found.message, attempt=found.attempt, worker=found.worker, at=moment(found.at)
    )


def stream_item(item: StreamItem) -> Message:
    """One thing that a running task said."""
    return pb.StreamItem(
        offset=item.offset,
        attempt=item.attempt,
        at=moment(item.at),
        kind=_KINDS[item.kind],
        data_json=to_json(item.data),
    )


def event(found: TaskEvent) -> Message:
    """One thing that happened in a queue."""
    return pb.TaskEvent(
        offset=found.offset,
        at=moment(found.at),
        kind=found.kind.value,
        task=found.task,
        attempt=found.attempt,
        took=None if found.seconds is None else duration(found.seconds),
        by=found.by,
    )


def stats(found: QueueStats) -> Message:
    """Figures of a queue."""
    fields: dict[str, Any] = found.model_dump(exclude={"waiting_since", "oldest_at", "oldest_seconds"})
    message = pb.QueueStats(**fields, oldest_at=moment(found.oldest_at), oldest_age=duration(found.oldest_seconds))
    for target, since in found.waiting_since.items():
        message.waiting_since[target].FromDatetime(since)
    return message


def instance(found: InstanceInfo) -> Message:
    """A process of an Agent."""
    times = ("claimed_at", "started_at", "last_beat_at")
    fields: dict[str, Any] = found.model_dump(exclude=set(times))
    return pb.AgentInstance(**fields, **{name: moment(getattr(found, name)) for name in times})


def terms(found: Terms) -> Message:
    """What a process has to know of a queue."""
    return pb.Terms(
        queue=found.queue,
        namespace=found.namespace,
        lease=duration(found.lease_seconds),
        agent_timeout=duration(found.agent_timeout_seconds),
        max_payload_bytes=found.max_payload_bytes,
    )


def claim_ref(claim: Claim) -> Message:
    """An attempt that is held."""
    return pb.ClaimRef(
        id=claim.id,
        token=claim.token,
        attempt=claim.attempt,
        max_attempts=claim.max_attempts,
        timeout=duration(claim.timeout_seconds),
    )


def claimed(claim: Claim) -> Message:
    """A task that has been taken. Its payload goes as it is, without being decoded."""
    return pb.ClaimedTask(
        claim=claim_ref(claim),
        type=claim.type,
        payload_json=claim.payload,
        priority=claim.priority,
        agent=claim.agent,
        created_at=_at(claim.created_at_ms),
        tenant=claim.tenant,
        depends_on=claim.depends_on,
        deadline=None if claim.deadline_ms is None else _at(claim.deadline_ms),
    )


def parent(found: ParentOutcome) -> Message:
    """How a task ended that another one depends on."""
    return pb.ParentsResponse.Parent(
        state=STATES[found.state],
        result_json=to_json(found.result) if found.state is TaskState.SUCCEEDED else b"",
        failure=None if found.failure is None else failure(found.failure),
    )


def _at(milliseconds: int) -> Message:
    return moment(datetime.fromtimestamp(milliseconds / 1000, UTC))
