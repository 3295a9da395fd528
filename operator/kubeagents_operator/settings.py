# SPDX-License-Identifier: Apache-2.0
"""Settings of the operator, from its environment. Every one has a default that works."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.labels import INSTANCE_ENV
from kubeagents_api.pod import ImagePullPolicy
from kubeagents_operator.quotas import EVERYWHERE, Quota

_NAMESPACE = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PREFIX = "KUBEAGENTS_"


def _words(value: Any) -> Any:
    return tuple(word for word in re.split(r"[\s,]+", value) if word) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error


class Settings(BaseModel):
    """Each field is set by the variable KUBEAGENTS_<FIELD IN CAPITALS>; an empty variable counts as unset."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    watch_namespaces: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Namespaces to serve, separated by commas; all of them if unset."""
    runtime_image: str = "kubeagents-runtime:latest"
    """Image of Agents and CentralAgents that name none."""
    redis_image: str = "redis:8.2-bookworm"
    """Image of managed Redis servers of TaskQueues that name none."""
    image_pull_policy: ImagePullPolicy = "IfNotPresent"
    """When images are pulled, where the object does not say."""
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    """Unique name of this replica; the pod's name in a cluster."""
    lease_namespace: str = Field(default="", validate_default=False)
    """Namespace of the Lease that the replicas compete for; that of the pod if unset."""
    lease_name: str = "kubeagents-operator"
    """Name of that Lease."""
    lease_duration_seconds: int = Field(default=15, ge=3, le=300)
    """Seconds after which a standby takes over from a replica that has gone silent."""
    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet's probes and Prometheus come from outside of the pod
    """Address of /healthz, /readyz and /metrics."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the same; 0 for any free one."""
    concurrency: int = Field(default=32, ge=1, le=256)
    """Objects that are reconciled at the same time."""
    sample_seconds: float = Field(default=15.0, ge=1, le=3600)
    """Seconds between two samples of a queue's figures, and so between two updates of counters in a status."""
    sample_concurrency: int = Field(default=16, ge=1, le=256)
    """Queues that are sampled at the same time."""

    quotas: Annotated[dict[str, Quota], BeforeValidator(_json)] = Field(default_factory=dict)
    """What namespaces may have, as JSON: `{"team-a": {"agents": 20, "replicas": 100, "tasksPerSecond": 50}, "*": {…}}`.
    `*` stands for all that are not named; what is not set is not limited."""

    @model_validator(mode="after")
    def _namespaces_are_names(self) -> Self:
        wrong = [name for name in (*self.watch_namespaces, self.lease_namespace) if name and not _NAMESPACE.match(name)]
        if wrong:
            raise ValueError(f"{', '.join(map(repr, wrong))} cannot be a namespace; patterns are not supported")
        return self

    @field_validator("quotas")
    @classmethod
    def _quotas_are_of_namespaces(cls, quotas: dict[str, Quota]) -> dict[str, Quota]:
        wrong = [name for name in quotas if name != EVERYWHERE and not _NAMESPACE.match(name)]
        if wrong:
            raise ValueError(f"{', '.join(map(repr, wrong))} cannot be a namespace; use names, and * for all others")
        return quotas


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that the environment says. Raises RuntimeConfigError that names each faulty variable."""
    given: dict[str, Any] = {
        field: environ[variable] for field in Settings.model_fields if environ.get(variable := _variable(field))
    }
    if "lease_namespace" not in given:
        given["lease_namespace"] = _own_namespace()
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(
            f"{_where(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()
        )
        raise RuntimeConfigError(f"the operator's settings are not valid: {faults}") from error


def _where(path: tuple[int | str, ...]) -> str:
    """The variable, and the place within it if it has parts."""
    if not path:
        return "settings"
    field, *parts = map(str, path)
    return _variable(field) + (f" ({'.'.join(parts)})" if parts else "")


def _variable(field: str) -> str:
    return INSTANCE_ENV if field == "instance" else f"{_PREFIX}{field.upper()}"


def _own_namespace() -> str:
    """The pod's namespace; `default` outside of a cluster."""
    try:
        return _SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "default"
