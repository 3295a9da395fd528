# SPDX-License-Identifier: Apache-2.0
"""What a user writes: one async function (or a class with one) that takes a task and a context.

    async def handle(task: Task, ctx: Context) -> Any:
        ctx.log.info("counting")
        return {"words": len(task.payload["text"].split())}

`task: Task[Question]` says what the payload is: it arrives as a `Question`, a task with anything else fails with the
code INVALID_PAYLOAD, and together with the docstring it is what callers over MCP and A2A are shown.

It returns any JSON value. It may raise PermanentError (do not try again) or TemporaryError(delay=…) (try again then);
any other exception is a failed attempt and is retried by the queue's policy. It may run more than once for the same
task (at-least-once), so effects outside should be idempotent: `task.id` is the natural key.

The context
    progress, partial           what the attempt says while it runs; subscribers get it at once
    parents                     how the tasks ended that this one depends on
    submit, send, call,         tasks for other agents of the same queue; all survive the end of this process once
    broadcast                   they have returned, as any task does
    cancelled                   whether, and why, the attempt is told to stop
    log                         a logger whose lines name the agent and the task

Being told to stop
    An attempt is stopped by `asyncio.CancelledError` at the `await` it is in: when its time is over, when its task is
    cancelled or expires (within a second), when somebody else has the task now, and when the process ends and its
    drain is over. `ctx.cancelled.reason` says which. Clean up and pass the error on; what is returned all the same
    counts only at the end of a drain. Threads are not stopped by it: let them look at `ctx.cancelled`.

Batch handlers
    With `spec.batch` of the Agent, the handler is an `async def handle(tasks, ctx)`: it gets a list of tasks and
    returns a list of as many results in the same order. An element that is an exception fails that task only.
"""

from agent_runtime.agent.attempt import Cancellation, StopReason
from agent_runtime.agent.context import BatchContext, Context
from agent_runtime.agent.interface import Contract, contract_of
from agent_runtime.agent.loading import BatchHandler, Handler, load_batch_handler, load_handler
from agent_runtime.agent.task import Task

__all__ = [
    "BatchContext",
    "BatchHandler",
    "Cancellation",
    "Context",
    "Contract",
    "Handler",
    "StopReason",
    "Task",
    "contract_of",
    "load_batch_handler",
    "load_handler",
]
