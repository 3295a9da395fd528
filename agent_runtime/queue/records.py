# SPDX-License-Identifier: Apache-2.0
"""Tasks as text: what is written to Redis, and what is made of it when it is read.

A record is one JSON object. Its first members have a fixed form that the Lua scripts rely on (`include/record.lua`; the
scripts add the first two), and `payload` is the last, so that a claim cuts it out without decoding it. Nothing here
talks to Redis.
"""

import graphlib
import itertools
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson
from pydantic import JsonValue

from agent_runtime.queue.base import Beat, Claim, Failed
from agent_runtime.queue.lanes import ANY_LANE, lane_of
from kubeagents_api.errors import DuplicateTaskError, InvalidTaskError, PayloadTooLargeError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import (
    PRIORITY_DEFAULT,
    InstanceInfo,
    ParentOutcome,
    TaskFailure,
    TaskProgress,
    TaskRecord,
    TaskRequest,
    TaskState,
)

log = logging.getLogger(__name__)

LARGEST_BATCH: Final = 10_000
"""Tasks in one submission. It is one script: the server does nothing else for as long (some 40 ms)."""
LONGEST_MESSAGE: Final = 4096
"""Characters of a failure's message that are kept. A task keeps up to 100 failures."""
_PAYLOAD: Final = b',"payload":'
_PAYLOAD_LENGTH: Final = len(_PAYLOAD)
_POLICY_FLAGS: Final = {"Fail": "f", "Skip": "s", "Run": "r"}
_POLICIES: Final = {flag: policy for policy, flag in _POLICY_FLAGS.items()}


@dataclass(frozen=True, slots=True)
class Blob:
    """Something large that is kept beside its task, in chunks."""

    name: str
    parts: Sequence[bytes]


class EncodedTask(NamedTuple):
    """A task that is ready to be submitted."""

    id: str
    priority: int
    lane: str
    text: bytes
    extra: bytes = b""
    """What the submit script must know beside: a JSON object, or nothing for a plain task."""
    blob: Blob | None = None
    """Its payload, if that is large."""


def new_ids(count: int) -> list[str]:
    """Ids that are unique everywhere and sort by the time of their making, to the millisecond."""
    now = f"{int(time.time() * 1000):012x}"
    if count == 1:
        return [now + os.urandom(10).hex()]
    noise = os.urandom(10 * count).hex()
    return [now + noise[at : at + 20] for at in range(0, 20 * count, 20)]


def encode_tasks(tasks: Sequence[TaskRequest], config: QueueConfig) -> list[EncodedTask]:
    """All tasks of a batch as they are sent. Raises InvalidTaskError and its kinds; names the first bad task."""
    if len(tasks) > LARGEST_BATCH:
        raise InvalidTaskError(
            f"the batch has {len(tasks)} tasks, at most {LARGEST_BATCH} can be queued at once: split it", field="tasks"
        )
    made_up = iter(new_ids(sum(task.id is None for task in tasks)))
    ids = [next(made_up) if task.id is None else task.id for task in tasks]
    if len(set(ids)) < len(ids):
        _refuse_twins(tasks, ids)
    encoded = []
    simple = config.task_ttl_seconds is None
    largest = min(config.inline_bytes, config.max_payload_bytes)
    before, behind = _plain_head(ANY_LANE, config.retry.max_attempts, PRIORITY_DEFAULT, "", config.task_timeout_seconds)
    for index, (task, task_id) in enumerate(zip(tasks, ids, strict=True)):
        # Most tasks are a payload and nothing special: the short way, since this is the hottest code of a producer.
        if simple and task.model_fields_set <= _SIMPLE_FIELDS:
            payload = _encode_payload(task.payload, tasks, index)
            if len(payload) <= largest:
                text = b"".join((before, task_id.encode(), behind, payload, b"}}"))
                encoded.append(EncodedTask(task_id, PRIORITY_DEFAULT, ANY_LANE, text))
                continue
        encoded.append(_encode_task(tasks, index, task_id, config))
    if len(tasks) > 1 and any(task.depends_on for task in tasks):
        _refuse_cycles(tasks, ids)
    return encoded


def submission_arguments(encoded: Sequence[EncodedTask], *, nonce: str) -> list[str | bytes | int]:
    """One submission as the submit script takes it: neighbours that go to the same place as one run."""
    if len(encoded) == 1:
        (task,) = encoded
        return [nonce, 1, task.lane, task.priority, task.extra, 1, task.id, task.text]
    arguments: list[str | bytes | int] = [nonce, len(encoded)]
    for (lane, priority, extra), run in itertools.groupby(encoded, key=attrgetter("lane", "priority", "extra")):
        neighbours = list(run)
        # What is not plain is a run for itself.
        for part in ([task] for task in neighbours) if extra else (neighbours,):
            arguments += (lane, priority, extra, len(part))
            for task in part:
                arguments += (task.id, task.text)
    return arguments


def _encode_task(tasks: Sequence[TaskRequest], index: int, task_id: str, config: QueueConfig) -> EncodedTask:
    task = tasks[index]
    if task.queue is not None and task.queue != config.name:
        raise InvalidTaskError(
            f"{_which(tasks, index)} is for queue {task.queue!r}, but this is queue {config.name!r}", field="queue"
        )
    payload = _encode_payload(task.payload, tasks, index)
    if len(payload) > config.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{_which(tasks, index)}: its payload has {len(payload)} bytes as JSON, the queue {config.name!r} takes at "
            f"most {config.max_payload_bytes} (spec.maxPayloadBytes): send a reference to the data instead"
        )
    blob = None
    if len(payload) > config.inline_bytes:
        blob, payload = new_blob(payload, config), b"null"
    lane = lane_of(task)
    special: dict[str, Any] = {}
    if blob is not None or config.task_ttl_seconds is not None or not task.model_fields_set.isdisjoint(_SPECIAL_FIELDS):
        special = _special_members(task, config, blob)
    place = (lane, task.max_attempts or config.retry.max_attempts, task.priority, task.type)
    timeout = task.timeout_seconds or config.task_timeout_seconds
    try:
        before, behind = _head(*place, timeout, special) if special else _plain_head(*place, timeout)
    except TypeError as error:
        raise InvalidTaskError(
            f"{_which(tasks, index)}: its type is not text that JSON can hold: {error}", field="type"
        ) from error
    text = b"".join((before, task_id.encode(), behind, payload, b"}}"))
    return EncodedTask(task_id, task.priority, lane, text, orjson.dumps(special) if special else b"", blob)


def _head(
    lane: str, max_attempts: int, priority: int, type_: str, timeout: float, special: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """A record up to its id, and from there to its payload."""
    before = orjson.dumps({"flags": _flags(special), "max_attempts": max_attempts, "lane": lane, **special})
    behind = orjson.dumps({"priority": priority, "type": type_, "timeout": timeout})
    return before[1:-1] + b',"id":"', b'",' + behind[1:-1] + _PAYLOAD


@lru_cache(maxsize=256)
def _plain_head(lane: str, max_attempts: int, priority: int, type_: str, timeout: float) -> tuple[bytes, bytes]:
    """The same for tasks with nothing special, of which many are alike."""
    return _head(lane, max_attempts, priority, type_, timeout, {})


_SIMPLE_FIELDS: Final = frozenset(("id", "payload"))
_SPECIAL_FIELDS: Final = frozenset(
    ("tenant", "delay_seconds", "not_before", "deadline", "depends_on", "idempotency_key")
)


def _special_members(task: TaskRequest, config: QueueConfig, blob: Blob | None) -> dict[str, Any]:
    """What most tasks do not have, in the order that the scripts rely on: tenant, due, delay, blob, chunks first."""
    special: dict[str, Any] = {}
    if task.tenant is not None:
        special["tenant"] = task.tenant
    if task.not_before is not None:
        special["due"] = _epoch_ms(task.not_before)
    elif task.delay_seconds:
        special["delay"] = round(task.delay_seconds * 1000)
    if blob is not None:
        special["blob"], special["chunks"] = blob.name, len(blob.parts)
    if task.deadline is not None:
        special["deadline"] = _epoch_ms(task.deadline)
    elif config.task_ttl_seconds is not None:
        special["ttl"] = round(config.task_ttl_seconds * 1000)
    if task.depends_on:
        special["parents"], special["policy"] = task.depends_on, _POLICY_FLAGS[task.on_parent_failure]
    if task.idempotency_key is not None:
        special["key"] = task.idempotency_key
    return special


def _flags(special: Mapping[str, Any]) -> str:
    if not special:
        return ""
    flags = "t" if "tenant" in special else ""
    flags += "w" if "due" in special or "delay" in special else ""
    flags += "d" if "deadline" in special or "ttl" in special else ""
    flags += "b" if "blob" in special else ""
    return flags + str(special.get("policy", "")) or "k"


def new_blob(data: bytes, config: QueueConfig) -> Blob:
    """Cut something large into chunks."""
    size = config.inline_bytes
    return Blob(os.urandom(8).hex(), [data[at : at + size] for at in range(0, len(data), size)])


def _encode_payload(payload: JsonValue, tasks: Sequence[TaskRequest], index: int) -> bytes:
    try:
        text = orjson.dumps(payload)
    except TypeError as error:
        raise InvalidTaskError(f"{_which(tasks, index)}: its payload is not JSON: {error}", field="payload") from error
    # orjson writes NaN and the infinities as null: other data than what was submitted.
    if b"null" in text and not _finite(payload):
        raise InvalidTaskError(
            f"{_which(tasks, index)}: its payload has a number that is NaN or infinite, which JSON cannot hold",
            field="payload",
        )
    return text


def _finite(value: JsonValue) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return True


def _refuse_twins(tasks: Sequence[TaskRequest], ids: Sequence[str]) -> None:
    """An id may be in a batch twice only if the second task is merged with an earlier one by its idempotency key."""
    seen: set[str] = set()
    keys: set[str] = set()
    for index, (task, task_id) in enumerate(zip(tasks, ids, strict=True)):
        if task_id in seen and task.idempotency_key not in keys:
            raise DuplicateTaskError(f"{_which(tasks, index)}: the id {task_id!r} is in the batch twice")
        seen.add(task_id)
        if task.idempotency_key is not None:
            keys.add(task.idempotency_key)


def _refuse_cycles(tasks: Sequence[TaskRequest], ids: Sequence[str]) -> None:
    """Tasks can only depend on what exists, so a cycle is possible inside a batch only."""
    # Tasks of the same idempotency key are one.
    first_of_key: dict[str, str] = {}
    meant = {
        task_id: task_id if task.idempotency_key is None else first_of_key.setdefault(task.idempotency_key, task_id)
        for task, task_id in zip(tasks, ids, strict=True)
    }
    graph = {
        task_id: {meant[parent] for parent in task.depends_on if parent in meant}
        for task, task_id in zip(tasks, ids, strict=True)
        if meant[task_id] == task_id
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = list(reversed(error.args[1]))
        raise InvalidTaskError(
            f"{_which(tasks, ids.index(cycle[0]))}: its dependencies are a cycle: {' -> '.join(cycle)}",
            field="dependsOn",
        ) from None


def _which(tasks: Sequence[TaskRequest], index: int) -> str:
    named = "" if tasks[index].id is None else f" (id {tasks[index].id!r})"
    return f"the task{named}" if len(tasks) == 1 else f"task {index} of the batch{named}"


def unknown_parent(tasks: Sequence[TaskRequest], index: int, parent: str, queue: str) -> InvalidTaskError:
    """The error for a batch that was refused because a task that one of its tasks depends on does not exist."""
    return InvalidTaskError(
        f"{_which(tasks, index)} depends on {parent!r}, but the queue {queue!r} has no such task: submit it first or "
        "in the same batch; if it was there once, its result has expired",
        field="dependsOn",
    )


def duplicate(tasks: Sequence[TaskRequest], index: int, queue: str) -> DuplicateTaskError:
    """The error for a batch that was refused because the id of one of its tasks is taken."""
    return DuplicateTaskError(
        f"{_which(tasks, index)}: the queue {queue!r} has a task of this id already; nothing was queued"
    )


def decode_claim(record: bytes, *, attempt: int, token: str) -> tuple[Claim, Blob | None]:
    """The attempt of a task that was just claimed, and where its payload is if that is kept beside it.

    Such a blob has no parts yet, but as many empty ones.
    """
    # In JSON a quote inside a string is escaped, so the first `,"payload":` is the member itself.
    cut = record.index(_PAYLOAD)
    task = orjson.loads(record[8:cut] + b"}")  # behind {"task":
    lane = task["lane"]
    claim = Claim(
        task["id"],
        task["type"],
        record[cut + _PAYLOAD_LENGTH : -2],
        task["priority"],
        attempt,
        task["max_attempts"],
        task["timeout"],
        lane[2:] if lane and lane[0] == "a" else None,
        task["at"],
        token,
    )
    if not task["flags"]:
        return claim, None
    special = replace(
        claim, tenant=task.get("tenant"), depends_on=tuple(task.get("parents", ())), deadline_ms=_deadline_ms(task)
    )
    return special, blob_of(task)


def _deadline_ms(task: Mapping[str, Any]) -> int | None:
    if "ttl" in task:
        return int(task["at"] + task["ttl"])
    return task.get("deadline")


def blob_of(document: Mapping[str, Any]) -> Blob | None:
    """Where a payload or a result is, if it is large."""
    return Blob(document["blob"], [b""] * document["chunks"]) if "blob" in document else None


def encode_result(result: bytes, config: QueueConfig) -> tuple[bytes, Blob | None]:
    """The member of an outcome that holds the result, or says where it is."""
    if len(result) <= config.inline_bytes:
        return b'"result":' + result, None
    blob = new_blob(result, config)
    return b'"blob":"%s","chunks":%d' % (blob.name.encode(), len(blob.parts)), blob


def encode_failure(failed: Failed) -> bytes:
    """The members of a failure that the worker knows; the script adds the others."""
    message = failed.message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} … ({len(message) - LONGEST_MESSAGE} more characters)"
    # An error's text may hold anything, such as halves of surrogate pairs from file names.
    clean = [text.encode("utf-8", "backslashreplace").decode() for text in (failed.code, message)]
    return orjson.dumps({"code": clean[0], "message": clean[1]})[1:-1]


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as the `read` script returns it; its payload and result may still be elsewhere."""

    task: dict[str, Any]
    outcome: dict[str, Any] | None
    hold: dict[str, Any] | None
    past: dict[str, Any] | None
    due_ms: float | None
    waits_for: int | None
    progress: dict[str, Any] | None

    @classmethod
    def decode(
        cls,
        record: bytes,
        hold: bytes | None,
        past: bytes | None,
        due: bytes | None,
        waits_for: bytes | None,
        progress: bytes | None,
    ) -> "StoredTask":
        """From its texts."""
        document = orjson.loads(record)

        def optional(text: bytes | None) -> dict[str, Any] | None:
            return None if text is None else orjson.loads(text)

        return cls(
            document["task"],
            document.get("outcome"),
            optional(hold),
            optional(past),
            None if due is None else float(due),
            None if waits_for is None else int(waits_for),
            optional(progress),
        )

    @property
    def payload_blob(self) -> Blob | None:
        """Where the payload is, if it is large."""
        return blob_of(self.task)

    @property
    def result_blob(self) -> Blob | None:
        """Where the result is, if it is large."""
        return None if self.outcome is None else blob_of(self.outcome)

    def record(self, *, queue: str, payload: JsonValue = None, result: JsonValue = None) -> TaskRecord:
        """All that is known about it. `payload` and `result` are given if they were elsewhere."""
        task, lane = self.task, self.task["lane"]
        known = self._situation()
        failures = known.pop("failures")
        if failures and "worker" in failures[-1]:
            known = {"worker": failures[-1]["worker"], "started_at": moment(failures[-1]["started"])} | known
        if result is not None:
            known["result"] = result
        deadline = _deadline_ms(task)
        return TaskRecord(
            id=task["id"],
            queue=queue,
            agent=lane[2:] if lane.startswith("a:") else None,
            capability=lane[2:] if lane.startswith("c:") else None,
            instance=lane[2:] if lane.startswith("i:") else None,
            type=task["type"],
            priority=task["priority"],
            tenant=task.get("tenant"),
            payload=task["payload"] if payload is None else payload,
            depends_on=task.get("parents", []),
            on_parent_failure=_POLICIES[task.get("policy", "f")],
            idempotency_key=task.get("key"),
            deadline=None if deadline is None else moment(deadline),
            max_attempts=task["max_attempts"],
            timeout_seconds=task["timeout"],
            created_at=moment(task["at"]),
            failures=[decode_failure(failure) for failure in failures],
            **known,
        )

    def _situation(self) -> dict[str, Any]:
        """State, attempts and what else depends on where the task is."""
        past = self.past or {"attempts": 0, "replays": 0, "failures": []}
        if self.outcome is not None:
            ending = self.outcome
            known = {
                "state": TaskState(ending["state"]),
                "attempts": ending["attempt"],
                "finished_at": moment(ending["at"]),
                "result": ending.get("result"),
                "failures": ending["failures"],
                "replays": ending.get("replays", 0),
            }
            if "started" in ending:
                known |= {"started_at": moment(ending["started"]), "worker": ending["worker"]}
            return known
        known = {"attempts": past["attempts"], "replays": past["replays"], "failures": past["failures"]}
        if self.hold is not None:
            return known | {
                "state": TaskState.RUNNING,
                "attempts": self.hold["attempt"],
                "started_at": moment(self.hold["started"]),
                "worker": self.hold["worker"],
                "progress": None if self.progress is None else _progress(self.progress),
            }
        if self.waits_for is not None:
            return known | {"state": TaskState.BLOCKED, "waits_for": self.waits_for}
        if self.due_ms is not None:
            return known | {"state": TaskState.SCHEDULED, "due_at": moment(self.due_ms)}
        return known | {"state": TaskState.QUEUED}


def decode_failure(failure: Mapping[str, Any]) -> TaskFailure:
    """An attempt that failed, or why a task ended without one."""
    return TaskFailure(
        code=failure["code"],
        message=failure["message"],
        attempt=int(failure["attempt"]),
        worker=failure.get("worker"),
        at=moment(failure["at"]),
    )


def decode_parent(outcome: Mapping[str, Any], *, result: JsonValue = None) -> ParentOutcome:
    """How a task ended that another one depends on. `result` is given if it was elsewhere."""
    failures = outcome["failures"]
    state = TaskState(outcome["state"])
    return ParentOutcome(
        state=state,
        result=outcome.get("result") if result is None else result,
        failure=decode_failure(failures[-1]) if failures and state is not TaskState.SUCCEEDED else None,
    )


def _progress(progress: Mapping[str, Any]) -> TaskProgress:
    return TaskProgress(fraction=progress["fraction"], message=progress["message"], at=moment(progress["at"]))


def encode_beat(beat: Beat) -> bytes:
    """A heartbeat as it is kept; its time is added by the server."""
    return orjson.dumps(
        {
            "agent": beat.worker.agent,
            "capabilities": beat.worker.capabilities,
            "version": beat.version,
            "concurrency": beat.concurrency,
            "running": beat.running,
            "draining": beat.draining,
            "started": beat.started_at_ms,
            "claimed": beat.claimed_at_ms,
            "succeeded": beat.succeeded,
            "failed": beat.failed,
            "revision": beat.revision,
            "cordoned": beat.cordoned,
        }
    )


def decode_instance(
    instance: bytes, info: bytes, *, beat_ms: float, healthy: bool, queue: str, cordons: bytes = b""
) -> InstanceInfo:
    """An agent process as its last heartbeat described it, which one of an earlier version may have sent."""
    beat = orjson.loads(info)
    claimed_ms = beat.get("claimed")
    return InstanceInfo(
        agent=beat["agent"],
        capabilities=beat["capabilities"],
        instance=instance.decode(),
        queue=queue,
        version=beat["version"],
        concurrency=beat["concurrency"],
        running=beat["running"],
        draining=beat["draining"],
        cordoned=beat.get("cordoned", False),
        cordoned_by=sorted(orjson.loads(cordons)) if cordons else [],
        claimed_at=None if claimed_ms is None else moment(claimed_ms),
        succeeded=beat.get("succeeded", 0),
        failed=beat.get("failed", 0),
        revision=beat.get("revision", ""),
        started_at=moment(beat["started"]),
        last_beat_at=moment(beat_ms),
        healthy=healthy,
    )


def _epoch_ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def json_inside(text: str) -> str:
    """Text as it stands between the quotes of a JSON string."""
    return orjson.dumps(text.encode("utf-8", "backslashreplace").decode()).decode()[1:-1]


def moment(ms: float) -> datetime:
    """A time of the server as datetime, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)
