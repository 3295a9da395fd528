# SPDX-License-Identifier: Apache-2.0
"""What clients do with tasks, in the same way on HTTP and in frames."""

from collections.abc import Sequence

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http.models import (
    CancelledTasks,
    Gates,
    Results,
    SubmittedBatch,
    SubmittedTask,
    TaskInState,
)
from agent_runtime.queue.base import Gate
from agent_runtime.queue.gates import SPEC
from kubeagents_api.errors import InvalidTaskError, QueueUnavailableError, TaskNotFoundError
from kubeagents_api.task import TaskRequest, TaskState


def chosen(core: Core, queue: str | None) -> str:
    """The queue that is meant."""
    return queue or core.queue_names[0]


async def submit(core: Core, task: TaskRequest) -> SubmittedTask:
    """Queue one task."""
    queue = chosen(core, task.queue)
    (named,) = core.named(queue, [task])
    (found,) = await core.submit(queue, [named])
    merged = named.id is not None and found != named.id
    state = await _state(core, queue, named, found, merged=merged)
    return SubmittedTask(id=found, queue=queue, state=state, merged=merged)


async def submit_batch(core: Core, tasks: Sequence[TaskRequest]) -> SubmittedBatch:
    """Queue tasks of one queue, all or none."""
    queue = chosen(core, tasks[0].queue)
    named = core.named(queue, tasks)
    ids = await core.submit(queue, named)
    merged = [found for task, found in zip(named, ids, strict=True) if task.id is not None and task.id != found]
    return SubmittedBatch(ids=list(ids), queue=queue, merged=merged)


async def results(core: Core, queue: str, ids: Sequence[str], *, timeout_seconds: float) -> Results:
    """The tasks that are final once all are, or the time is over, and the ids of the others."""
    records = await core.results(queue, ids, timeout_seconds=timeout_seconds)
    final = [record for record in records if record.state.final]
    return Results(tasks=final, pending=[record.id for record in records if not record.state.final])


async def cancel(core: Core, queue: str, ids: Sequence[str], *, by: str, reason: str) -> CancelledTasks:
    """Cancel tasks that have not ended."""
    states = await core.cancel(queue, ids, by=by, reason=reason)
    tasks = [TaskInState(id=task, state=state) for task, state in zip(ids, states, strict=True)]
    return CancelledTasks(queue=queue, tasks=tasks)


async def set_gate(core: Core, queue: str, gate: Gate, *, shut: bool, by: str) -> Gates:
    """Shut a gate of the queue, or take that back."""
    if by == SPEC:
        raise InvalidTaskError(f"by: {SPEC!r} stands for the TaskQueue's own setting: change the manifest", field="by")
    await core.set_gate(queue, gate, shut=shut, by=by)
    stats = await core.stats(queue)
    return Gates(queue=queue, paused_by=stats.paused_by, closed_by=stats.closed_by)


async def _state(core: Core, queue: str, task: TaskRequest, task_id: str, *, merged: bool) -> TaskState | None:
    """Where a submitted task is. Only the queue knows whether its parents have ended and what time it is."""
    if not (merged or task.depends_on or task.not_before):
        return TaskState.SCHEDULED if task.delay_seconds else TaskState.QUEUED
    try:
        return (await core.task(queue, task_id)).state
    except (QueueUnavailableError, TaskNotFoundError):
        return None  # the task is submitted: an error would say that it is not
