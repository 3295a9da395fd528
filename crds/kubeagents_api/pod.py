# SPDX-License-Identifier: Apache-2.0
"""What users may say about the pods of an Agent or a CentralAgent."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from kubeagents_api.labels import RESERVED_ENV_PREFIX
from kubeagents_api.model import ApiModel, LocalRef, Rule

ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$"

Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value),
    Field(pattern=QUANTITY),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity such as `500m`, `1Gi` or `2`."""


class KeyRef(ApiModel):
    """One key of a Secret or ConfigMap."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the Secret or ConfigMap, in the same namespace."""
    key: str = Field(min_length=1, max_length=253)
    """The key to read."""
    optional: bool | None = None
    """Start the container even if the object or key is missing."""


class EnvSource(ApiModel):
    """Where the value of an environment variable comes from: exactly one of the two."""

    secret_key_ref: KeyRef | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyRef | None = None
    """A key of a ConfigMap."""

    rules = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            message="valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
            holds=lambda s: (s.secret_key_ref is None) != (s.config_map_key_ref is None),
        ),
    )


class EnvVar(ApiModel):
    """An environment variable of the container."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=253)
    """Name of the variable."""
    value: str | None = Field(default=None, max_length=32768)
    """Its value as written."""
    value_from: EnvSource | None = None
    """Where to take its value from instead."""

    rules = (
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message="an env entry needs exactly one of value and valueFrom",
            holds=lambda e: (e.value is None) != (e.value_from is None),
        ),
        Rule(
            cel=f"!self.name.startsWith('{RESERVED_ENV_PREFIX}')",
            message=f"env names that start with {RESERVED_ENV_PREFIX} are set by the operator: use another name",
            holds=lambda e: not e.name.startswith(RESERVED_ENV_PREFIX),
        ),
    )


class Resources(ApiModel):
    """Compute resources of the container."""

    requests: dict[str, Quantity] | None = None
    """What the scheduler reserves, for example `{cpu: 100m, memory: 128Mi}`."""
    limits: dict[str, Quantity] | None = None
    """What the container may use at most."""


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a pod spec."""

    key: str | None = None
    """Taint key; empty with operator Exists matches all."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; Equal if unset."""
    value: str | None = None
    """Taint value to match."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect to match; empty matches all."""
    toleration_seconds: int | None = None
    """For NoExecute: how many seconds the taint is tolerated."""


class PodSettings(ApiModel):
    """The pod settings that Agent and CentralAgent share."""

    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Container image; the operator's default runtime image if unset. Images of your own start
    `FROM` the runtime image, so that they have the same entry point."""
    image_pull_policy: ImagePullPolicy | None = None
    """When the kubelet pulls the image; the operator's default if unset."""
    image_pull_secrets: list[LocalRef] = Field(default_factory=list, max_length=16)
    """Secrets with registry credentials, in the same namespace."""
    env: list[EnvVar] = Field(default_factory=list, max_length=256)
    """Environment variables of the container."""
    resources: Resources | None = None
    """Compute resources of the container."""
    node_selector: dict[str, str] | None = None
    """Labels that a node must have to run the pods."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)
    """Taints that the pods tolerate."""
    progress_deadline_seconds: int = Field(default=300, ge=10, le=86400)
    """Seconds that a rollout may take without getting on before the object is Stalled. Must leave
    room for pulling the image."""

    def pod_fields(self) -> dict[str, Any]:
        """The parts of a pod spec that are taken over as they are."""
        fields: dict[str, Any] = {}
        if self.image_pull_secrets:
            fields["imagePullSecrets"] = [ref.to_wire() for ref in self.image_pull_secrets]
        if self.node_selector:
            fields["nodeSelector"] = dict(self.node_selector)
        if self.tolerations:
            fields["tolerations"] = [toleration.to_wire() for toleration in self.tolerations]
        return fields
