# SPDX-License-Identifier: Apache-2.0
"""The service Tasks: for those who have work done."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import tasks
from agent_runtime.adapters.calls.errors import DrainingError
from agent_runtime.adapters.calls.parameters import Cancellation, SomeResults
from agent_runtime.adapters.grpc import reading, writing
from agent_runtime.adapters.grpc.envelope import Call, Message
from agent_runtime.adapters.grpc.errors import RefusedError
from agent_runtime.adapters.grpc.gathering import Gathering
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.errors import KubeagentsError, PayloadTooLargeError, TaskNotFoundError
from kubeagents_api.task import TaskRecord, TaskRequest

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 300.0
"""The longest wait in one call of the core."""
TASK_ID_NAME: Final = "x-task-id"
"""Initial metadata of Run."""
BATCH_TASKS: Final = 10_000
BATCH_BYTES: Final = 32 * 1024 * 1024
_CLOSE_SECONDS: Final = 0.5
"""A call that ends so shortly before its deadline has run into it: the clocks of two machines are not the same."""


class Tasks:
    """See the proto."""

    def __init__(self) -> None:
        self._gathering = Gathering()
        self._calling_off: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait until the tasks are cancelled whose callers have gone."""
        if self._calling_off:
            await asyncio.wait(self._calling_off)

    async def submit(self, call: Call, request: Message) -> Message:
        task = reading.new_task(request.task)
        if request.deadline_from_call:
            task = _in_time(call, task)
        async with self._gathering:
            done = await tasks.submit(call.core, task)
        return pb.SubmitResponse(id=done.id, queue=done.queue, state=writing.STATES[done.state], merged=done.merged)

    async def submit_batch(self, call: Call, requests: AsyncIterator[Message]) -> Message:
        batch: list[TaskRequest] = []
        size = 0
        async for request in requests:
            size += request.ByteSize()
            if size > BATCH_BYTES:
                raise PayloadTooLargeError(f"the batch has more than {BATCH_BYTES} bytes: split it", field="tasks")
            batch += [
                reading.new_task(message, where=f"tasks.{index}")
                for index, message in enumerate(request.tasks, len(batch))
            ]
            if len(batch) > BATCH_TASKS:
                raise RefusedError(f"the batch has more than {BATCH_TASKS} tasks: split it", field="tasks")
        # To a server, a call that is cancelled looks for a moment like one whose stream has ended. But it takes no
        # answer any more, so this raises then.
        await call.context.send_initial_metadata(())
        if not batch:
            raise RefusedError("the batch has no tasks", field="tasks")
        if len({task.queue for task in batch}) > 1:
            raise RefusedError(
                "the tasks of a batch must all be for one queue: split the batch by queue", field="tasks"
            )
        done = await tasks.submit_batch(call.core, batch)
        return pb.SubmitBatchResponse(ids=done.ids, queue=done.queue, merged=done.merged)

    async def run(self, call: Call, request: Message) -> Message:
        task = _in_time(call, reading.new_task(request.task))
        async with self._gathering:
            done = await tasks.submit(call.core, task)
        await call.context.send_initial_metadata(((TASK_ID_NAME, done.id),))
        try:
            record = await _ended(call.core, done.queue, done.id)
        except asyncio.CancelledError:
            # A task with an idempotency key may be somebody else's as well.
            if task.idempotency_key is None and _given_up(call):
                self._call_off(call.core, done.queue, done.id, by=call.author)
            raise
        if not record.state.final:
            raise DrainingError(
                f"this pod is about to stop, and task {done.id} goes on: ask another one for its result"
            )
        return writing.task(record)

    async def get_task(self, call: Call, request: Message) -> Message:
        return writing.task(await call.core.task(call.queue(request.queue), reading.task_id(request.id)))

    async def result(self, call: Call, request: Message) -> Message:
        wait = reading.wait_seconds(request, default=-1, most=LOOK_SECONDS)
        queue, task_id = call.queue(request.queue), reading.task_id(request.id)
        if wait < 0:
            return writing.task(await _ended(call.core, queue, task_id))
        (record,) = await call.core.results(queue, [task_id], timeout_seconds=wait)
        return writing.task(record)

    async def results(self, call: Call, request: Message) -> Message:
        wait = reading.wait_seconds(request, default=-1, most=LOOK_SECONDS)
        asked = reading.checked(SomeResults, {"ids": list(request.ids), "timeout_seconds": max(0.0, wait)})
        queue = call.queue(request.queue)
        while True:
            timeout = asked.timeout_seconds if wait >= 0 else LOOK_SECONDS
            found = await tasks.results(call.core, queue, asked.ids, timeout_seconds=timeout)
            if wait >= 0 or not found.pending or call.core.draining:
                return pb.ResultsResponse(tasks=[writing.task(one) for one in found.tasks], pending=found.pending)

    async def cancel(self, call: Call, request: Message) -> Message:
        fields = {"ids": list(request.ids), "reason": request.reason, "by": request.by or None}
        asked = reading.checked(Cancellation, fields)
        queue = call.queue(request.queue)
        done = await tasks.cancel(call.core, queue, asked.ids, by=asked.by or call.author, reason=asked.reason)
        said = [pb.CancelResponse.Cancelled(id=one.id, state=writing.STATES[one.state]) for one in done.tasks]
        return pb.CancelResponse(tasks=said)

    async def watch(self, call: Call, request: Message) -> AsyncGenerator[Message, None]:
        core, queue, task_id = call.core, call.queue(request.queue), reading.task_id(request.id)
        items: Any = core.stream(queue, task_id, after=request.after)
        async with aclosing(items):
            async for item in items:
                yield pb.WatchResponse(item=writing.stream_item(item))
        if core.draining:
            raise DrainingError("this pod is about to stop: go on at another one, after the last offset")
        try:
            state = (await core.task(queue, task_id)).state
        except TaskNotFoundError:
            state = None
        yield pb.WatchResponse(end=pb.StreamEnd(state=writing.STATES[state]))

    def _call_off(self, core: Core, queue: str, task_id: str, *, by: str) -> None:
        """Cancel a task in the background: the call that wanted it has ended."""

        async def cancel() -> None:
            try:
                await core.cancel(queue, [task_id], by=by, reason="its caller has cancelled the call")
            except KubeagentsError as error:
                _log.info("task %s, whose caller has gone, cannot be cancelled and goes on: %s", task_id, error)

        calling = asyncio.create_task(cancel())
        self._calling_off.add(calling)
        calling.add_done_callback(self._calling_off.discard)


async def _ended(core: Core, queue: str, task_id: str) -> TaskRecord:
    """The task once it has ended, or as it is when the process drains."""
    while True:
        (record,) = await core.results(queue, [task_id], timeout_seconds=LOOK_SECONDS)
        if record.state.final or core.draining:
            return record


def _in_time(call: Call, task: TaskRequest) -> TaskRequest:
    """The task with the deadline of the call, unless it has one."""
    left = call.seconds_left
    if task.deadline is not None or left is None:
        return task
    deadline = reading.within(left)
    if task.not_before is not None and task.not_before >= deadline:
        raise RefusedError("the task must not begin before the deadline of the call has passed", field="notBefore")
    return task.model_copy(update={"deadline": deadline})


def _given_up(call: Call) -> bool:
    """Whether it was the caller who has ended the call, neither its deadline, which is the task's too, nor we."""
    left = call.seconds_left
    return not call.core.draining and (left is None or left > _CLOSE_SECONDS)
