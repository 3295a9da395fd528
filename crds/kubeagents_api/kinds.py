# SPDX-License-Identifier: Apache-2.0
"""The three kinds, in one table: names, models, columns, subresources. Everything that lists kinds reads it."""

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kubeagents_api.agent import AgentSpec, AgentStatus
from kubeagents_api.central_agent import CentralAgentSpec, CentralAgentStatus
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.labels import API_VERSION, GROUP
from kubeagents_api.model import ApiModel
from kubeagents_api.task_queue import TaskQueueSpec, TaskQueueStatus

NAME_PATTERN = "^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$"
NAME_MESSAGE = (
    "metadata.name must start with a letter, have only lower case letters, digits and '-', and at most 52 characters, "
    "because names of Services and pods are made from it"
)

READY_REASON = '.status.conditions[?(@.type=="Ready")].reason'
SUSPENDED_STATUS = '.status.conditions[?(@.type=="Suspended")].status'
READY_STATUS = '.status.conditions[?(@.type=="Ready")].status'


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`. Priority 1 shows with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """Everything that makes a kind: its names, its models, and how kubectl shows and scales it."""

    kind: str
    plural: str
    short: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    scalable: bool
    description: str

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def crd_name(self) -> str:
        return f"{self.plural}.{GROUP}"


_AGE = Column("Age", ".metadata.creationTimestamp", "date")

AGENT = Kind(
    kind="Agent",
    plural="agents",
    short="ag",
    spec=AgentSpec,
    status=AgentStatus,
    scalable=True,
    description="Replicas of one handler that take tasks from a TaskQueue.",
    columns=(
        Column("Ready", ".status.ready", description="Ready pods / wanted pods."),
        Column("Status", READY_REASON, description="Why the agent is ready or not."),
        Column("Queue", ".spec.queueRef.name", description="The TaskQueue it takes tasks from."),
        Column("Inflight", ".status.running", "integer", description="Tasks being worked on."),
        _AGE,
        Column(
            "Heartbeat",
            '.status.conditions[?(@.type=="HeartbeatHealthy")].status',
            priority=1,
            description="Whether every ready pod sends heartbeats.",
        ),
        Column("Endpoint", ".status.endpoint", priority=1, description="Service in front of the pods."),
        Column("Version", ".status.version", priority=1, description="Image of the pods."),
        Column("Rollout", ".status.rollout.progress", priority=1, description="Step / steps of a canary."),
    ),
)

CENTRAL_AGENT = Kind(
    kind="CentralAgent",
    plural="centralagents",
    short="ca",
    spec=CentralAgentSpec,
    status=CentralAgentStatus,
    scalable=True,
    description="The way in for clients: serves the HTTP API of its TaskQueues; one of its pods leads.",
    columns=(
        Column("Leader", ".status.leader", description="The pod that leads."),
        Column("Ready", ".status.ready", description="Ready pods / wanted pods."),
        Column("Agents", ".status.agents", description="Healthy / known agent instances."),
        Column("Status", READY_REASON, description="Why the central agent is ready or not."),
        _AGE,
        Column("Transitions", ".status.leaseTransitions", "integer", 1, "Changes of leadership."),
        Column("Lease-Renewed", ".status.leaseRenewTime", "date", 1, "Age of the last renewal seen."),
        Column("Endpoint", ".status.endpoint", priority=1, description="URL of the HTTP API."),
    ),
)

TASK_QUEUE = Kind(
    kind="TaskQueue",
    plural="taskqueues",
    short="tq",
    spec=TaskQueueSpec,
    status=TaskQueueStatus,
    scalable=False,
    description="A durable, prioritised queue of tasks in Redis.",
    columns=(
        Column("Depth", ".status.depth", "integer", description="Tasks that wait."),
        Column("Inflight", ".status.running", "integer", description="Tasks being worked on."),
        Column("DLQ", ".status.dead", "integer", description="Tasks that have used up their attempts."),
        Column("Oldest", ".status.oldestTaskTime", "date", description="Age of the oldest waiting task."),
        Column("Consumers", ".status.consumers", "integer", description="Agent instances."),
        Column("Ready", READY_STATUS, description="Whether the queue can be used."),
        _AGE,
        Column("Status", READY_REASON, priority=1, description="Why the queue is ready or not."),
        Column("Delayed", ".status.scheduled", "integer", 1, "Tasks that wait for their time."),
        Column("Blocked", ".status.blocked", "integer", 1, "Tasks that wait for the tasks they depend on."),
        Column("Paused", SUSPENDED_STATUS, priority=1, description="Whether agents take no tasks."),
        Column("Backend", ".status.backend", priority=1, description="What holds the queue."),
    ),
)

KINDS: tuple[Kind, ...] = (AGENT, CENTRAL_AGENT, TASK_QUEUE)
BY_KIND: Mapping[str, Kind] = {kind.kind: kind for kind in KINDS}


@dataclass(frozen=True)
class Manifest:
    """One parsed custom resource."""

    kind: Kind
    name: str
    namespace: str
    spec: ApiModel


def parse_spec(kind: Kind, body: Mapping[str, Any], *, ignore_unknown: bool = False) -> ApiModel:
    """The spec of an object, validated.

    `ignore_unknown` is for readers of objects that the API server has taken: it may have a newer schema, whose defaults
    are then in every object. Raises InvalidManifestError that names the object and every fault in it.
    """
    name = body.get("metadata", {}).get("name", "(no name)")
    spec = body.get("spec") or {}
    try:
        return kind.spec.model_validate(spec)
    except ValidationError as error:
        unknown = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        if ignore_unknown and unknown:
            return parse_spec(kind, {**body, "spec": _without(spec, unknown)})
        faults = "; ".join(
            f"spec{''.join(f'[{p}]' if isinstance(p, int) else f'.{p}' for p in fault['loc'])}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise InvalidManifestError(f'{kind.kind} "{name}" is invalid: {faults}') from error


def _without(spec: Mapping[str, Any], paths: Iterable[tuple[int | str, ...]]) -> Any:
    """The spec without some of its fields."""
    out: Any = copy.deepcopy(spec)
    for *above, field in paths:
        holder = out
        for step in above:
            holder = holder[step]
        del holder[field]
    return out


def parse(body: Mapping[str, Any], *, default_namespace: str = "default") -> Manifest:
    """A manifest of one of our kinds, validated. Raises InvalidManifestError."""
    kind = BY_KIND.get(str(body.get("kind")))
    if kind is None or body.get("apiVersion") != API_VERSION:
        raise InvalidManifestError(
            f"{body.get('apiVersion')} {body.get('kind')} is none of "
            f"{', '.join(k.kind for k in KINDS)} of {API_VERSION}"
        )
    metadata = body.get("metadata") or {}
    if not metadata.get("name"):
        raise InvalidManifestError(f"a {kind.kind} has no metadata.name")
    if not re.match(NAME_PATTERN, str(metadata["name"])):
        raise InvalidManifestError(f'{kind.kind} "{metadata["name"]}" is invalid: {NAME_MESSAGE}')
    return Manifest(
        kind=kind,
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or default_namespace),
        spec=parse_spec(kind, body),
    )
