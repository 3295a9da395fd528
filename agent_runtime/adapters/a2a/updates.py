# SPDX-License-Identifier: Apache-2.0
"""What a task says while it runs, as updates of A2A."""

from collections.abc import AsyncGenerator, Collection
from typing import Any

from a2a.server.events import Event
from a2a.types import TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent

from agent_runtime.adapters.a2a import tasks
from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.a2a.conversations import Origin
from agent_runtime.adapters.a2a.parts import struct
from agent_runtime.adapters.base import Core
from kubeagents_api.task import StreamItem, TaskRecord
from kubeagents_api.task import TaskState as OurState


async def follow(
    core: Core, record: TaskRecord, address: Address, *, after: str = "", begun: Collection[int] = ()
) -> AsyncGenerator[Event, None]:
    """From the beginning of the task, or after an offset, to its end, with its result.

    `begun`: the attempts of which there have been parts before. Ends without a final state if this pod is about to
    stop: follow it again, at another one.
    """
    names: dict[str, Any] = {
        "task_id": address.task_name(record.queue, record.id),
        "context_id": Origin.of_record(record).context,
    }
    known = set(begun)
    async for item in core.stream(record.queue, record.id, after=after):
        more = struct({tasks.OURS + "offset": item.offset, tasks.OURS + "attempt": item.attempt})
        if item.kind == "partial":
            artifact = tasks.partial(item)
            yield TaskArtifactUpdateEvent(**names, artifact=artifact, append=item.attempt in known, metadata=more)
            known.add(item.attempt)
        else:
            yield TaskStatusUpdateEvent(**names, status=_working(record, item), metadata=more)
    last = await core.task(record.queue, record.id)
    if not last.state.final:
        return
    if last.state is OurState.SUCCEEDED:
        yield TaskArtifactUpdateEvent(**names, artifact=tasks.result(last), append=False, last_chunk=True)
    yield TaskStatusUpdateEvent(**names, status=tasks.status(last), metadata=tasks.metadata(last))


def _working(record: TaskRecord, item: StreamItem) -> TaskStatus:
    text = "what the task has said before is not kept any more"
    more: dict[str, Any] = {"gap": True}
    if item.kind == "progress" and isinstance(item.data, dict):
        text, more = str(item.data.get("message") or ""), {"fraction": item.data.get("fraction")}
    return TaskStatus(
        state=TaskState.TASK_STATE_WORKING,
        message=tasks.said(record, text, more, number=item.offset),
        timestamp=tasks.timestamp(item.at),
    )
