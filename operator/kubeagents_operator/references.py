# SPDX-License-Identifier: Apache-2.0
"""Which other objects a custom resource depends on. A change of any of them is a reason to reconcile it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kubeagents_operator.desired import names
from kubeagents_operator.keys import Key, Name


class Reference(NamedTuple):
    """An object that is referred to; it need not exist."""

    kind: str
    name: Name


def references(key: Key, spec: Mapping[str, Any]) -> frozenset[Reference]:
    """What the spec refers to. It is read as it is, not validated: a part that is malformed refers to nothing."""
    return frozenset(
        Reference(kind, Name(namespace, name))
        for kind, namespace, name in _names(key, spec)
        if isinstance(name, str) and isinstance(namespace, str)
    )


def _names(key: Key, spec: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    own = key.namespace
    if key.kind != "TaskQueue":
        yield from _of_pods(own, spec)
    if key.kind == "Agent":
        yield "TaskQueue", _at(spec, "queueRef", "namespace") or own, _at(spec, "queueRef", "name")
        yield "ConfigMap", own, _at(spec, "code", "configMapRef", "name")
    elif key.kind == "CentralAgent":
        for ref in _list(spec.get("queueRefs")):
            yield "TaskQueue", _at(ref, "namespace") or own, _at(ref, "name")
    else:
        external = _at(spec, "redis", "external")
        yield "Secret", own, names.redis(key.name) if external is None else _at(external, "secretRef", "name")


def _of_pods(namespace: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for variable in _list(spec.get("env")):
        yield "Secret", namespace, _at(variable, "valueFrom", "secretKeyRef", "name")
        yield "ConfigMap", namespace, _at(variable, "valueFrom", "configMapKeyRef", "name")
    for ref in _list(spec.get("imagePullSecrets")):
        yield "Secret", namespace, _at(ref, "name")
    for principal in _list(_at(spec, "access", "principals")):
        yield "Secret", namespace, _at(principal, "keysFrom", "name")
    for issuer in _list(_at(spec, "access", "issuers")):
        yield "Secret", namespace, _at(issuer, "ca", "secretRef", "name")
    yield "Secret", namespace, _at(spec, "tls", "secretRef", "name")
    yield "Secret", namespace, _at(spec, "tls", "clientCa", "secretRef", "name")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _at(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
