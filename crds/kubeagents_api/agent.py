# SPDX-License-Identifier: Apache-2.0
"""`Agent`: replicas of one handler that pull tasks from one queue."""

from pydantic import Field

from kubeagents_api.conditions import Condition
from kubeagents_api.model import SET, ApiModel, LocalRef, ObjectName, Rule
from kubeagents_api.pod import PodSettings


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


class AgentSpec(PodSettings):
    """What an Agent should be."""

    replicas: int = Field(default=1, ge=0, le=10000)
    """How many pods. `kubectl scale`, an HPA or KEDA set this field. With 0, tasks wait in the queue."""
    queue_ref: LocalRef
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
            cel="!has(self.capabilities) || self.capabilities.all(a, self.capabilities.exists_one(b, b == a))",
            message="capabilities names one twice: list each once",
            holds=lambda s: len(set(s.capabilities)) == len(s.capabilities),
        ),
    )


class AgentStatus(ApiModel):
    """What an Agent is."""

    observed_generation: int = -1
    """The `metadata.generation` that this status was computed from; -1 before the operator has seen it."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready, Reconciling, Stalled, Available, HeartbeatHealthy, QueueConnected, ScaledToZero."""
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
