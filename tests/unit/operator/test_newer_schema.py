# SPDX-License-Identifier: Apache-2.0
"""Definitions are upgraded before the operator, and stay when it is rolled back: it must bear what it does not know."""

from typing import Any

import pytest

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.kinds import BY_KIND, parse_spec
from kubeagents_operator.status.conditions import Previous


def body(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": {"queueRef": {"name": "q"}, "handler": "a:b", **spec}}


def test_fields_of_a_newer_schema_are_left_out_wherever_they_are() -> None:
    newer = body(
        mood="good",
        queueRef={"name": "q", "cluster": {"name": "c"}},
        env=[{"name": "A", "value": "1", "secret": True}, {"name": "B", "value": "2"}],
    )
    older = body(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])

    assert parse_spec(BY_KIND["Agent"], newer, ignore_unknown=True) == parse_spec(BY_KIND["Agent"], older)
    assert newer["spec"]["mood"] == "good"


def test_other_faults_are_faults_also_beside_unknown_fields() -> None:
    with pytest.raises(InvalidManifestError, match=r"spec\.replicas"):
        parse_spec(BY_KIND["Agent"], body(mood="good", replicas=-1), ignore_unknown=True)


def test_people_are_told_of_fields_that_do_not_exist() -> None:
    with pytest.raises(InvalidManifestError, match="mood"):
        parse_spec(BY_KIND["Agent"], body(mood="good"))


def test_conditions_and_reasons_of_a_newer_operator_are_passed_over() -> None:
    def condition(type_: str, reason: str) -> dict[str, Any]:
        return {"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "x"}

    conditions = [condition("Jolly", "GoodFellow"), condition("Available", "Better"), condition("Drained", "Empty")]
    facts = Previous({"conditions": conditions}).other_facts()

    assert [(fact.type, fact.reason) for fact in facts] == [(ConditionType.DRAINED, Reason.EMPTY)]
