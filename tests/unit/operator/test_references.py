# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_operator.keys import Key
from kubeagents_operator.references import references


def found(kind: str, spec: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one.kind, one.name.name) for one in references(Key(kind, "shop", "it"), spec)}


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("Agent", {"queueRef": {"name": "work"}}, {("TaskQueue", "work")}),
        (
            "Agent",
            {"queueRef": {"name": "work"}, "code": {"configMapRef": {"name": "files"}}},
            {("TaskQueue", "work"), ("ConfigMap", "files")},
        ),
        (
            "CentralAgent",
            {"queueRefs": [{"name": "work"}, {"name": "mail"}]},
            {("TaskQueue", "work"), ("TaskQueue", "mail")},
        ),
        (
            "Agent",
            {
                "queueRef": {"name": "work", "namespace": "other"},
                "env": [
                    {"name": "A", "value": "x"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "model", "key": "token"}}},
                    {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "tones", "key": "tone"}}},
                ],
                "imagePullSecrets": [{"name": "registry"}],
            },
            {("TaskQueue", "work"), ("Secret", "model"), ("ConfigMap", "tones"), ("Secret", "registry")},
        ),
        ("TaskQueue", {}, {("Secret", "it-redis")}),
        ("TaskQueue", {"redis": {"managed": {}}}, {("Secret", "it-redis")}),
        ("TaskQueue", {"redis": {"external": {"secretRef": {"name": "there"}}}}, {("Secret", "there")}),
    ],
)
def test_what_a_spec_refers_to(kind: str, spec: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert found(kind, spec) == expected


@pytest.mark.parametrize("kind", ["Agent", "CentralAgent"])
@pytest.mark.parametrize("value", [None, "x", 5, [], [None], {"name": 5}])
def test_a_malformed_reference_refers_to_nothing(kind: str, value: Any) -> None:
    assert found(kind, {name: value for name in ("queueRef", "queueRefs", "code", "env", "imagePullSecrets")}) == set()
