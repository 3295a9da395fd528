# SPDX-License-Identifier: Apache-2.0
"""`Agent`: replicas of one handler that pull tasks from one queue."""

from pydantic import Field

from kubeagents_api.access import AccessSettings
from kubeagents_api.conditions import Condition
from kubeagents_api.endpoints import Endpoint
from kubeagents_api.model import SET, ApiModel, LocalRef, ObjectName, QueueRef, Rule
from kubeagents_api.pod import PodSettings
from kubeagents_api.tls import CERTIFICATES_NEED_CA, TlsSettings


class CodeSource(ApiModel):
    """Where the agent's Python files come from, when they are not part of the image."""

    config_map_ref: LocalRef
    """A ConfigMap in the same namespace. Each of its keys becomes a file, and the folder is on Python's
    import path: key `echo.py` is module `echo`. A change of the ConfigMap rolls the pods."""


class BatchSettings(ApiModel):
    """Makes a batch handler of the handler: it is given several tasks at once."""

    max_tasks: int = Field(default=32, ge=1, le=1000)
    """How many at most."""
    wait_seconds: float = Field(default=0.0, ge=0, le=60)
    """How long the first task of a batch waits for further ones; with 0 it takes what is there."""


class ScaleUp(ApiModel):
    """How fast replicas are added."""

    stabilization_window_seconds: int = Field(default=0, ge=0, le=3600)
    """Seconds for which more replicas must have been needed before they are added."""


class ScaleDown(ApiModel):
    """How fast replicas are taken away."""

    stabilization_window_seconds: int = Field(default=300, ge=0, le=3600)
    """Seconds for which fewer replicas must have been enough before some are taken away."""


class Autoscaling(ApiModel):
    """How many replicas there are, by what there is to do: tasks that wait, that run, and the age of the oldest."""

    min_replicas: int = Field(default=1, ge=0, le=10000)
    """The fewest. With 0, an agent without work has no pods; the first task starts one."""
    max_replicas: int = Field(ge=1, le=10000)
    """The most."""
    target_utilization: float = Field(default=0.8, gt=0, le=1)
    """The share of all slots (`concurrency` of each replica) that should be in use."""
    max_queue_seconds: float = Field(default=30.0, ge=1, le=86400)
    """The age in seconds that the oldest waiting task that the agent could take may reach. While it is older and
    `targetUtilization` of the slots are in use, half as many replicas as are ready are added."""
    idle_seconds: int = Field(default=300, ge=0, le=86400)
    """With `minReplicas` 0: seconds without any task after which the last replica goes."""
    scale_up: ScaleUp = ScaleUp()
    """How fast replicas are added."""
    scale_down: ScaleDown = ScaleDown()
    """How fast replicas are taken away. A replica that works on tasks first finishes them."""

    rules = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="autoscaling.minReplicas must not be greater than autoscaling.maxReplicas",
            holds=lambda s: s.min_replicas <= s.max_replicas,
        ),
    )


class RolloutStep(ApiModel):
    """One step of a canary."""

    percent: int = Field(ge=1, le=99)
    """The share of the replicas that run the new version, at least one."""
    pause_seconds: int | None = Field(default=None, ge=0, le=604800)
    """Seconds to stay at this step. If unset, it stays until the annotation `kubeagents.dev/promote` gets a new value.
    """


class RolloutStrategy(ApiModel):
    """Tries a new version on a part of the replicas first, and takes it back if its tasks fail."""

    steps: list[RolloutStep] = Field(min_length=1, max_length=10)
    """The steps; after the last one all replicas run the new version."""
    min_success_rate: float = Field(default=0.95, ge=0, le=1)
    """The share of the new version's task attempts that must succeed. Below it, the new version is taken back."""
    min_tasks: int = Field(default=20, ge=0, le=1000000)
    """How many attempts the new version must have finished before a step may end and before its success rate counts."""

    rules = (
        Rule(
            cel="self.steps.all(a, self.steps.exists_one(b, b.percent == a.percent)) && "
            "self.steps.map(a, a.percent).isSorted()",
            message="each step of rollout.steps must have a greater percent than the one before",
            holds=lambda s: [step.percent for step in s.steps] == sorted({step.percent for step in s.steps}),
        ),
    )


class AgentSpec(PodSettings):
    """What an Agent should be."""

    replicas: int = Field(default=1, ge=0, le=10000)
    """How many pods. `kubectl scale`, an HPA or KEDA set this field. With 0, tasks wait in the queue. Not used while
    `autoscaling` is set."""
    suspend: bool = False
    """Whether the agent is put to rest: its pods finish what they run and go, whatever `replicas` says. Tasks wait."""
    autoscaling: Autoscaling | None = None
    """If set, the operator decides how many pods there are; it does not change `replicas`."""
    rollout: RolloutStrategy | None = None
    """If set, a new version first runs on some of the replicas (a canary). Without, a change replaces the pods by a
    rolling update."""
    queue_ref: QueueRef
    """The TaskQueue whose tasks this agent takes: those that name this agent, one of its capabilities or
    one of its pods, and those that name none."""
    handler: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$", max_length=253
    )
    """The code that handles a task, as `module:attribute`: an `async def handle(task, ctx)`, or a class
    with such a method, which is instantiated once per process."""
    code: CodeSource | None = None
    """Where the module comes from if the image does not have it."""
    capabilities: list[ObjectName] = Field(default_factory=list, max_length=32, json_schema_extra=SET)
    """What the agent is able to do: it also takes the tasks that ask for one of these."""
    endpoints: list[Endpoint] = Field(default_factory=list, max_length=6, json_schema_extra=SET)
    """The protocols by which clients reach the pods directly, through the Agent's own Service, besides those of
    CentralAgents: on port 8080, gRPC on 9090, ZeroMQ on 5555. Tasks go through the queue all the same."""
    access: AccessSettings | None = None
    """Who may use these endpoints. Must be set if there are any. Callers can only use this Agent's tasks."""
    tls: TlsSettings | None = None
    """TLS of these endpoints. Without it they are not encrypted. `kubeagents dev` never encrypts."""
    batch: BatchSettings | None = None
    """If set, the handler is an `async def handle(tasks, ctx)` that takes a list of tasks and returns a list of as many
    results; an element that is an exception fails that task only."""
    concurrency: int = Field(default=16, ge=1, le=10000)
    """How many tasks one pod works on at the same time."""
    drain_seconds: int = Field(default=30, ge=0, le=86400)
    """Seconds a pod that is told to stop may take to finish what it runs. What is not finished by then goes
    back to the queue and costs no attempt."""
    heartbeat_seconds: int = Field(default=5, ge=1, le=300)
    """Seconds between the heartbeats of a pod. Three missed ones make it unhealthy."""

    rules = (
        Rule(
            cel="!has(self.endpoints) || size(self.endpoints) == 0 || has(self.access)",
            message="endpoints needs access: say who may use them, nobody is let in without being asked",
            holds=lambda s: not s.endpoints or s.access is not None,
        ),
        Rule(
            cel="!(has(self.access) || has(self.tls)) || (has(self.endpoints) && size(self.endpoints) > 0)",
            message="access and tls are for endpoints, and there are none: add some, such as http, or remove them",
            holds=lambda s: (s.access is None and s.tls is None) or bool(s.endpoints),
        ),
        Rule(
            cel="!has(self.tls) || !has(self.endpoints) || !self.endpoints.exists(e, e == 'zeromq')",
            message="the endpoint zeromq cannot be encrypted: leave it out, or leave out tls",
            holds=lambda s: s.tls is None or "zeromq" not in s.endpoints,
        ),
        CERTIFICATES_NEED_CA,
        Rule(
            cel="!has(self.capabilities) || self.capabilities.all(a, self.capabilities.exists_one(b, b == a))",
            message="capabilities names one twice: list each once",
            holds=lambda s: len(set(s.capabilities)) == len(s.capabilities),
        ),
    )


class RolloutStatus(ApiModel):
    """Where the rollout of a new version is."""

    stable_revision: str | None = None
    """The version that is known to work: a digest of what the spec says about the pods, and of their code."""
    canary_revision: str | None = None
    """The one that is being tried."""
    failed_revision: str | None = None
    """The one that was taken back. It is not tried again; a change of the spec makes another one."""
    step: int | None = None
    """Which step is under way, counted from 1."""
    step_started_at: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """Since when all replicas of the step are ready; its pause counts from then."""
    progress: str | None = None
    """Step / steps, as text for people."""
    succeeded: int | None = None
    """Task attempts of the new version that have succeeded."""
    failed: int | None = None
    """Task attempts of the new version that have failed: by an error, a timeout or a result that was refused."""
    failure: str | None = None
    """Why the new version was taken back."""
    promoted: str | None = None
    """The value of the annotation `kubeagents.dev/promote` that was acted on last."""


class AgentHandled(ApiModel):
    """The values of annotations that have been acted on."""

    restarted_at: str | None = None
    """Of `kubeagents.dev/restartedAt`: the pods are being or have been replaced."""


class AgentStatus(ApiModel):
    """What an Agent is."""

    observed_generation: int = -1
    """The `metadata.generation` that this status was computed from; -1 before the operator has seen it."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready, Reconciling, Stalled, Suspended, Available, HeartbeatHealthy, Consuming, QueueConnected, ScaledToZero;
    with autoscaling Autoscaled; with a rollout strategy CanaryHealthy."""
    desired_replicas: int | None = None
    """Pods that there should be: by the spec, or with autoscaling by what there is to do. There are more while some
    that are to go finish their tasks."""
    replicas: int | None = None
    """Pods that exist (the scale subresource reads this)."""
    ready_replicas: int | None = None
    """Pods that are ready: the handler is loaded and tasks are being taken."""
    ready: str | None = None
    """Ready pods / wanted pods, as text for people."""
    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""
    running: int | None = None
    """Tasks that the agent's pods work on, sampled every 15 s."""
    endpoint: str | None = None
    """Address of the Service in front of the pods."""
    version: str | None = None
    """Image that the pods run."""
    cold_start_seconds: float | None = None
    """Seconds that the last start from zero took, from the submission of the oldest waiting task, or from when the
    agent was allowed to start, to the first pod that is ready and has sent a heartbeat."""
    rollout: RolloutStatus | None = None
    """Where the rollout of a new version is."""
    handled: AgentHandled | None = None
    """What was asked for by annotation and has been done."""
