# SPDX-License-Identifier: Apache-2.0
"""Tasks as text: what is written to Redis, and what is made of it when it is read.

A record is one JSON object. Its first members have a fixed form that the Lua scripts rely on (`at`, `nonce`,
`max_attempts`, `agent`; the scripts add the first two), and `payload` is the last, so that a claim cuts it out without
decoding it. Nothing here talks to Redis.
"""

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import JsonValue

from agent_runtime.queue.base import Beat, Claim, Failed
from kubeagents_api.errors import DuplicateTaskError, InvalidTaskError, PayloadTooLargeError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import InstanceInfo, TaskFailure, TaskRecord, TaskRequest, TaskState

log = logging.getLogger(__name__)

LONGEST_MESSAGE: Final = 4096
"""Characters of a failure's message that are kept. A task keeps up to 100 failures."""
_PAYLOAD: Final = b',"payload":'


@dataclass(frozen=True, slots=True)
class EncodedTask:
    """A task that is ready to be submitted."""

    id: str
    priority: int
    agent: str
    text: bytes


def new_ids(count: int) -> list[str]:
    """Ids that are unique everywhere and sort by the time of their making, to the millisecond."""
    now = f"{int(time.time() * 1000):012x}"
    noise = os.urandom(10 * count).hex()
    return [now + noise[at : at + 20] for at in range(0, 20 * count, 20)]


def encode_tasks(tasks: Sequence[TaskRequest], config: QueueConfig) -> list[EncodedTask]:
    """All tasks of a batch as they are sent. Raises InvalidTaskError and its kinds; names the first bad task."""
    made_up = iter(new_ids(sum(task.id is None for task in tasks)))
    seen: set[str] = set()
    encoded = []
    for index, task in enumerate(tasks):
        task_id = next(made_up) if task.id is None else task.id
        if task_id in seen:
            raise DuplicateTaskError(f"{_which(tasks, index)}: the id {task_id!r} is in the batch twice")
        seen.add(task_id)
        encoded.append(_encode_task(task, task_id, config, which=(tasks, index)))
    return encoded


def _encode_task(
    task: TaskRequest, task_id: str, config: QueueConfig, *, which: tuple[Sequence[TaskRequest], int]
) -> EncodedTask:
    if task.queue is not None and task.queue != config.name:
        raise InvalidTaskError(
            f"{_which(*which)} is for queue {task.queue!r}, but this is queue {config.name!r}", field="queue"
        )
    payload = _encode_payload(task.payload, which)
    if len(payload) > config.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{_which(*which)}: its payload has {len(payload)} bytes as JSON, the queue {config.name!r} takes at most "
            f"{config.max_payload_bytes} (spec.maxPayloadBytes): send a reference to the data instead"
        )
    agent = task.agent or ""
    try:
        head = orjson.dumps(
            {
                "max_attempts": task.max_attempts or config.retry.max_attempts,
                "agent": agent,
                "id": task_id,
                "type": task.type,
                "priority": task.priority,
                "timeout": task.timeout_seconds or config.task_timeout_seconds,
            }
        )
    except TypeError as error:
        raise InvalidTaskError(
            f"{_which(*which)}: its type is not text that JSON can hold: {error}", field="type"
        ) from error
    return EncodedTask(task_id, task.priority, agent, head[1:-1] + _PAYLOAD + payload + b"}}")


def _encode_payload(payload: JsonValue, which: tuple[Sequence[TaskRequest], int]) -> bytes:
    try:
        text = orjson.dumps(payload)
    except TypeError as error:
        raise InvalidTaskError(f"{_which(*which)}: its payload is not JSON: {error}", field="payload") from error
    # orjson writes NaN and the infinities as null: other data than what was submitted.
    if b"null" in text and not _finite(payload):
        raise InvalidTaskError(
            f"{_which(*which)}: its payload has a number that is NaN or infinite, which JSON cannot hold",
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


def _which(tasks: Sequence[TaskRequest], index: int) -> str:
    named = "" if tasks[index].id is None else f" (id {tasks[index].id!r})"
    return f"the task{named}" if len(tasks) == 1 else f"task {index} of the batch{named}"


def duplicate(tasks: Sequence[TaskRequest], index: int, queue: str) -> DuplicateTaskError:
    """The error for a batch that was refused because the id of one of its tasks is taken."""
    return DuplicateTaskError(
        f"{_which(tasks, index)}: the queue {queue!r} has a task of this id already; nothing was queued"
    )


def decode_claim(record: bytes, *, attempt: int, token: str) -> Claim:
    """The attempt of a task that was just claimed."""
    # In JSON a quote inside a string is escaped, so the first `,"payload":` is the member itself.
    cut = record.index(_PAYLOAD)
    task = orjson.loads(record[8:cut] + b"}")  # behind {"task":
    return Claim(
        id=task["id"],
        type=task["type"],
        payload=record[cut + len(_PAYLOAD) : -2],
        priority=task["priority"],
        attempt=attempt,
        max_attempts=task["max_attempts"],
        timeout_seconds=task["timeout"],
        agent=task["agent"] or None,
        created_at_ms=task["at"],
        token=token,
    )


def encode_failure(failed: Failed) -> bytes:
    """The members of a failure that the worker knows; the script adds the others."""
    message = failed.message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} … ({len(message) - LONGEST_MESSAGE} more characters)"
    # An error's text may hold anything, such as halves of surrogate pairs from file names.
    clean = [text.encode("utf-8", "backslashreplace").decode() for text in (failed.code, message)]
    return orjson.dumps({"code": clean[0], "message": clean[1]})[1:-1]


def decode_record(
    record: bytes, hold: bytes | None, past: bytes | None, due: bytes | None, *, queue: str
) -> TaskRecord:
    """All that is known about a task. The arguments are what the `read` script returns for it."""
    document = orjson.loads(record)
    task, outcome = document["task"], document.get("outcome")
    known: dict[str, Any] = {}
    failures: list[dict[str, Any]] = []
    if past is not None:
        history = orjson.loads(past)
        failures = history["failures"]
        known["attempts"] = history["attempts"]
    if outcome is not None:
        failures = outcome["failures"]
        known |= {
            "state": TaskState(outcome["state"]),
            "attempts": outcome["attempt"],
            "started_at": moment(outcome["started"]),
            "finished_at": moment(outcome["at"]),
            "worker": outcome["worker"],
            "result": outcome.get("result"),
        }
    elif hold is not None:
        running = orjson.loads(hold)
        known |= {
            "state": TaskState.RUNNING,
            "attempts": running["attempt"],
            "started_at": moment(running["started"]),
            "worker": running["worker"],
        }
    elif due is not None:
        known |= {"state": TaskState.SCHEDULED, "due_at": moment(float(due))}
    else:
        known["state"] = TaskState.QUEUED
    if failures:
        known = {"worker": failures[-1]["worker"], "started_at": moment(failures[-1]["started"])} | known
    return TaskRecord(
        id=task["id"],
        queue=queue,
        agent=task["agent"] or None,
        type=task["type"],
        priority=task["priority"],
        payload=task["payload"],
        max_attempts=task["max_attempts"],
        timeout_seconds=task["timeout"],
        created_at=moment(task["at"]),
        failures=[
            TaskFailure(
                code=failure["code"],
                message=failure["message"],
                attempt=failure["attempt"],
                worker=failure["worker"],
                at=moment(failure["at"]),
            )
            for failure in failures
        ],
        **known,
    )


def encode_beat(beat: Beat) -> bytes:
    """A heartbeat as it is kept; its time is added by the server."""
    return orjson.dumps(
        {
            "agent": beat.worker.agent,
            "version": beat.version,
            "concurrency": beat.concurrency,
            "running": beat.running,
            "draining": beat.draining,
            "started": beat.started_at_ms,
        }
    )


def decode_instance(instance: bytes, info: bytes, *, beat_ms: float, healthy: bool, queue: str) -> InstanceInfo:
    """An agent process as its last heartbeat described it."""
    beat = orjson.loads(info)
    return InstanceInfo(
        agent=beat["agent"],
        instance=instance.decode(),
        queue=queue,
        version=beat["version"],
        concurrency=beat["concurrency"],
        running=beat["running"],
        draining=beat["draining"],
        started_at=moment(beat["started"]),
        last_beat_at=moment(beat_ms),
        healthy=healthy,
    )


def moment(ms: float) -> datetime:
    """A time of the server as datetime, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)
