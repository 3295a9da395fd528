# SPDX-License-Identifier: Apache-2.0
"""When an Agent has a PodDisruptionBudget, and what it says."""

from typing import Any

import pytest

from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired import agent
from kubeagents_operator.desired.metadata import selector
from tests.unit.operator.objects import DEFAULTS, access, agent_spec, owner


def budgets(kept: int, **spec: Any) -> list[dict[str, Any]]:
    inputs = agent.AgentInputs(owner(), agent_spec(**spec), TaskQueueSpec(), access(), replicas=kept)
    return [one for one in agent.children(inputs, DEFAULTS) if one["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize(
    ("spec", "kept", "expected"),
    [
        ({"replicas": 0}, 0, 0),
        ({"replicas": 1}, 1, 0),
        ({"replicas": 2}, 2, 1),
        ({"replicas": 2, "suspend": True}, 0, 1),
        ({"replicas": 1}, 3, 1),  # some have not gone yet
        ({"autoscaling": {"maxReplicas": 1}}, 1, 0),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}, 0, 1),
        ({"replicas": 9, "autoscaling": {"maxReplicas": 1}}, 1, 0),
    ],
)
def test_there_is_a_budget_if_there_may_be_several_replicas(spec: dict[str, Any], kept: int, expected: int) -> None:
    assert len(budgets(kept, **spec)) == expected


def test_it_lets_a_quarter_go_and_all_that_are_not_ready() -> None:
    (found,) = budgets(3, replicas=3)
    assert found["spec"] == {
        "maxUnavailable": "25%",
        "selector": {"matchLabels": selector(owner())},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_the_deployment_stays_the_last_child_to_be_written() -> None:
    inputs = agent.AgentInputs(owner(), agent_spec(replicas=2), TaskQueueSpec(), access(), replicas=2)
    assert agent.children(inputs, DEFAULTS)[-1]["kind"] == "Deployment"
