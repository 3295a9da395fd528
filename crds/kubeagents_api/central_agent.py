# SPDX-License-Identifier: Apache-2.0
"""`CentralAgent`: the way in for clients, and the place where things that must be done once are done."""

from typing import Literal

from pydantic import Field

from kubeagents_api.access import AccessSettings
from kubeagents_api.conditions import Condition
from kubeagents_api.endpoints import Endpoint
from kubeagents_api.model import ApiModel, QueueRef, Rule
from kubeagents_api.pod import PodSettings
from kubeagents_api.tls import CERTIFICATES_NEED_CA, TlsSettings


class ServiceSettings(ApiModel):
    """The Service in front of the CentralAgent's pods."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Kind of Service."""
    port: int = Field(default=80, ge=1, le=65535)
    """Port of the Service; it leads to the HTTP API."""


class CentralAgentSpec(PodSettings):
    """What a CentralAgent should be."""

    replicas: int = Field(default=1, ge=0, le=100)
    """How many pods. All of them serve; one of them leads."""
    suspend: bool = False
    """Whether the central agent is put to rest: it has no pods, whatever `replicas` says. Agents go on."""
    queue_refs: list[QueueRef] = Field(min_length=1, max_length=32)
    """The TaskQueues that clients reach through this CentralAgent. The first one is the default."""
    service: ServiceSettings = ServiceSettings()
    """The Service in front of the pods."""
    endpoints: list[Endpoint] = Field(default=["http", "websocket", "grpc", "mcp", "a2a"], min_length=1, max_length=6)
    """The protocols that the pods serve. HTTP (with SSE), WebSocket, MCP and A2A share the Service's port; gRPC is on
    port 9090 and ZeroMQ, which needs the extra `zeromq` in the image, on port 5555."""
    access: AccessSettings | None = None
    """Who may use the CentralAgent, and for what. If unset, there is one principal, `admin`, who may do everything, and
    the operator makes its API key: entry `key` of the Secret `<name>-central-admin`. `kubeagents dev` asks nobody for a
    key: it listens on the loopback address only."""
    tls: TlsSettings | None = None
    """TLS of all its ports. Without it they are not encrypted. `kubeagents dev` never encrypts."""
    lease_duration_seconds: int = Field(default=15, ge=3, le=300)
    """Seconds after which another pod may lead when the leader has gone silent."""
    agent_timeout_seconds: int = Field(default=15, ge=3, le=3600)
    """Seconds of silence after which an agent instance is reported as unhealthy. The leader forgets an instance
    after ten times as long."""

    rules = (
        Rule(
            cel="self.endpoints.exists(e, e == 'http') && self.endpoints.all(e, self.endpoints.exists_one(o, o == e))",
            message="endpoints must contain http, which the command line and the page use, and each protocol once",
            holds=lambda s: "http" in s.endpoints and len(set(s.endpoints)) == len(s.endpoints),
        ),
        Rule(
            cel="!has(self.tls) || !self.endpoints.exists(e, e == 'zeromq')",
            message="the endpoint zeromq cannot be encrypted: leave it out, or leave out tls",
            holds=lambda s: s.tls is None or "zeromq" not in s.endpoints,
        ),
        CERTIFICATES_NEED_CA,
        Rule(
            cel="self.queueRefs.all(a, self.queueRefs.exists_one(b, b.name == a.name))",
            message="queueRefs has a name twice: clients tell queues apart by name, list each name once",
            holds=lambda s: len({ref.name for ref in s.queue_refs}) == len(s.queue_refs),
        ),
    )


class CentralAgentHandled(ApiModel):
    """The values of annotations that have been acted on."""

    restarted_at: str | None = None
    """Of `kubeagents.dev/restartedAt`: the pods are being or have been replaced."""
    step_down: str | None = None
    """Of `kubeagents.dev/stepDown`: the leader of that time has been asked to let another pod lead."""


class CentralAgentStatus(ApiModel):
    """What a CentralAgent is."""

    observed_generation: int = -1
    """The `metadata.generation` that this status was computed from; -1 before the operator has seen it."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready, Reconciling, Stalled, Suspended, Available, LeaderElected, QueueConnected."""
    replicas: int | None = None
    """Pods that exist (the scale subresource reads this)."""
    ready_replicas: int | None = None
    """Pods that are ready."""
    ready: str | None = None
    """Ready pods / wanted pods, as text for people."""
    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""
    leader: str | None = None
    """The pod that holds the Lease; empty when nobody does."""
    lease_transitions: int | None = None
    """How often the leadership has changed hands."""
    lease_renew_time: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """When the leader last renewed the Lease, sampled every 30 s."""
    agents: str | None = None
    """Healthy / known agent instances on this CentralAgent's queues, sampled every 15 s."""
    endpoint: str | None = None
    """URL of the HTTP API inside the cluster."""
    handled: CentralAgentHandled | None = None
    """What was asked for by annotation and has been done."""
