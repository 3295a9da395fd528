# SPDX-License-Identifier: Apache-2.0
"""The chart grants what the operator needs, and nothing that it does not."""

import re
from pathlib import Path
from typing import Any

import yaml

from kubeagents_operator.rbac import rules

CHART = Path(__file__).parents[3] / "helm/kubeagents/templates/rbac.yaml"


def granted(given: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in given
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_chart_grants_what_the_operator_needs_and_no_more() -> None:
    template = CHART.read_text(encoding="utf-8")
    found = re.search(r'define "kubeagents.rules" -?}}\n(.*?){{-? end', template, re.DOTALL)
    assert found is not None

    assert granted(yaml.safe_load(found.group(1))) == granted(rules())


def test_the_operator_asks_for_nothing_with_a_star() -> None:
    assert "*" not in {part for right in granted(rules()) for part in right}


def test_specs_of_custom_resources_cannot_be_written() -> None:
    writes = {
        (resource, verb)
        for group, resource, verb in granted(rules())
        if group == "kubeagents.dev" and verb not in ("get", "list", "watch")
    }

    assert {resource.partition("/")[2] for resource, _ in writes} == {"status", "finalizers"}
