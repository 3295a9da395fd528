# SPDX-License-Identifier: Apache-2.0
"""Condition types and reasons. Both are API: people and tools match on them, so they are only ever added to."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from kubeagents_api.model import ApiModel


class ConditionType(StrEnum):
    """What a condition says when its status is `True`.

    `Reconciling` and `Stalled` are abnormal-true as kstatus wants them: they are never both True, and `Ready` is
    not True while either is.
    """

    READY = "Ready"
    """The object does its job: its children are up to date and available, and what it depends on is reachable."""
    RECONCILING = "Reconciling"
    """The object is on its way to what its spec says."""
    STALLED = "Stalled"
    """The object cannot get there without somebody's help; the message says what to do."""
    AVAILABLE = "Available"
    """Agent, CentralAgent: at least one replica is ready (or none is wanted)."""
    HEARTBEAT_HEALTHY = "HeartbeatHealthy"
    """Agent: every ready replica has sent a heartbeat to its queue recently."""
    CONSUMING = "Consuming"
    """Agent: every ready replica really takes tasks: the queue has answered its claims recently."""
    AUTOSCALED = "Autoscaled"
    """Agent with `spec.autoscaling`: the operator decides how many replicas there are; the message says by what."""
    CANARY_HEALTHY = "CanaryHealthy"
    """Agent with `spec.rollout`: the newest version does its tasks well, or none is being tried. False: it was taken
    back."""
    QUEUE_CONNECTED = "QueueConnected"
    """Agent, CentralAgent: the queue it names exists and its Redis answers."""
    SCALED_TO_ZERO = "ScaledToZero"
    """Agent: no replica is wanted; tasks can still be submitted and wait."""
    LEADER_ELECTED = "LeaderElected"
    """CentralAgent: one of its pods holds an unexpired Lease."""
    SUSPENDED = "Suspended"
    """All kinds (abnormal): put to rest. Agent, CentralAgent: by `spec.suspend`. TaskQueue: agents take no tasks,
    because somebody, or `spec.paused`, has paused the queue."""
    ACCEPTING = "Accepting"
    """TaskQueue: tasks can be submitted."""
    BACKLOGGED = "Backlogged"
    """TaskQueue (abnormal): more tasks wait, or one waits for longer, than `spec.backlog` allows."""
    DRAINED = "Drained"
    """TaskQueue: nothing is queued, scheduled, blocked or running."""
    DEAD_LETTERING = "DeadLettering"
    """TaskQueue (abnormal): there are dead tasks."""
    ROUTABLE = "Routable"
    """TaskQueue: there is an Agent of the queue, be it scaled to zero, for every waiting task."""
    SCHEDULES_SERVED = "SchedulesServed"
    """TaskQueue with schedules: a CentralAgent serves the queue, so that they fire."""
    STORAGE_HEALTHY = "StorageHealthy"
    """TaskQueue: Redis keeps what it acknowledged: no eviction of keys, append-only file on."""


class Reason(StrEnum):
    """Why a condition is as it is. CamelCase, stable."""

    # Good
    AVAILABLE = "Available"
    """Everything that the spec asks for is up."""
    SCALED_TO_ZERO = "ScaledToZero"
    """No replica is wanted: `spec.replicas` is 0, or the autoscaler finds nothing to do."""
    CONNECTED = "Connected"
    """Redis answers."""
    HEARTBEATS_FRESH = "HeartbeatsFresh"
    """Every ready replica has sent a heartbeat recently."""
    LEASE_HELD = "LeaseHeld"
    """One pod holds the Lease and renews it."""
    EMPTY = "Empty"
    """Nothing waits and nothing runs."""
    DURABLE = "Durable"
    """Redis runs with `maxmemory-policy noeviction` and an append-only file."""
    NO_DEAD_TASKS = "NoDeadTasks"
    """No task has used up its attempts."""
    ACTIVE = "Active"
    """Not put to rest: agents take tasks."""
    PAUSED = "Paused"
    """Agents take no tasks: `spec.paused`, or somebody, wants it so. The message names who."""
    CLOSED = "Closed"
    """New tasks are refused: `spec.closed`, or somebody, wants it so. The message names who."""
    TASKS_ROUTABLE = "TasksRoutable"
    """Each waiting task is for an Agent that there is."""
    SPEC_SUSPENDED = "SpecSuspended"
    """`spec.suspend` is set."""
    CONSUMING = "Consuming"
    """The queue answers the claims of every ready replica."""
    AUTOSCALED = "Autoscaled"
    """The operator decides how many replicas there are."""
    WITHIN_THRESHOLDS = "WithinThresholds"
    """No more tasks wait, and none for longer, than `spec.backlog` allows."""
    NO_CANARY = "NoCanary"
    """All replicas run the same version, and none is being tried."""
    CANARY_RUNNING = "CanaryRunning"
    """A new version is being tried on a part of the replicas."""
    CANARY_WAITING = "CanaryWaiting"
    """A step of a rollout waits for somebody to promote it by the annotation `kubeagents.dev/promote`."""
    SERVED = "Served"
    """A CentralAgent has the queue in `spec.queueRefs`."""

    # On the way
    ROLLING_OUT = "RollingOut"
    """Pods are being created or replaced."""
    DEPENDENCY_NOT_FOUND = "DependencyNotFound"
    """An object that the spec names does not exist (yet)."""
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    """An object that the spec names exists but is not ready."""
    REFERENCE_NOT_GRANTED = "ReferenceNotGranted"
    """A TaskQueue of another namespace does not name ours in `spec.allowedNamespaces`."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes a pod; the message has the scheduler's words."""
    COLD_STARTING = "ColdStarting"
    """A task waits, and the first replica for it is being started."""
    SCALING_DEFERRED_BUSY = "ScalingDeferredBusy"
    """Replicas that are to go still work on tasks; they take no new ones and go when they have finished."""
    CONSUMER_STALLED = "ConsumerStalled"
    """A ready replica has not been answered by the queue for some time: it takes no tasks."""
    DEPTH_ABOVE_THRESHOLD = "DepthAboveThreshold"
    """More tasks wait than `spec.backlog.maxDepth` allows."""
    OLDEST_TASK_TOO_OLD = "OldestTaskTooOld"
    """The oldest waiting task is older than `spec.backlog.maxAgeSeconds` allows."""
    LEASE_EXPIRED = "LeaseExpired"
    """Nobody has renewed the Lease within its duration."""
    TASKS_PENDING = "TasksPending"
    """Tasks are queued, scheduled, blocked or running."""
    HEARTBEAT_MISSED = "HeartbeatMissed"
    """A ready replica has not sent a heartbeat recently."""
    NOT_REQUIRED = "NotRequired"
    """The condition does not apply while no replica is wanted."""

    # Needs help
    INVALID_SPEC = "InvalidSpec"
    """The API server accepted the object, but the operator cannot make sense of it: the schema is of another version,
    or a schedule has a time zone or a cron field that does not exist."""
    HANDLER_NOT_FOUND = "HandlerNotFound"
    """`spec.handler` could not be imported; the message has the import error."""
    RUNTIME_CONFIG_INVALID = "RuntimeConfigInvalid"
    """The runtime in the pod refused its configuration (an image of another version?)."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The image cannot be pulled."""
    CRASH_LOOP = "CrashLoop"
    """The container keeps exiting."""
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    """The container cannot be created, for example because a Secret of `env` is missing."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """The rollout has not got on within `spec.progressDeadlineSeconds`."""
    CREATE_FORBIDDEN = "CreateForbidden"
    """The API server refused a child object (admission, permissions); the message has its answer."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota, or the operator's quota for the namespace, does not allow more."""
    CANARY_FAILED = "CanaryFailed"
    """The new version failed and was taken back; the version of before serves on."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    """A Secret that the spec names, or the key in it, does not exist."""
    REDIS_URL_INVALID = "RedisUrlInvalid"
    """The Secret's value is no URL of a Redis."""
    REDIS_UNREACHABLE = "RedisUnreachable"
    """Redis does not answer at the address."""
    REDIS_AUTH_FAILED = "RedisAuthFailed"
    """Redis answers, but refuses the user or password."""
    EVICTION_POLICY_UNSAFE = "EvictionPolicyUnsafe"
    """Redis may drop keys when memory runs out (`maxmemory-policy` is not `noeviction`)."""
    PERSISTENCE_OFF = "PersistenceOff"
    """Redis runs without an append-only file: a restart loses acknowledged tasks."""
    DEAD_TASKS = "DeadTasks"
    """Some tasks have used up their attempts and are kept for inspection."""
    QUEUE_FULL = "QueueFull"
    """As many tasks wait as `spec.limits.maxDepth` allows."""
    TASKS_UNROUTABLE = "TasksUnroutable"
    """Tasks wait for an Agent, a capability or a process that no Agent of the queue has."""
    NO_CENTRAL_AGENT = "NoCentralAgent"
    """No CentralAgent with a replica has the queue in `spec.queueRefs`: nobody fires its schedules."""


ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One aspect of an object's state, in the shape of the Kubernetes API conventions (`metav1.Condition`)."""

    type: str = Field(max_length=316)
    """Name of the aspect, for example Ready."""
    status: ConditionStatus
    """Whether the aspect holds."""
    reason: str = Field(max_length=1024)
    """One CamelCase word that says why; stable, for programs."""
    message: str = Field(default="", max_length=32768)
    """A sentence for people: what happened, where, and what to do next."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """When `status` last changed."""
    observed_generation: int = Field(ge=-1)
    """The `metadata.generation` that this condition was computed from."""
