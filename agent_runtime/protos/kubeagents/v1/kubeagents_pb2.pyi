# SPDX-License-Identifier: Apache-2.0
import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_BLOCKED: _ClassVar[TaskState]
    TASK_STATE_SCHEDULED: _ClassVar[TaskState]
    TASK_STATE_QUEUED: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_SUCCEEDED: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_CANCELLED: _ClassVar[TaskState]
    TASK_STATE_EXPIRED: _ClassVar[TaskState]
    TASK_STATE_DEAD: _ClassVar[TaskState]

class ParentFailurePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARENT_FAILURE_POLICY_UNSPECIFIED: _ClassVar[ParentFailurePolicy]
    PARENT_FAILURE_POLICY_FAIL: _ClassVar[ParentFailurePolicy]
    PARENT_FAILURE_POLICY_SKIP: _ClassVar[ParentFailurePolicy]
    PARENT_FAILURE_POLICY_RUN: _ClassVar[ParentFailurePolicy]
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_BLOCKED: TaskState
TASK_STATE_SCHEDULED: TaskState
TASK_STATE_QUEUED: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_SUCCEEDED: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_CANCELLED: TaskState
TASK_STATE_EXPIRED: TaskState
TASK_STATE_DEAD: TaskState
PARENT_FAILURE_POLICY_UNSPECIFIED: ParentFailurePolicy
PARENT_FAILURE_POLICY_FAIL: ParentFailurePolicy
PARENT_FAILURE_POLICY_SKIP: ParentFailurePolicy
PARENT_FAILURE_POLICY_RUN: ParentFailurePolicy

class NewTask(_message.Message):
    __slots__ = ("id", "queue", "agent", "capability", "instance", "type", "payload_json", "priority", "timeout", "max_attempts", "delay", "not_before", "deadline", "depends_on", "on_parent_failure", "tenant", "idempotency_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    ON_PARENT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    queue: str
    agent: str
    capability: str
    instance: str
    type: str
    payload_json: bytes
    priority: int
    timeout: _duration_pb2.Duration
    max_attempts: int
    delay: _duration_pb2.Duration
    not_before: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    on_parent_failure: ParentFailurePolicy
    tenant: str
    idempotency_key: str
    def __init__(self, id: _Optional[str] = ..., queue: _Optional[str] = ..., agent: _Optional[str] = ..., capability: _Optional[str] = ..., instance: _Optional[str] = ..., type: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., priority: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., depends_on: _Optional[_Iterable[str]] = ..., on_parent_failure: _Optional[_Union[ParentFailurePolicy, str]] = ..., tenant: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("task", "deadline_from_call")
    TASK_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FROM_CALL_FIELD_NUMBER: _ClassVar[int]
    task: NewTask
    deadline_from_call: bool
    def __init__(self, task: _Optional[_Union[NewTask, _Mapping]] = ..., deadline_from_call: _Optional[bool] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("id", "queue", "state", "merged")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    id: str
    queue: str
    state: TaskState
    merged: bool
    def __init__(self, id: _Optional[str] = ..., queue: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., merged: _Optional[bool] = ...) -> None: ...

class SubmitBatchRequest(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[NewTask]
    def __init__(self, tasks: _Optional[_Iterable[_Union[NewTask, _Mapping]]] = ...) -> None: ...

class SubmitBatchResponse(_message.Message):
    __slots__ = ("ids", "queue", "merged")
    IDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    queue: str
    merged: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., queue: _Optional[str] = ..., merged: _Optional[_Iterable[str]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: NewTask
    def __init__(self, task: _Optional[_Union[NewTask, _Mapping]] = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("queue", "id")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    queue: str
    id: str
    def __init__(self, queue: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class ResultRequest(_message.Message):
    __slots__ = ("queue", "id", "wait")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    id: str
    wait: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., id: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ResultsRequest(_message.Message):
    __slots__ = ("queue", "ids", "wait")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    wait: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ResultsResponse(_message.Message):
    __slots__ = ("tasks", "pending")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    pending: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., pending: _Optional[_Iterable[str]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("queue", "ids", "reason", "by")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    by: str
    def __init__(self, queue: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ("tasks",)
    class Cancelled(_message.Message):
        __slots__ = ("id", "state")
        ID_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        id: str
        state: TaskState
        def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ...) -> None: ...
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[CancelResponse.Cancelled]
    def __init__(self, tasks: _Optional[_Iterable[_Union[CancelResponse.Cancelled, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("queue", "id", "after")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    id: str
    after: str
    def __init__(self, queue: _Optional[str] = ..., id: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("item", "end")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    item: StreamItem
    end: StreamEnd
    def __init__(self, item: _Optional[_Union[StreamItem, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ...) -> None: ...

class StreamItem(_message.Message):
    __slots__ = ("offset", "attempt", "at", "kind", "data_json")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[StreamItem.Kind]
        KIND_PROGRESS: _ClassVar[StreamItem.Kind]
        KIND_PARTIAL: _ClassVar[StreamItem.Kind]
        KIND_GAP: _ClassVar[StreamItem.Kind]
    KIND_UNSPECIFIED: StreamItem.Kind
    KIND_PROGRESS: StreamItem.Kind
    KIND_PARTIAL: StreamItem.Kind
    KIND_GAP: StreamItem.Kind
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    offset: str
    attempt: int
    at: _timestamp_pb2.Timestamp
    kind: StreamItem.Kind
    data_json: bytes
    def __init__(self, offset: _Optional[str] = ..., attempt: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[StreamItem.Kind, str]] = ..., data_json: _Optional[bytes] = ...) -> None: ...

class StreamEnd(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: TaskState
    def __init__(self, state: _Optional[_Union[TaskState, str]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "queue", "state", "agent", "capability", "instance", "type", "priority", "tenant", "payload_json", "depends_on", "waits_for", "on_parent_failure", "idempotency_key", "deadline", "attempts", "max_attempts", "timeout", "created_at", "due_at", "progress", "started_at", "finished_at", "worker", "result_json", "failures", "replays")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    ON_PARENT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    REPLAYS_FIELD_NUMBER: _ClassVar[int]
    id: str
    queue: str
    state: TaskState
    agent: str
    capability: str
    instance: str
    type: str
    priority: int
    tenant: str
    payload_json: bytes
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    waits_for: int
    on_parent_failure: ParentFailurePolicy
    idempotency_key: str
    deadline: _timestamp_pb2.Timestamp
    attempts: int
    max_attempts: int
    timeout: _duration_pb2.Duration
    created_at: _timestamp_pb2.Timestamp
    due_at: _timestamp_pb2.Timestamp
    progress: TaskProgress
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    worker: str
    result_json: bytes
    failures: _containers.RepeatedCompositeFieldContainer[TaskFailure]
    replays: int
    def __init__(self, id: _Optional[str] = ..., queue: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., agent: _Optional[str] = ..., capability: _Optional[str] = ..., instance: _Optional[str] = ..., type: _Optional[str] = ..., priority: _Optional[int] = ..., tenant: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., depends_on: _Optional[_Iterable[str]] = ..., waits_for: _Optional[int] = ..., on_parent_failure: _Optional[_Union[ParentFailurePolicy, str]] = ..., idempotency_key: _Optional[str] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[int] = ..., max_attempts: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., due_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., progress: _Optional[_Union[TaskProgress, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., worker: _Optional[str] = ..., result_json: _Optional[bytes] = ..., failures: _Optional[_Iterable[_Union[TaskFailure, _Mapping]]] = ..., replays: _Optional[int] = ...) -> None: ...

class TaskProgress(_message.Message):
    __slots__ = ("fraction", "message", "at")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    message: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, fraction: _Optional[float] = ..., message: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TaskFailure(_message.Message):
    __slots__ = ("code", "message", "attempt", "worker", "at")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    attempt: int
    worker: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., attempt: _Optional[int] = ..., worker: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[QueueStats]
    def __init__(self, queues: _Optional[_Iterable[_Union[QueueStats, _Mapping]]] = ...) -> None: ...

class QueueStats(_message.Message):
    __slots__ = ("queue", "queued", "running", "scheduled", "dead", "blocked", "unroutable", "unroutable_targets", "waiting", "waiting_since", "submitted_total", "succeeded_total", "failed_total", "cancelled_total", "expired_total", "oldest_at", "oldest_age", "paused_by", "closed_by")
    class UnroutableTargetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class WaitingEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class WaitingSinceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _timestamp_pb2.Timestamp
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    UNROUTABLE_FIELD_NUMBER: _ClassVar[int]
    UNROUTABLE_TARGETS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WAITING_SINCE_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_BY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    queued: int
    running: int
    scheduled: int
    dead: int
    blocked: int
    unroutable: int
    unroutable_targets: _containers.ScalarMap[str, int]
    waiting: _containers.ScalarMap[str, int]
    waiting_since: _containers.MessageMap[str, _timestamp_pb2.Timestamp]
    submitted_total: int
    succeeded_total: int
    failed_total: int
    cancelled_total: int
    expired_total: int
    oldest_at: _timestamp_pb2.Timestamp
    oldest_age: _duration_pb2.Duration
    paused_by: _containers.RepeatedScalarFieldContainer[str]
    closed_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queue: _Optional[str] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., scheduled: _Optional[int] = ..., dead: _Optional[int] = ..., blocked: _Optional[int] = ..., unroutable: _Optional[int] = ..., unroutable_targets: _Optional[_Mapping[str, int]] = ..., waiting: _Optional[_Mapping[str, int]] = ..., waiting_since: _Optional[_Mapping[str, _timestamp_pb2.Timestamp]] = ..., submitted_total: _Optional[int] = ..., succeeded_total: _Optional[int] = ..., failed_total: _Optional[int] = ..., cancelled_total: _Optional[int] = ..., expired_total: _Optional[int] = ..., oldest_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., oldest_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., paused_by: _Optional[_Iterable[str]] = ..., closed_by: _Optional[_Iterable[str]] = ...) -> None: ...

class AgentsRequest(_message.Message):
    __slots__ = ("queue", "agent")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    agent: str
    def __init__(self, queue: _Optional[str] = ..., agent: _Optional[str] = ...) -> None: ...

class AgentsResponse(_message.Message):
    __slots__ = ("instances",)
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[AgentInstance]
    def __init__(self, instances: _Optional[_Iterable[_Union[AgentInstance, _Mapping]]] = ...) -> None: ...

class AgentInstance(_message.Message):
    __slots__ = ("agent", "capabilities", "instance", "queue", "version", "concurrency", "running", "draining", "cordoned", "cordoned_by", "claimed_at", "succeeded", "failed", "revision", "started_at", "last_beat_at", "healthy")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    CORDONED_BY_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_AT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_BEAT_AT_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    agent: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    instance: str
    queue: str
    version: str
    concurrency: int
    running: int
    draining: bool
    cordoned: bool
    cordoned_by: _containers.RepeatedScalarFieldContainer[str]
    claimed_at: _timestamp_pb2.Timestamp
    succeeded: int
    failed: int
    revision: str
    started_at: _timestamp_pb2.Timestamp
    last_beat_at: _timestamp_pb2.Timestamp
    healthy: bool
    def __init__(self, agent: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., instance: _Optional[str] = ..., queue: _Optional[str] = ..., version: _Optional[str] = ..., concurrency: _Optional[int] = ..., running: _Optional[int] = ..., draining: _Optional[bool] = ..., cordoned: _Optional[bool] = ..., cordoned_by: _Optional[_Iterable[str]] = ..., claimed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., revision: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_beat_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., healthy: _Optional[bool] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("queue", "after")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    after: str
    def __init__(self, queue: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class TaskEvent(_message.Message):
    __slots__ = ("offset", "at", "kind", "task", "attempt", "took", "by")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    offset: str
    at: _timestamp_pb2.Timestamp
    kind: str
    task: str
    attempt: int
    took: _duration_pb2.Duration
    by: str
    def __init__(self, offset: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., by: _Optional[str] = ...) -> None: ...

class DeadFilter(_message.Message):
    __slots__ = ("ids", "type", "agent", "tenant", "code", "worker", "before", "after")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    type: str
    agent: str
    tenant: str
    code: str
    worker: str
    before: _timestamp_pb2.Timestamp
    after: _timestamp_pb2.Timestamp
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., type: _Optional[str] = ..., agent: _Optional[str] = ..., tenant: _Optional[str] = ..., code: _Optional[str] = ..., worker: _Optional[str] = ..., before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeadRequest(_message.Message):
    __slots__ = ("queue", "filter", "limit", "cursor")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    queue: str
    filter: DeadFilter
    limit: int
    cursor: str
    def __init__(self, queue: _Optional[str] = ..., filter: _Optional[_Union[DeadFilter, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class DeadResponse(_message.Message):
    __slots__ = ("tasks", "next")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    next: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class DeadSelection(_message.Message):
    __slots__ = ("queue", "filter", "all", "by")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    filter: DeadFilter
    all: bool
    by: str
    def __init__(self, queue: _Optional[str] = ..., filter: _Optional[_Union[DeadFilter, _Mapping]] = ..., all: _Optional[bool] = ..., by: _Optional[str] = ...) -> None: ...

class TaskIds(_message.Message):
    __slots__ = ("queue", "ids")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queue: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GateRequest(_message.Message):
    __slots__ = ("queue", "by")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    by: str
    def __init__(self, queue: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class Gates(_message.Message):
    __slots__ = ("queue", "paused_by", "closed_by")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_BY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    paused_by: _containers.RepeatedScalarFieldContainer[str]
    closed_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queue: _Optional[str] = ..., paused_by: _Optional[_Iterable[str]] = ..., closed_by: _Optional[_Iterable[str]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("agent", "instance", "capabilities")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    agent: str
    instance: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent: _Optional[str] = ..., instance: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("queue", "worker")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("queue", "namespace", "lease", "agent_timeout", "max_payload_bytes")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    AGENT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    queue: str
    namespace: str
    lease: _duration_pb2.Duration
    agent_timeout: _duration_pb2.Duration
    max_payload_bytes: int
    def __init__(self, queue: _Optional[str] = ..., namespace: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., agent_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_payload_bytes: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("queue", "worker", "version", "concurrency", "running", "draining", "started_at", "claimed_at", "succeeded", "failed", "revision", "cordoned", "interface_json")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_AT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_JSON_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    version: str
    concurrency: int
    running: int
    draining: bool
    started_at: _timestamp_pb2.Timestamp
    claimed_at: _timestamp_pb2.Timestamp
    succeeded: int
    failed: int
    revision: str
    cordoned: bool
    interface_json: bytes
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ..., version: _Optional[str] = ..., concurrency: _Optional[int] = ..., running: _Optional[int] = ..., draining: _Optional[bool] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., claimed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., revision: _Optional[str] = ..., cordoned: _Optional[bool] = ..., interface_json: _Optional[bytes] = ...) -> None: ...

class Orders(_message.Message):
    __slots__ = ("cordoned",)
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    cordoned: bool
    def __init__(self, cordoned: _Optional[bool] = ...) -> None: ...

class NextTaskRequest(_message.Message):
    __slots__ = ("queue", "worker", "credit")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    credit: int
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ..., credit: _Optional[int] = ...) -> None: ...

class ClaimRequest(_message.Message):
    __slots__ = ("queue", "worker", "limit", "wait")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    limit: int
    wait: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ..., limit: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ClaimResponse(_message.Message):
    __slots__ = ("claims",)
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    claims: _containers.RepeatedCompositeFieldContainer[ClaimedTask]
    def __init__(self, claims: _Optional[_Iterable[_Union[ClaimedTask, _Mapping]]] = ...) -> None: ...

class ClaimedTask(_message.Message):
    __slots__ = ("claim", "type", "payload_json", "priority", "agent", "created_at", "tenant", "depends_on", "deadline")
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    claim: ClaimRef
    type: str
    payload_json: bytes
    priority: int
    agent: str
    created_at: _timestamp_pb2.Timestamp
    tenant: str
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    deadline: _timestamp_pb2.Timestamp
    def __init__(self, claim: _Optional[_Union[ClaimRef, _Mapping]] = ..., type: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., priority: _Optional[int] = ..., agent: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., depends_on: _Optional[_Iterable[str]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ClaimRef(_message.Message):
    __slots__ = ("id", "token", "attempt", "max_attempts", "timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    token: str
    attempt: int
    max_attempts: int
    timeout: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., token: _Optional[str] = ..., attempt: _Optional[int] = ..., max_attempts: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("queue", "claims")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    claims: _containers.RepeatedCompositeFieldContainer[ClaimRef]
    def __init__(self, queue: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[ClaimRef, _Mapping]]] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("lost",)
    LOST_FIELD_NUMBER: _ClassVar[int]
    lost: _containers.RepeatedCompositeFieldContainer[ClaimRef]
    def __init__(self, lost: _Optional[_Iterable[_Union[ClaimRef, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("claim", "result_json", "failure")
    class Failure(_message.Message):
        __slots__ = ("code", "message", "permanent", "delay")
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        PERMANENT_FIELD_NUMBER: _ClassVar[int]
        DELAY_FIELD_NUMBER: _ClassVar[int]
        code: str
        message: str
        permanent: bool
        delay: _duration_pb2.Duration
        def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., permanent: _Optional[bool] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    claim: ClaimRef
    result_json: bytes
    failure: Outcome.Failure
    def __init__(self, claim: _Optional[_Union[ClaimRef, _Mapping]] = ..., result_json: _Optional[bytes] = ..., failure: _Optional[_Union[Outcome.Failure, _Mapping]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("queue", "outcomes")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    queue: str
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, queue: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, held: _Optional[_Iterable[bool]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("queue", "claims")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    claims: _containers.RepeatedCompositeFieldContainer[ClaimRef]
    def __init__(self, queue: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[ClaimRef, _Mapping]]] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EmitRequest(_message.Message):
    __slots__ = ("queue", "claim", "items")
    class Progress(_message.Message):
        __slots__ = ("fraction", "message")
        FRACTION_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        fraction: float
        message: str
        def __init__(self, fraction: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...
    class Item(_message.Message):
        __slots__ = ("progress", "partial_json")
        PROGRESS_FIELD_NUMBER: _ClassVar[int]
        PARTIAL_JSON_FIELD_NUMBER: _ClassVar[int]
        progress: EmitRequest.Progress
        partial_json: bytes
        def __init__(self, progress: _Optional[_Union[EmitRequest.Progress, _Mapping]] = ..., partial_json: _Optional[bytes] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    claim: ClaimRef
    items: _containers.RepeatedCompositeFieldContainer[EmitRequest.Item]
    def __init__(self, queue: _Optional[str] = ..., claim: _Optional[_Union[ClaimRef, _Mapping]] = ..., items: _Optional[_Iterable[_Union[EmitRequest.Item, _Mapping]]] = ...) -> None: ...

class EmitResponse(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: bool
    def __init__(self, held: _Optional[bool] = ...) -> None: ...

class ParentsRequest(_message.Message):
    __slots__ = ("queue", "claim")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    queue: str
    claim: ClaimRef
    def __init__(self, queue: _Optional[str] = ..., claim: _Optional[_Union[ClaimRef, _Mapping]] = ...) -> None: ...

class ParentsResponse(_message.Message):
    __slots__ = ("parents",)
    class Parent(_message.Message):
        __slots__ = ("state", "result_json", "failure")
        STATE_FIELD_NUMBER: _ClassVar[int]
        RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
        FAILURE_FIELD_NUMBER: _ClassVar[int]
        state: TaskState
        result_json: bytes
        failure: TaskFailure
        def __init__(self, state: _Optional[_Union[TaskState, str]] = ..., result_json: _Optional[bytes] = ..., failure: _Optional[_Union[TaskFailure, _Mapping]] = ...) -> None: ...
    class ParentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParentsResponse.Parent
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParentsResponse.Parent, _Mapping]] = ...) -> None: ...
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    parents: _containers.MessageMap[str, ParentsResponse.Parent]
    def __init__(self, parents: _Optional[_Mapping[str, ParentsResponse.Parent]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("queue", "worker")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ...) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokedRequest(_message.Message):
    __slots__ = ("queue", "worker")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ...) -> None: ...

class RevokedResponse(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamMessagesRequest(_message.Message):
    __slots__ = ("queue", "worker", "credit", "send", "settle")
    class Send(_message.Message):
        __slots__ = ("number", "to", "payload_json", "id")
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        TO_FIELD_NUMBER: _ClassVar[int]
        PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        number: int
        to: str
        payload_json: bytes
        id: str
        def __init__(self, number: _Optional[int] = ..., to: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., id: _Optional[str] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    worker: Worker
    credit: int
    send: StreamMessagesRequest.Send
    settle: Outcome
    def __init__(self, queue: _Optional[str] = ..., worker: _Optional[_Union[Worker, _Mapping]] = ..., credit: _Optional[int] = ..., send: _Optional[_Union[StreamMessagesRequest.Send, _Mapping]] = ..., settle: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class StreamMessagesResponse(_message.Message):
    __slots__ = ("received", "sent", "settled")
    class Sent(_message.Message):
        __slots__ = ("number", "id", "fault")
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        FAULT_FIELD_NUMBER: _ClassVar[int]
        number: int
        id: str
        fault: Fault
        def __init__(self, number: _Optional[int] = ..., id: _Optional[str] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...
    class Settled(_message.Message):
        __slots__ = ("id", "held", "fault")
        ID_FIELD_NUMBER: _ClassVar[int]
        HELD_FIELD_NUMBER: _ClassVar[int]
        FAULT_FIELD_NUMBER: _ClassVar[int]
        id: str
        held: bool
        fault: Fault
        def __init__(self, id: _Optional[str] = ..., held: _Optional[bool] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    received: ClaimedTask
    sent: StreamMessagesResponse.Sent
    settled: StreamMessagesResponse.Settled
    def __init__(self, received: _Optional[_Union[ClaimedTask, _Mapping]] = ..., sent: _Optional[_Union[StreamMessagesResponse.Sent, _Mapping]] = ..., settled: _Optional[_Union[StreamMessagesResponse.Settled, _Mapping]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "message", "field", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    field: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
