# SPDX-License-Identifier: Apache-2.0
"""The base of every API model, and the cross-field rules that the API server and Python both enforce."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.alias_generators import to_camel


@dataclass(frozen=True)
class Rule:
    """One cross-field rule, said twice: in CEL for the API server, in Python for `kubeagents dev`.

    `message` is what the user reads when the rule does not hold; it says what to write instead.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]


class ApiModel(BaseModel):
    """Immutable, camelCase on the wire, and closed: an unknown field is an error, not a silent no-op."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    def to_wire(self) -> dict[str, Any]:
        """The JSON form: camelCase names, without fields that are unset (None)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


ObjectName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63),
]
"""A Kubernetes object name (DNS label)."""


SET: dict[str, JsonValue] = {"x-kubernetes-list-type": "set"}
"""Says of a list field that no element comes twice, so that several writers may each own some of them."""
MAP_BY_NAME: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
"""Says of a list field that its elements are told apart by their names; no name comes twice."""


class LocalRef(ApiModel):
    """A reference to an object in the same namespace."""

    name: ObjectName
    """Name of the object, in the same namespace."""


class QueueRef(ApiModel):
    """A reference to a TaskQueue."""

    name: ObjectName
    """Name of the TaskQueue."""
    namespace: ObjectName | None = None
    """Its namespace, if it is another one: then that TaskQueue must name ours in `spec.allowedNamespaces`."""


class CaKeyRef(LocalRef):
    """A reference to the certificate of an authority, in a Secret of the same namespace."""

    key: str = Field(default="ca.crt", pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)
    """Key of the Secret; its value is one or several certificates in PEM."""


class CertificateAuthority(ApiModel):
    """Who has signed the certificates that are trusted."""

    secret_ref: CaKeyRef
    """The Secret with the authority's own certificate. A change of it needs no restart."""


class SecretKeyRef(ApiModel):
    """A reference to one key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret, in the same namespace."""
    key: str = Field(default="url", min_length=1, max_length=253)
    """Key of the Secret whose value is used."""
