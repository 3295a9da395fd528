# SPDX-License-Identifier: Apache-2.0
"""Messages between agents: each is a task, with all that the queue guarantees for one.

What has been submitted is done whatever becomes of its sender. But a sender may run more than once, and sends more than
once then, unless it names what is to be done: with `idempotency_key=f"{task.id}.invoice"` a second `send` is merged
with the first one, and a second `call` gets the first one's result.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_runtime.agent.process import AgentProcess
from kubeagents_api.errors import InvalidTaskError, KubeagentsError, PermanentError, TemporaryError
from kubeagents_api.task import TaskRecord, TaskRequest, TaskState, task_of

_log = logging.getLogger(__name__)

_CALL_SLACK_SECONDS = 10.0
"""How much later than its caller stops waiting a called task expires by itself. It is cancelled before; this is for
callers that cannot do so any more, and more than the clocks of two machines should differ by."""


class Messages:
    """Sends tasks to other agents of the same queue.

    All raise InvalidTaskError, which names the field, for what is no valid task; QueueClosedError and QueueFullError if
    the queue takes none; QueueUnavailableError if it does not answer. A handler that lets the latter two pass is
    retried, as they are temporary.
    """

    __slots__ = ("_process",)

    def __init__(self, process: AgentProcess) -> None:
        self._process = process

    @property
    def agent(self) -> str:
        """Name of the Agent."""
        return self._process.worker.agent

    @property
    def instance(self) -> str:
        """Name of this process; in a cluster the pod's name."""
        return self._process.worker.instance

    @property
    def queue(self) -> str:
        """Name of the TaskQueue."""
        return self._process.queue.name

    async def submit(self, task: TaskRequest | None = None, /, **fields: Any) -> str:
        """Queue a task, given as a TaskRequest or by its fields, and return its id.

        The fields are those of TaskRequest: `agent`, `capability` or `instance` say who does it (with none, any agent
        of the queue), `payload`, `type`, `priority`, `delay_seconds`, `depends_on`, `idempotency_key` and so on.
        """
        if task is not None and fields:
            raise InvalidTaskError("give a TaskRequest or its fields, not both", field=next(iter(fields)))
        return (await self.submit_all([task_of(fields) if task is None else task]))[0]

    async def submit_all(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """Queue tasks atomically, all or none, and return their ids. They may depend on one another by `id`."""
        for task in tasks:
            if task.queue not in (None, self._process.queue.name):
                raise InvalidTaskError(
                    f"the task is for queue {task.queue!r}, an agent sends to its own one only, "
                    f"{self._process.queue.name!r}: leave `queue` out",
                    field="queue",
                )
        return await self._process.queue.submit(tasks)

    async def send(
        self,
        payload: Any = None,
        *,
        agent: str | None = None,
        capability: str | None = None,
        instance: str | None = None,
        **fields: Any,
    ) -> str:
        """Queue a task for one agent, one capability or one process, and return its id without waiting for it.

        `fields` are further ones of TaskRequest. A task for an `instance` waits for just that process.
        """
        target = _target(agent=agent, capability=capability, instance=instance)
        return await self.submit(payload=payload, **target, **fields)

    async def call(
        self,
        payload: Any = None,
        *,
        agent: str | None = None,
        capability: str | None = None,
        instance: str | None = None,
        timeout_seconds: float = 60.0,
        **fields: Any,
    ) -> Any:
        """Like `send`, but wait for up to `timeout_seconds` for what the other handler returns, and return that.

        Its failure is raised here, with its code: PermanentError if it failed for good or was cancelled,
        TemporaryError if it used up its attempts, expired, or took too long (code CALL_TIMEOUT).

        When nobody waits any more, because the time is over or this attempt is told to stop, the called task is
        cancelled, unless it has an `idempotency_key`: then the next attempt, which calls again, gets its result.

        The caller keeps its slot meanwhile. Agents that call each other in a circle may therefore wait for one another
        until their time is over.
        """
        if timeout_seconds <= 0:
            raise InvalidTaskError(
                f"timeout_seconds is {timeout_seconds}, it must be more than 0", field="timeout_seconds"
            )
        fields.setdefault("deadline", datetime.now(UTC) + timedelta(seconds=timeout_seconds + _CALL_SLACK_SECONDS))
        target = _target(agent=agent, capability=capability, instance=instance)
        request = task_of(dict(payload=payload, **target, **fields))
        (task_id,) = await self.submit_all([request])
        shared = request.idempotency_key is not None
        try:
            (record,) = await self._process.queue.wait([task_id], timeout_seconds=timeout_seconds)
        except asyncio.CancelledError:
            if not shared:
                self._process.afterwards(self._call_off(task_id, "its caller was told to stop"))
            raise
        if not record.state.final:
            if not shared:
                await self._call_off(task_id, f"its caller has waited for {timeout_seconds:g} s")
            raise _coded(
                TemporaryError(f"called task {task_id} is {record.state} after {timeout_seconds:g} s"), "CALL_TIMEOUT"
            )
        return _answer(record)

    async def broadcast(
        self, payload: Any = None, *, agent: str | None = None, capability: str | None = None, **fields: Any
    ) -> list[str]:
        """Queue one task for each living process of an agent, or of all agents with a capability, and return the ids.

        All or none, in one batch. Who lives is what the registry knows now: processes whose heartbeats are recent and
        which are neither about to stop nor cordoned; this process too, if it belongs to the group. Empty if there is
        none.
        """
        target = _target(agent=agent, capability=capability)
        instances = await self._process.queue.instances(timeout_seconds=self._process.alive_seconds)
        requests = [
            task_of(dict(payload=payload, instance=info.instance, **fields))
            for info in instances
            if info.takes_tasks and (target.get("agent") == info.agent or target.get("capability") in info.capabilities)
        ]
        return await self.submit_all(requests) if requests else []

    async def _call_off(self, task_id: str, reason: str) -> None:
        try:
            await self._process.queue.cancel([task_id], by=self._process.worker.instance, reason=reason)
        except KubeagentsError as error:
            _log.warning("called task %s cannot be cancelled, it expires by itself: %s", task_id, error)


def _target(**targets: str | None) -> dict[str, str]:
    """The one that is set."""
    given = {field: value for field, value in targets.items() if value is not None}
    if len(given) != 1:
        raise InvalidTaskError(f"give exactly one of {', '.join(targets)}; {len(given)} are given", field="agent")
    return given


def _answer(record: TaskRecord) -> Any:
    """What a called task returned; its failure is raised."""
    if record.state is TaskState.SUCCEEDED:
        return record.result
    failure = record.failures[-1] if record.failures else None
    message = f"called task {record.id} is {record.state}"
    if failure is not None:
        message += f": {failure.message}"
    temporary = record.state in (TaskState.DEAD, TaskState.EXPIRED)
    error = TemporaryError(message) if temporary else PermanentError(message)
    raise _coded(error, "FAILED" if failure is None else failure.code)


def _coded(error: KubeagentsError, code: str) -> KubeagentsError:
    error.code = code
    return error
