# SPDX-License-Identifier: Apache-2.0
"""The client that programs use."""

import os
import socket
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from agent_runtime.client.calls import Calls, new_id, request
from agent_runtime.client.endpoints import Endpoint, EndpointError, Key, Trust
from agent_runtime.client.faults import NotFinishedError, TaskFailedError
from agent_runtime.client.messages import Inbox, Message
from agent_runtime.client.pool import Pool
from agent_runtime.client.remote_queue import RemoteQueue
from agent_runtime.queue.base import Worker
from kubeagents_api.task import InstanceInfo, StreamItem, TaskEvent, TaskRecord, TaskRequest, TaskState

MESSAGE_TYPE: Final = "message"
"""Type of the tasks that are messages."""


@dataclass(frozen=True, slots=True)
class TaskHandle:
    """A task that was submitted."""

    id: str
    queue: str
    _client: "AgentClient" = field(repr=False, compare=False)

    async def result(self, *, timeout_seconds: float = 60.0) -> Any:
        """See AgentClient.result."""
        return await self._client.result(self, timeout_seconds=timeout_seconds)

    def stream(self, *, after: str = "") -> AsyncGenerator[StreamItem, None]:
        """See AgentClient.stream."""
        return self._client.stream(self, after=after)

    async def record(self) -> TaskRecord:
        """See AgentClient.task."""
        return await self._client.task(self)

    async def cancel(self, *, reason: str = "") -> TaskState:
        """See AgentClient.cancel."""
        return await self._client.cancel(self, reason=reason)


class AgentClient:
    """Gives tasks to agents and gets their results, over whichever endpoint works.

    All methods raise the errors of `kubeagents_api.errors` with the code that the server gave, whatever the wire;
    UnreachableError if no CentralAgent answers within `timeout_seconds`; UnauthenticatedError and ForbiddenError.
    Where a task is meant, its handle or its id will do. Use it in one event loop, as an async context manager or with
    `aclose`.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        queue: str | None = None,
        name: str | None = None,
        timeout_seconds: float = 30.0,
        ca_file: str | os.PathLike[str] | None = None,
        cert_file: str | os.PathLike[str] | None = None,
        cert_key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connects when it is first used. Raises EndpointError for what cannot ever work.

        `endpoints`: URLs in order of preference, of one CentralAgent or of several that serve the same queues:
            grpc://, grpcs://, ws://, wss://, http:// or https://.
        `key_file`: read again when a key is refused, so that it can change while the program runs.
        `queue`: for calls that name none; the first one of the server if unset.
        `name`: of this program where it receives messages; made up if unset. No other may have it.
        `timeout_seconds`: for each call, with all its repetitions, besides what it waits on purpose.
        `ca_file`, `cert_file`, `cert_key_file`: PEM files, for servers with a certificate of a private authority, and
            for those that ask for one.
        """
        urls = [endpoints] if isinstance(endpoints, str) else list(endpoints)
        if not urls:
            raise EndpointError("give at least one endpoint, for example http://127.0.0.1:8080")
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}, it must be more than 0")
        self.pool = Pool(
            [Endpoint.parse(url) for url in urls],
            key=Key(key, _path(key_file)),
            trust=Trust(_path(ca_file), _path(cert_file), _path(cert_key_file)),
        )
        """The ways to the servers, for what builds on this class."""
        self.calls = Calls(self.pool, timeout_seconds=timeout_seconds)
        """The calls below this class."""
        self._queue = queue
        self._name = name
        self._inboxes: dict[str, Inbox] = {}

    @property
    def endpoint(self) -> str | None:
        """The URL that the next call will take; None while none can be reached."""
        way = self.pool.best()
        return None if way is None else way.endpoint.url

    async def submit(self, task: TaskRequest | None = None, /, **fields: Any) -> TaskHandle:
        """Queue a task, given as a TaskRequest or by its fields: `agent`, `payload`, `type`, `priority` and so on.

        It is queued once, however often the connection breaks. Raises InvalidTaskError and its kinds, QueueClosedError,
        QueueFullError.
        """
        return (await self.submit_all([request(task, fields)]))[0]

    async def submit_all(self, tasks: Sequence[TaskRequest]) -> list[TaskHandle]:
        """Queue tasks of one queue, all or none. They may depend on one another by `id`."""
        if not tasks:
            return []
        submitted = await self.calls.submit(self._queue, tasks)
        if self._queue is None and tasks[0].queue is None:
            self._queue = submitted.queue
        return [TaskHandle(task_id, submitted.queue, self) for task_id in submitted.ids]

    async def result(self, task: TaskHandle | str, *, timeout_seconds: float = 60.0) -> Any:
        """What the task's handler returned, once it has.

        Raises TaskFailedError if it ended otherwise, NotFinishedError if it has not in this time, TaskNotFoundError.
        """
        queue, task_id = await self._place(task)
        records = await self.calls.results(queue, [task_id], timeout_seconds=timeout_seconds)
        if not records:
            raise NotFinishedError(f"task {task_id} has not ended after {timeout_seconds:g} s")
        if records[0].state is not TaskState.SUCCEEDED:
            raise TaskFailedError(records[0])
        return records[0].result

    async def wait(self, tasks: Sequence[TaskHandle | str], *, timeout_seconds: float = 60.0) -> list[TaskRecord]:
        """Those of the tasks, all of one queue, that have ended, however, once all have or the time is over."""
        if not tasks:
            return []
        queue, _ = await self._place(tasks[0])
        ids = [task if isinstance(task, str) else task.id for task in tasks]
        return await self.calls.results(queue, ids, timeout_seconds=timeout_seconds)

    async def stream(self, task: TaskHandle | str, *, after: str = "") -> AsyncGenerator[StreamItem, None]:
        """What a task says while it runs, from the offset on or from the beginning, until it has ended.

        Each item comes once, over as many connections as it takes. Raises TaskNotFoundError.
        """
        queue, task_id = await self._place(task)
        items = self.calls.watch(queue, task_id, after=after)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def events(self, *, after: str = "$") -> AsyncGenerator[TaskEvent, None]:
        """What happens in the queue from now on, or from an offset on; empty for all that is kept. Has no end.

        Each event comes once, over as many connections as it takes.
        """
        events = self.calls.events(await self._queue_name(), after=after)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def cancel(self, task: TaskHandle | str, *, reason: str = "") -> TaskState:
        """End a task that has not ended, and return the state it is in now: `cancelled`, or how it had ended before."""
        queue, task_id = await self._place(task)
        (state,) = await self.calls.cancel(queue, [task_id], by=None, reason=reason)
        return state

    async def task(self, task: TaskHandle | str) -> TaskRecord:
        """A task and all that is known about it. Raises TaskNotFoundError."""
        queue, task_id = await self._place(task)
        return await self.calls.task(queue, task_id)

    async def agents(self, *, agent: str | None = None, queue: str | None = None) -> list[InstanceInfo]:
        """The known processes of one Agent or of all, on one queue or on all."""
        return await self.calls.agents(queue=queue, agent=agent)

    async def send_message(self, agent: str, payload: Any = None, **fields: Any) -> TaskHandle:
        """Send a message to an Agent. It is a task of type `message`; `fields` are further ones of TaskRequest.

        The handle's result is what the receiver acknowledges it with.
        """
        return await self.submit(**{"agent": agent, "payload": payload, "type": MESSAGE_TYPE, **fields})

    async def receive_message(self, agent: str, *, timeout_seconds: float = 60.0) -> Message | None:
        """The next message for an Agent, and whatever else is submitted for it; None if none comes in this time.

        It is held until it is acknowledged or the client is closed. Needs the right to work for that Agent.
        """
        if agent not in self._inboxes:
            inbox = await self.inbox(agent)
            self._inboxes.setdefault(agent, await inbox.open())
        return await self._inboxes[agent].receive(timeout_seconds=timeout_seconds)

    async def inbox(self, agent: str, *, everywhere: bool = False) -> Inbox:
        """Receives messages for an Agent in `async with`.

        With `everywhere` it listens on all endpoints at once, so that it goes on without a pause when one of them
        breaks; each message is delivered once all the same.
        """
        queue = RemoteQueue(self.calls, await self._queue_name())
        return Inbox(queue, self._worker(agent), ways=self.pool.ways if everywhere else [None])

    async def messages(self, agent: str, *, everywhere: bool = False) -> AsyncGenerator[Message, None]:
        """The messages for an Agent as they come, without end. See `inbox`."""
        async with await self.inbox(agent, everywhere=everywhere) as inbox:
            async for message in inbox:
                yield message

    async def aclose(self) -> None:
        """Give back messages that were not acknowledged, and end all connections. What is under way fails."""
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            await inbox.aclose()
        await self.pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _place(self, task: TaskHandle | str) -> tuple[str, str]:
        if isinstance(task, TaskHandle):
            return task.queue, task.id
        return await self._queue_name(), task

    async def _queue_name(self) -> str:
        if self._queue is None:
            self._queue = await self.calls.queue_name(None)
        return self._queue

    def _worker(self, agent: str) -> Worker:
        if self._name is None:
            self._name = instance_name(agent)
        return Worker(agent, self._name)


def instance_name(agent: str) -> str:
    """A name for a process that no other has, and that people recognise."""
    host = "".join(sign if sign.isalnum() or sign == "-" else "-" for sign in socket.gethostname().partition(".")[0])
    return f"{agent}-{host.strip('-')[:40] or 'host'}-{new_id()[:8]}"


def _path(file: str | os.PathLike[str] | None) -> Path | None:
    return None if file is None else Path(file)
