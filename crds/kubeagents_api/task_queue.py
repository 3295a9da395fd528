# SPDX-License-Identifier: Apache-2.0
"""`TaskQueue`: a durable, prioritised queue of tasks in Redis, with its policies."""

from typing import Annotated, Literal

from pydantic import Field

from kubeagents_api.conditions import Condition
from kubeagents_api.limits import QueueLimits
from kubeagents_api.model import MAP_BY_NAME, SET, ApiModel, Rule, SecretKeyRef
from kubeagents_api.pod import QUANTITY, Resources
from kubeagents_api.schedule import Schedule


class RedisStorage(ApiModel):
    """Where a managed Redis keeps its append-only file."""

    type: Literal["PersistentVolumeClaim", "EmptyDir"] = "PersistentVolumeClaim"
    """PersistentVolumeClaim survives the pod. EmptyDir does not: for trying things out."""
    size: str = Field(default="1Gi", pattern=QUANTITY)
    """Size of the volume."""
    storage_class_name: str | None = None
    """StorageClass of the claim; the cluster's default if unset."""
    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What happens to the claim when the TaskQueue is deleted."""

    rules = (
        Rule(
            cel="self.type == 'PersistentVolumeClaim' || !has(self.storageClassName)",
            message="storageClassName needs type PersistentVolumeClaim: remove it or change the type",
            holds=lambda s: s.type == "PersistentVolumeClaim" or s.storage_class_name is None,
        ),
    )


class ManagedRedis(ApiModel):
    """A Redis that the operator runs for this queue: one pod, append-only file on, a generated password."""

    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Redis or Valkey image with a `redis-server` command; the operator's default if unset."""
    storage: RedisStorage = RedisStorage()
    """Where the append-only file lives."""
    resources: Resources | None = None
    """Compute resources of the container."""


class ExternalRedis(ApiModel):
    """A Redis that somebody else runs."""

    secret_ref: SecretKeyRef
    """The Secret with the URL: `redis://[user:password@]host:port/db` for one server, `redis+sentinel://` with several
    `host:port` and `/master-name` for Sentinel, `redis+cluster://` with several `host:port` for Redis Cluster; with
    `rediss` instead of `redis` for TLS."""


class RedisSource(ApiModel):
    """Which Redis holds the queue: exactly one of the two."""

    managed: ManagedRedis | None = None
    """The operator runs one. `managed: {}` takes all defaults."""
    external: ExternalRedis | None = None
    """Use an existing one."""

    rules = (
        Rule(
            cel="has(self.managed) != has(self.external)",
            message="redis needs exactly one of managed and external",
            holds=lambda s: (s.managed is None) != (s.external is None),
        ),
    )


ErrorName = Annotated[str, Field(min_length=1, max_length=253)]
"""A code, or the name of an exception class."""


class RetryPolicy(ApiModel):
    """What happens after a failed attempt."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts in all, the first one included. A task that has used them up is dead and kept for inspection."""
    initial_seconds: float = Field(default=1.0, ge=0, le=86400)
    """Seconds to wait after the first failed attempt."""
    max_seconds: float = Field(default=300.0, ge=0, le=86400)
    """The longest wait in seconds, jitter not counted."""
    factor: float = Field(default=2.0, ge=1, le=10)
    """By how much each further wait is longer than the one before."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """A wait is longer by a random part of up to this, so that what failed together does not return together."""
    non_retryable_errors: list[ErrorName] = Field(default_factory=list, max_length=100)
    """Errors for which trying again is useless: codes such as `TIMEOUT`, or names of Python exception classes such as
    `ValueError`. A task that fails with one of them fails for good at once."""

    rules = (
        Rule(
            cel="self.initialSeconds <= self.maxSeconds",
            message="retry.initialSeconds must not be greater than retry.maxSeconds",
            holds=lambda s: s.initial_seconds <= s.max_seconds,
        ),
    )


class EventLog(ApiModel):
    """What the queue remembers of what happened in it."""

    keep: int = Field(default=10000, ge=100, le=10000000)
    """About how many entries are kept. Calls that concern many tasks write one entry for up to 100 of them; one takes
    about 100 bytes and 40 more for each task."""


class LargePayloads(ApiModel):
    """How payloads and results that are large are kept."""

    inline_bytes: int = Field(default=131072, ge=1024, le=1048576)
    """Up to this many bytes of JSON are kept within the task. What is larger is kept beside it, in chunks of this
    size, so that it blocks nobody else on its way."""


class BacklogThresholds(ApiModel):
    """From when on the queue counts as backlogged. Without a threshold it never does."""

    max_depth: int | None = Field(default=None, ge=1, le=100000000)
    """How many tasks may wait for a worker."""
    max_age_seconds: float | None = Field(default=None, ge=1, le=31536000)
    """The age in seconds that the oldest waiting task may reach."""


NamespaceGrant = Annotated[str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", min_length=1, max_length=63)]
"""A namespace, or `*` for all."""


class TaskQueueSpec(ApiModel):
    """What a TaskQueue should be."""

    redis: RedisSource = RedisSource(managed=ManagedRedis())
    """Which Redis holds the queue."""
    retry: RetryPolicy = RetryPolicy()
    """What happens after a failed attempt; a task may set its own number of attempts."""
    task_timeout_seconds: float = Field(default=300.0, gt=0, le=604800)
    """Seconds that one attempt may take; a task may set its own."""
    task_ttl_seconds: float | None = Field(default=None, gt=0, le=31536000)
    """Seconds after its submission when a task expires unless it has ended; a task may set its own deadline.
    Without, tasks do not expire."""
    lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    """Seconds after which a task of a worker that has gone silent is given to another. Workers renew the
    lease, so tasks may take longer than this."""
    result_ttl_seconds: int = Field(default=86400, ge=1, le=31536000)
    """Seconds that results are kept."""
    deduplication_seconds: float = Field(default=3600.0, gt=0, le=31536000)
    """Seconds after the submission of a task with an idempotency key in which further ones with the same key are
    merged with it."""
    max_payload_bytes: int = Field(default=1048576, ge=1024, le=67108864)
    """Largest payload of a task, and largest result, in bytes of JSON."""
    large_payloads: LargePayloads = LargePayloads()
    """How payloads and results that are large are kept."""
    limits: QueueLimits = QueueLimits()
    """How many tasks may wait, start and run."""
    schedules: list[Schedule] = Field(default_factory=list, max_length=100, json_schema_extra=MAP_BY_NAME)
    """Tasks that are submitted again and again. A CentralAgent that serves the queue does it, whichever pod leads."""
    events: EventLog = EventLog()
    """What the queue remembers of what happened in it."""
    shards: int = Field(default=1, ge=1, le=64)
    """Into how many parts the queue is cut, which a Redis Cluster spreads over its nodes. Priority and order hold
    inside each part; limits are divided among them. Change it only while the queue is empty."""
    backlog: BacklogThresholds = BacklogThresholds()
    """From when on the condition `Backlogged` is True."""
    allowed_namespaces: list[NamespaceGrant] = Field(default_factory=list, max_length=1000, json_schema_extra=SET)
    """Other namespaces whose Agents and CentralAgents may use this queue; `*` for all. They get the URL of its Redis
    in a Secret of their own namespace."""
    paused: bool = False
    """Whether agents take no tasks from the queue. What runs is finished; new tasks are accepted and wait."""
    closed: bool = False
    """Whether new tasks are refused. What is in the queue is worked off: how to drain a queue before removing it."""

    rules = (
        Rule(
            cel="!has(self.schedules) || self.schedules.all(a, self.schedules.exists_one(b, b.name == a.name))",
            message="schedules has a name twice: give each schedule a name of its own",
            holds=lambda s: len({schedule.name for schedule in s.schedules}) == len(s.schedules),
        ),
    )


class TaskQueueHandled(ApiModel):
    """The values of annotations that have been acted on."""

    replay_dead: str | None = None
    """Of `kubeagents.dev/replayDead`: the tasks that were dead then have been queued again."""


class TaskQueueStatus(ApiModel):
    """What a TaskQueue is."""

    observed_generation: int = -1
    """The `metadata.generation` that this status was computed from; -1 before the operator has seen it."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready, Reconciling, Stalled, Suspended, Accepting, Backlogged, Drained, DeadLettering, Routable, StorageHealthy;
    with schedules SchedulesServed."""
    depth: int | None = None
    """Tasks that wait for a worker, sampled every 15 s."""
    running: int | None = None
    """Tasks that are being worked on."""
    scheduled: int | None = None
    """Tasks that wait for their time."""
    blocked: int | None = None
    """Tasks that wait for the tasks they depend on."""
    unroutable: int | None = None
    """Waiting tasks that no agent of the queue takes, because of the Agent, capability or process that they name."""
    dead: int | None = None
    """Tasks that have used up their attempts."""
    oldest_task_time: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """When the oldest waiting task was submitted; absent when none waits."""
    consumers: int | None = None
    """Agent instances that take tasks from the queue."""
    backend: str | None = None
    """What holds the queue, for example `managed redis 7.4.1`."""
    handled: TaskQueueHandled | None = None
    """What was asked for by annotation and has been done."""
