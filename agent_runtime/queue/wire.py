# SPDX-License-Identifier: Apache-2.0
"""Between the worker's half of a queue and its form on a wire (`kubeagents_api.work`), for both ends of the wire."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from agent_runtime.queue.base import Beat, Claim, Failed, Orders, Outcome, Partial, Progress, Succeeded, Worker
from kubeagents_api.work import (
    ClaimedTask,
    ClaimRef,
    WorkerBeat,
    WorkerInfo,
    WorkerOrders,
    WorkFailure,
    WorkItem,
    WorkOutcome,
)


def claimed_fields(claim: Claim) -> dict[str, Any]:
    """A ClaimedTask, for orjson: the payload goes as it is, without being decoded."""
    return {
        "id": claim.id,
        "token": claim.token,
        "attempt": claim.attempt,
        "maxAttempts": claim.max_attempts,
        "timeoutSeconds": claim.timeout_seconds,
        "type": claim.type,
        "payload": orjson.Fragment(claim.payload),
        "priority": claim.priority,
        "agent": claim.agent,
        "createdAtMs": claim.created_at_ms,
        "tenant": claim.tenant,
        "dependsOn": list(claim.depends_on),
        "deadlineMs": claim.deadline_ms,
    }


def claim_of(task: ClaimedTask) -> Claim:
    """The claim that a process works on."""
    return Claim(
        id=task.id,
        type=task.type,
        payload=orjson.dumps(task.payload),
        priority=task.priority,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        agent=task.agent,
        created_at_ms=task.created_at_ms,
        token=task.token,
        tenant=task.tenant,
        depends_on=tuple(task.depends_on),
        deadline_ms=task.deadline_ms,
    )


def held(ref: ClaimRef) -> Claim:
    """A claim as far as the queue needs it to extend, settle or release it, or to hear what it says."""
    return Claim(
        id=ref.id,
        type="",
        payload=b"null",
        priority=0,
        attempt=ref.attempt,
        max_attempts=ref.max_attempts,
        timeout_seconds=ref.timeout_seconds,
        agent=None,
        created_at_ms=0,
        token=ref.token,
    )


def ref_fields(claim: Claim) -> dict[str, Any]:
    """A ClaimRef."""
    return {
        "id": claim.id,
        "token": claim.token,
        "attempt": claim.attempt,
        "maxAttempts": claim.max_attempts,
        "timeoutSeconds": claim.timeout_seconds,
    }


def outcome_of(told: WorkOutcome) -> Outcome:
    """An outcome, as the queue records it."""
    claim, failure = held(told.claim), told.failure
    if failure is None:
        return Succeeded(claim, orjson.dumps(told.result))
    return Failed(
        claim, failure.code, failure.message, permanent=failure.permanent, delay_seconds=failure.delay_seconds
    )


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """A WorkOutcome, for orjson."""
    if isinstance(outcome, Succeeded):
        return {"claim": ref_fields(outcome.claim), "result": orjson.Fragment(outcome.result)}
    failure = WorkFailure(
        code=outcome.code,
        message=outcome.message,
        permanent=outcome.permanent,
        delay_seconds=outcome.delay_seconds,
    )
    return {"claim": ref_fields(outcome.claim), "failure": failure.to_wire()}


def said_of(items: Iterable[WorkItem]) -> list[Progress | Partial]:
    """What a task says, as the queue takes it."""
    return [
        Progress(item.fraction, item.message) if item.kind == "progress" else Partial(orjson.dumps(item.data))
        for item in items
    ]


def said_fields(items: Iterable[Progress | Partial]) -> list[dict[str, Any]]:
    """WorkItems, for orjson."""
    return [
        {"kind": "progress", "fraction": item.fraction, "message": item.message}
        if isinstance(item, Progress)
        else {"kind": "partial", "data": orjson.Fragment(item.data)}
        for item in items
    ]


def worker_of(info: WorkerInfo) -> Worker:
    """A worker, as the queue knows it."""
    return Worker(info.agent, info.instance, tuple(info.capabilities))


def worker_info(worker: Worker) -> WorkerInfo:
    """The same on the wire."""
    return WorkerInfo(agent=worker.agent, instance=worker.instance, capabilities=list(worker.capabilities))


def beat_of(told: WorkerBeat) -> Beat:
    """A heartbeat, as the queue records it."""
    fields: Mapping[str, Any] = {name: getattr(told, name) for name in WorkerBeat.model_fields if name != "worker"}
    return Beat(worker=worker_of(told.worker), **fields)


def beat_told(beat: Beat) -> WorkerBeat:
    """The same on the wire."""
    fields: Mapping[str, Any] = {name: getattr(beat, name) for name in WorkerBeat.model_fields if name != "worker"}
    return WorkerBeat(worker=worker_info(beat.worker), **fields)


def orders_of(told: WorkerOrders) -> Orders:
    """What the process is to do."""
    return Orders(cordoned=told.cordoned)
