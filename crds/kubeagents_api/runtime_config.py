# SPDX-License-Identifier: Apache-2.0
"""What a runtime process is told: derived from the specs by pure functions that operator and `kubeagents dev` share.

The operator writes it into an annotation of an Agent's pods, or into the ConfigMap of a CentralAgent, which the pod
mounts as a file; the dev command writes a file. No secret is in it: the Redis URLs come by environment variables, whose
names it gives.
"""

import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.agent import AgentSpec, BatchSettings
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.endpoints import OWN_PORTS, Endpoint
from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.labels import HTTP_PORT, admin_secret
from kubeagents_api.limits import QueueLimits
from kubeagents_api.model import ApiModel, LocalRef
from kubeagents_api.schedule import Schedule
from kubeagents_api.task_queue import RetryPolicy, TaskQueueSpec
from kubeagents_api.tls import ClientAuth, TlsSettings


class QueueConfig(ApiModel):
    """One queue and its policies, as a process needs them."""

    name: str
    namespace: str
    url_env: str
    """Environment variable with the Redis URL."""
    retry: RetryPolicy = RetryPolicy()
    task_timeout_seconds: float = 300.0
    task_ttl_seconds: float | None = None
    lease_seconds: float = 30.0
    result_ttl_seconds: int = 86400
    deduplication_seconds: float = 3600.0
    max_payload_bytes: int = 1048576
    inline_bytes: int = 131072
    limits: QueueLimits = QueueLimits()
    keep_events: int = 10000
    shards: int = 1


class TlsConfig(ApiModel):
    """The files of a port with TLS. They may change at any time."""

    certificate: str
    """Path of the certificate, and of those between it and its authority, in PEM."""
    private_key: str
    client_ca: str | None = None
    """Path of the certificates of the authorities of clients; None: clients are asked for none."""
    client_auth: ClientAuth = "Optional"


class ServingConfig(ApiModel):
    """How a process lets clients in."""

    name: str
    namespace: str
    endpoints: dict[Endpoint, int] = Field(default_factory=dict)
    """The protocols it serves, each with its own port; 0 for those that ride on HTTP, or to choose a free one."""
    access: AccessSettings | None = None
    """Who may use them; None: whoever reaches the port, which must be on a loopback address then."""
    keys_path: str | None = None
    """Folder with the keys of the principals: `<principal>/<entry>`."""
    issuer_ca: dict[str, str] = Field(default_factory=dict)
    """Paths of the certificates of authorities, by issuer."""
    tls: TlsConfig | None = None
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address; `kubeagents dev` says 127.0.0.1
    port: int


class AgentConfig(ServingConfig):
    """Configuration of one process of an Agent."""

    kind: Literal["Agent"] = "Agent"
    queue: QueueConfig
    handler: str
    code_path: str | None = None
    """Folder that goes on Python's import path."""
    capabilities: list[str] = Field(default_factory=list)
    batch: BatchSettings | None = None
    concurrency: int
    drain_seconds: int
    heartbeat_seconds: int


class LeaderConfig(ApiModel):
    """How one process among several is elected."""

    type: Literal["lease", "alone"]
    """`lease`: a Kubernetes Lease. `alone`: this is the only process, it leads."""
    lease_name: str
    lease_duration_seconds: int


class CentralAgentConfig(ServingConfig):
    """Configuration of one process of a CentralAgent."""

    kind: Literal["CentralAgent"] = "CentralAgent"
    queues: list[QueueConfig]
    schedules: dict[str, list[Schedule]] = Field(default_factory=dict)
    """Those of each queue, by its name."""
    leader: LeaderConfig
    agent_timeout_seconds: int


RuntimeConfig = Annotated[AgentConfig | CentralAgentConfig, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AgentConfig | CentralAgentConfig] = TypeAdapter(RuntimeConfig)


def queue_config(*, name: str, namespace: str, spec: TaskQueueSpec, index: int = 0) -> QueueConfig:
    """The part of a runtime's configuration that comes from one TaskQueue; `index` tells several apart."""
    return QueueConfig(
        name=name,
        namespace=namespace,
        url_env=f"KUBEAGENTS_QUEUE_{index}_URL",
        retry=spec.retry,
        task_timeout_seconds=spec.task_timeout_seconds,
        task_ttl_seconds=spec.task_ttl_seconds,
        lease_seconds=spec.lease_seconds,
        result_ttl_seconds=spec.result_ttl_seconds,
        deduplication_seconds=spec.deduplication_seconds,
        max_payload_bytes=spec.max_payload_bytes,
        inline_bytes=spec.large_payloads.inline_bytes,
        limits=spec.limits,
        keep_events=spec.events.keep,
        shards=spec.shards,
    )


def agent_config(
    *,
    name: str,
    namespace: str,
    spec: AgentSpec,
    queue: TaskQueueSpec,
    code_path: str | None,
    keys_path: str | None = None,
    tls_path: str | None = None,
    host: str = "0.0.0.0",  # noqa: S104 - as in the model
    port: int = HTTP_PORT,
    own_ports: Mapping[Endpoint, int] = OWN_PORTS,
) -> AgentConfig:
    """The configuration of each process of an Agent. `queue` is the spec of the TaskQueue that it names.

    `keys_path` and `tls_path` are for its endpoints, and mean what they mean for a CentralAgent.
    """
    return AgentConfig(
        name=name,
        namespace=namespace,
        queue=queue_config(name=spec.queue_ref.name, namespace=spec.queue_ref.namespace or namespace, spec=queue),
        handler=spec.handler,
        code_path=code_path if spec.code is not None else None,
        capabilities=spec.capabilities,
        batch=spec.batch,
        concurrency=spec.concurrency,
        drain_seconds=spec.drain_seconds,
        heartbeat_seconds=spec.heartbeat_seconds,
        endpoints={name: own_ports.get(name, 0) for name in spec.endpoints},
        access=spec.access if keys_path is not None else None,
        keys_path=keys_path if spec.access is not None else None,
        issuer_ca=_issuer_ca(spec.access, tls_path) if tls_path is not None and keys_path is not None else {},
        tls=_tls(spec.tls, tls_path) if spec.tls is not None and tls_path is not None else None,
        host=host,
        port=port,
    )


def central_agent_config(
    *,
    name: str,
    namespace: str,
    spec: CentralAgentSpec,
    queues: dict[str, TaskQueueSpec],
    leader: Literal["lease", "alone"],
    keys_path: str | None = None,
    tls_path: str | None = None,
    host: str = "0.0.0.0",  # noqa: S104 - as in the model
    port: int = HTTP_PORT,
    own_ports: Mapping[Endpoint, int] = OWN_PORTS,
) -> CentralAgentConfig:
    """The configuration of each process of a CentralAgent. `queues` has the spec of every TaskQueue it names.

    Without `keys_path` nobody is asked for a key, whatever the spec says, and without `tls_path` nothing is encrypted:
    for a process on the loopback address. Under `tls_path` are `server`, `client-ca` and `issuer-ca/<issuer>`, each
    with the entries of its Secret.
    """
    return CentralAgentConfig(
        name=name,
        namespace=namespace,
        queues=[
            queue_config(name=ref.name, namespace=ref.namespace or namespace, spec=queues[ref.name], index=index)
            for index, ref in enumerate(spec.queue_refs)
        ],
        schedules={ref.name: queues[ref.name].schedules for ref in spec.queue_refs if queues[ref.name].schedules},
        leader=LeaderConfig(
            type=leader, lease_name=lease_name(name), lease_duration_seconds=spec.lease_duration_seconds
        ),
        access=(spec.access or _admin_only(name)) if keys_path is not None else None,
        keys_path=keys_path,
        issuer_ca=_issuer_ca(spec.access, tls_path) if tls_path is not None and keys_path is not None else {},
        tls=_tls(spec.tls, tls_path) if spec.tls is not None and tls_path is not None else None,
        agent_timeout_seconds=spec.agent_timeout_seconds,
        endpoints={name: own_ports.get(name, 0) for name in spec.endpoints},
        host=host,
        port=port,
    )


def _tls(settings: TlsSettings, folder: str) -> TlsConfig:
    ca = settings.client_ca
    return TlsConfig(
        certificate=f"{folder}/server/tls.crt",
        private_key=f"{folder}/server/tls.key",
        client_ca=f"{folder}/client-ca/{ca.secret_ref.key}" if ca is not None else None,
        client_auth=settings.client_auth,
    )


def _issuer_ca(access: AccessSettings | None, folder: str) -> dict[str, str]:
    issuers = access.issuers if access is not None else []
    return {one.name: f"{folder}/issuer-ca/{one.name}/{one.ca.secret_ref.key}" for one in issuers if one.ca is not None}


def lease_name(central_agent: str) -> str:
    """Name of the Lease that the pods of a CentralAgent compete for."""
    return f"{central_agent}-leader"


def _admin_only(central_agent: str) -> AccessSettings:
    """Who may use a CentralAgent whose manifest does not say it: whoever may read that Secret."""
    return AccessSettings(
        principals=[Principal(name="admin", role="admin", keys_from=LocalRef(name=admin_secret(central_agent)))]
    )


def render(config: AgentConfig | CentralAgentConfig) -> str:
    """The configuration as JSON text: sorted and indented, so that equal configurations have equal hashes."""
    return json.dumps(config.to_wire(), indent=2, sort_keys=True) + "\n"


def load(path: Path) -> AgentConfig | CentralAgentConfig:
    """Read a configuration back.

    Raises RuntimeConfigError, with the offending fields, if the file is missing or does not fit, or if it would let
    everybody in.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuntimeConfigError(f"cannot read the runtime configuration {path}: {error}") from error
    try:
        config = _ADAPTER.validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RuntimeConfigError(
            f"the runtime configuration {path} does not fit this runtime ({faults}): "
            "use an image of the same version as the operator"
        ) from error
    _check_closed(config)
    return config


def _check_closed(config: AgentConfig | CentralAgentConfig) -> None:
    """Raises RuntimeConfigError if nobody would be asked for a key at an address that others reach."""
    if not config.endpoints or (config.access is not None and config.keys_path is not None):
        return
    try:
        loopback = ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        loopback = config.host == "localhost"
    if not loopback:
        raise RuntimeConfigError(
            f"the configuration says nothing of keys, so whoever reaches {config.host} could do everything, which is "
            "for loopback addresses only: use an operator of the same version as this image"
        )
