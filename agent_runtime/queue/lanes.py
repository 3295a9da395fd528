# SPDX-License-Identifier: Apache-2.0
"""Lanes: where tasks wait by who may take them, what workers serve, and how lanes are told to people.

A lane is "" for tasks that any Agent may take, a:<agent>, c:<capability> or i:<instance>. People are told targets: "",
agent/<agent>, capability/<capability>, instance/<instance>.
"""

from collections.abc import Mapping
from typing import Final

from agent_runtime.queue.base import Worker
from kubeagents_api.task import TaskRequest

ANY_LANE: Final = ""
"""The lane of tasks that any Agent of the queue may do."""
UNROUTABLE_NAMED: Final = 20
"""Targets that nobody serves which the figures of a queue name."""
WAITING_NAMED: Final = 200
"""Targets of waiting tasks that they name."""
_KINDS: Final = {"a": "agent", "c": "capability", "i": "instance"}


def lane_of(task: TaskRequest) -> str:
    """Where a task waits."""
    if task.agent is not None:
        return f"a:{task.agent}"
    if task.capability is not None:
        return f"c:{task.capability}"
    if task.instance is not None:
        return f"i:{task.instance}"
    return ANY_LANE


def lanes_of(worker: Worker) -> list[str]:
    """Where a worker looks for tasks."""
    capabilities = (f"c:{capability}" for capability in worker.capabilities)
    return [ANY_LANE, f"a:{worker.agent}", *capabilities, f"i:{worker.instance}"]


def target_of(lane: str) -> str:
    """What tasks name that wait in a lane."""
    return f"{_KINDS[lane[0]]}/{lane[2:]}" if lane else ""


def largest(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """The targets with the most tasks, the largest first."""
    return dict(sorted(counts.items(), key=lambda target: (-target[1], target[0]))[:most])
