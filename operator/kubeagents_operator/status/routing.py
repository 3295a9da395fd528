# SPDX-License-Identifier: Apache-2.0
"""Which waiting tasks nobody will ever take.

The queue knows which ones no running process takes. That is not the same: an Agent may be scaled to zero, or its pods
may be on their way. So what the queue says is held against the Agents that refer to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubeagents_api.task import QueueStats

_NAMED = 5
"""How many targets a message names."""
_KINDS = {"agent": "Agent", "capability": "capability", "instance": "process"}


@dataclass(frozen=True, slots=True)
class Takers:
    """What the Agents of a queue take, whether a pod of theirs runs or not."""

    agents: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()
    """Their pods."""

    def unroutable(self, stats: QueueStats) -> dict[str, int]:
        """Target, for example `agent/billing` -> how many tasks wait for it in vain."""
        taken = {
            *(f"agent/{name}" for name in self.agents),
            *(f"capability/{name}" for name in self.capabilities),
            *(f"instance/{name}" for name in self.instances),
        }
        return {target: count for target, count in stats.unroutable_targets.items() if target not in taken}


def described(targets: Mapping[str, int]) -> str:
    """The targets, for people."""
    names = [_described(target) for target in sorted(targets)]
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} more"]
    return listed(names)


def _described(target: str) -> str:
    kind, _, name = target.partition("/")
    return f'{_KINDS.get(kind, kind)} "{name}"'


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
