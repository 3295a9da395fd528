# SPDX-License-Identifier: Apache-2.0
"""Conditions and reasons are API: none is promised that nothing ever says."""

import re
from pathlib import Path

import pytest

from kubeagents_api.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[3]
SAID = {
    match
    for folder in ("operator", "agent_runtime")
    for path in (ROOT / folder).rglob("*.py")
    for match in re.findall(r"\b((?:ConditionType|Reason)\.[A-Z_]+)\b", path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("one", [*ConditionType, *Reason], ids=lambda one: f"{type(one).__name__}-{one}")
def test_every_condition_and_reason_is_said_by_somebody(one: ConditionType | Reason) -> None:
    assert f"{type(one).__name__}.{one.name}" in SAID
