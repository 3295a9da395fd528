# SPDX-License-Identifier: Apache-2.0
"""Which changes of a status are written at once, and which wait."""

from typing import Any

import pytest

from kubeagents_operator.status.writer import COUNTER_SECONDS, STEP_SECONDS, patience

AT_ONCE = 0.0


def conditions(*, way: str | None, others: str = "False", message: str = "") -> list[dict[str, Any]]:
    """Those of an object that is on its way for a reason, or is not."""
    reconciling = {"type": "Reconciling", "status": "True" if way else "False", "reason": way or "Available"}
    return [
        {"type": "Ready", "status": "False" if way else "True", "reason": way or "Available", "message": message},
        {**reconciling, "message": message},
        {"type": "QueueConnected", "status": others, "reason": "Connected", "message": ""},
    ]


def rollout(**fields: Any) -> dict[str, Any]:
    return {"canaryRevision": "b", "step": 1, "succeeded": 3, "failed": 0, **fields}


BEFORE = {"conditions": conditions(way="RollingOut"), "rollout": rollout(), "running": 1}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"running": 2}, COUNTER_SECONDS),
        ({"conditions": conditions(way="RollingOut", message="other words")}, COUNTER_SECONDS),
        ({"rollout": rollout(succeeded=4, failed=1)}, COUNTER_SECONDS),
        ({"conditions": conditions(way="RollingOut", others="True")}, STEP_SECONDS),
        ({"conditions": conditions(way="CrashLoop")}, AT_ONCE),
        ({"conditions": conditions(way=None)}, AT_ONCE),
        ({"rollout": rollout(step=2)}, AT_ONCE),
        ({"rollout": None}, AT_ONCE),
        ({"running": 2, "desiredReplicas": 3}, AT_ONCE),
        ({"observedGeneration": 2}, AT_ONCE),
    ],
)
def test_what_is_a_decision_or_a_transition_is_written_at_once(patch: dict[str, Any], expected: float) -> None:
    assert patience(BEFORE, patch) == expected


def test_a_condition_of_what_is_ready_is_a_transition() -> None:
    before = {"conditions": conditions(way=None)}

    assert patience(before, {"conditions": conditions(way=None, others="True")}) == AT_ONCE
