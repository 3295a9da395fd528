# SPDX-License-Identifier: Apache-2.0
"""Holding a queue's gates to what its manifest says: for the operator, and for `kubeagents dev`."""

from collections.abc import Set as AbstractSet
from typing import Final

from agent_runtime.queue.base import Gate, TaskQueue
from kubeagents_api.task import QueueStats
from kubeagents_api.task_queue import TaskQueueSpec

SPEC: Final = "spec"
"""Who shuts a gate when the TaskQueue's own spec wants it shut."""


def shut_by_spec(spec: TaskQueueSpec) -> frozenset[Gate]:
    """The gates that the spec wants shut."""
    wanted = {Gate.CLAIMS: spec.paused, Gate.SUBMISSIONS: spec.closed}
    return frozenset(gate for gate, shut in wanted.items() if shut)


async def hold_gates(queue: TaskQueue, stats: QueueStats, *, shut: AbstractSet[Gate]) -> bool:
    """Shut these gates and open the others, as far as the spec is concerned; whether anything had to be done.

    What somebody else has shut stays shut. `stats` is what the queue has said last.
    """
    shut_now = {Gate.CLAIMS: SPEC in stats.paused_by, Gate.SUBMISSIONS: SPEC in stats.closed_by}
    wrong = [gate for gate, is_shut in shut_now.items() if is_shut != (gate in shut)]
    for gate in wrong:
        await queue.set_gate(gate, shut=gate in shut, by=SPEC)
    return bool(wrong)
