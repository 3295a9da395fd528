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
        Reference(kind, Name(key.namespace, name)) for kind, name in _names(key, spec) if isinstance(name, str)
    )


def _names(key: Key, spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if key.kind == "Agent":
        yield "TaskQueue", _at(spec, "queueRef", "name")
        yield "ConfigMap", _at(spec, "code", "configMapRef", "name")
    elif key.kind == "CentralAgent":
        refs = spec.get("queueRefs")
        for ref in refs if isinstance(refs, list) else ():
            yield "TaskQueue", _at(ref, "name")
    else:
        external = _at(spec, "redis", "external")
        yield "Secret", names.redis(key.name) if external is None else _at(external, "secretRef", "name")


def _at(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
