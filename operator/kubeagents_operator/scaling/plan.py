# SPDX-License-Identifier: Apache-2.0
"""The outcome of all thinking about replicas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeagents_operator.status.conditions import Fact


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """How many replicas an Agent has."""

    wanted: int
    """How many there should be."""
    kept: int
    """How many its Deployments keep for now: more than wanted while some that are to go finish their tasks."""
    facts: tuple[Fact, ...] = ()
    """Conditions about it."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status about it."""
    again: float | None = None
    """Seconds after which to think again."""


def by_spec(*, replicas: int, suspended: bool) -> ReplicaPlan:
    """The plan of an Agent whose replicas somebody else decides."""
    wanted = 0 if suspended else replicas
    return ReplicaPlan(wanted=wanted, kept=wanted)
