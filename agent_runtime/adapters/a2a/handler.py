# SPDX-License-Identifier: Apache-2.0
"""What the operations of A2A do, whatever the binding: each is one call of the core, or a few.

Nothing is kept in this process, so any replica may answer any call about any task.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers import RequestHandler
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    UnsupportedOperationError,
)

from agent_runtime.adapters.a2a import tasks
from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.a2a.agents import known_agents
from agent_runtime.adapters.a2a.calls import Call
from agent_runtime.adapters.a2a.cards import Cards
from agent_runtime.adapters.a2a.conversations import Origin
from agent_runtime.adapters.a2a.errors import answering, invalid, streaming
from agent_runtime.adapters.a2a.push import Configs
from agent_runtime.adapters.a2a.updates import follow
from agent_runtime.security import GuardedCore
from kubeagents_api.errors import TaskNotFoundError
from kubeagents_api.task import TASK_ID, TaskRecord
from kubeagents_api.task import TaskState as OurState

_LOOK_SECONDS: Final = 300.0
"""The longest wait for a result in one call of the core."""
_BY: Final = "a2a"


class Handler(RequestHandler):
    """The operations."""

    def __init__(self, cards: Cards, configs: Configs | None) -> None:
        self._cards = cards
        self._configs = configs

    @answering
    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task | Message:
        """Queue a task, and wait until it has ended unless told to return at once, or this pod is about to stop."""
        call, history = Call.of(context), _history(params.configuration)
        async with call.unless_gone():
            address, queue, task_id = await self._submitted(call, params)
            if params.configuration.return_immediately:
                record = await call.core.task(queue, task_id)
            else:
                record = await _ended(call, queue, task_id)
        return tasks.task(record, address, history=history)

    @streaming
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Queue a task, and tell what it says until it has ended."""
        call, history = Call.of(context), _history(params.configuration)
        async with call.unless_gone():
            address, queue, task_id = await self._submitted(call, params)
            record = await call.core.task(queue, task_id)
        yield tasks.task(record, address, history=history)
        if not record.state.final:
            async for event in follow(call.core, record, address):
                yield event

    @streaming
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Tell what a task says, from its beginning on, until it has ended."""
        call = Call.of(context)
        address = await call.to(params.tenant)
        record = await _task(call, address, params.id)
        if record.state.final:
            raise UnsupportedOperationError(
                f"the task {params.id!r} has ended, {record.state.value}: get it instead", {"code": "TASK_ENDED"}
            )
        yield tasks.task(record, address)
        async for event in follow(call.core, record, address):
            yield event

    @answering
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        """A task as it is now."""
        call, history = Call.of(context), _history(params)
        address = await call.to(params.tenant)
        return tasks.task(await _task(call, address, params.id), address, history=history)

    @answering
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task | None:
        """End a task. One that is cancelled already stays so; one that has ended otherwise is an error."""
        call = Call.of(context)
        address = await call.to(params.tenant)
        record = await _task(call, address, params.id)
        (state,) = await call.core.cancel(record.queue, [record.id], by=_BY, reason="cancelled over A2A")
        if state is not OurState.CANCELLED:
            raise TaskNotCancelableError(f"the task {params.id!r} has ended, {state.value}", {"code": "TASK_ENDED"})
        return tasks.task(await call.core.task(record.queue, record.id), address)

    @answering
    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """There is no index of tasks by conversation."""
        raise UnsupportedOperationError("tasks cannot be listed here: ask for each by its id", {"code": "UNSUPPORTED"})

    @answering
    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """The whole card, as far as it concerns the caller."""
        call = Call.of(context)
        return await self._cards.whole(call.core, await call.to(params.tenant), base_url=call.base_url)

    @answering
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Have what a task says posted somewhere. One with the same id is replaced."""
        call = Call.of(context)
        await self._pushes().check(params)
        address = await call.to(params.tenant)
        return await self._subscribed(call, params, address, await _task(call, address, params.task_id))

    @answering
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """One of the caller's configs."""
        call, configs = Call.of(context), self._pushes()
        record = await _task(call, await call.to(params.tenant), params.task_id)
        return await configs.get(params.id, record, sender=call.sender)

    @answering
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """The caller's configs for a task; all of them at once."""
        call, configs = Call.of(context), self._pushes()
        record = await _task(call, await call.to(params.tenant), params.task_id)
        return ListTaskPushNotificationConfigsResponse(configs=await configs.of_task(record, sender=call.sender))

    @answering
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Post no more."""
        call, configs = Call.of(context), self._pushes()
        record = await _task(call, await call.to(params.tenant), params.task_id)
        await configs.remove(params.id, record, sender=call.sender)

    async def _submitted(self, call: Call, params: SendMessageRequest) -> tuple[Address, str, str]:
        """Queue the task for a message; whom it is for, and its queue and id."""
        push = None
        if params.configuration.HasField("task_push_notification_config"):
            push = params.configuration.task_push_notification_config
            await self._pushes().check(push)
        address = await call.to(params.tenant)
        message = params.message
        if message.task_id:
            await _task(call, address, message.task_id)
            raise UnsupportedOperationError(
                "a task takes no further messages here: send a new one, with its contextId", {"code": "UNSUPPORTED"}
            )
        origin = Origin.of_message(message.message_id, message.context_id, sender=call.sender, receiver=str(address))
        request = tasks.request(params, address, origin)
        queue = request.queue or await _queue_for(call, request.agent, request.capability)
        (task_id,) = await call.core.submit(queue, [request])
        if push is not None:
            await self._subscribed(call, push, address, await call.core.task(queue, task_id))
        return address, queue, task_id

    async def _subscribed(
        self, call: Call, config: TaskPushNotificationConfig, address: Address, record: TaskRecord
    ) -> TaskPushNotificationConfig:
        """Keep a config for a task. Who may not submit may not have others called either."""
        core, configs = call.core, self._pushes()
        with core.telling("push", record) if isinstance(core, GuardedCore) else contextlib.nullcontext():
            return await configs.put(config, record, address, sender=call.sender)

    def _pushes(self) -> Configs:
        if self._configs is None:
            raise PushNotificationNotSupportedError(
                "there are no push notifications here: stream, or ask again", {"code": "UNSUPPORTED"}
            )
        return self._configs


async def _queue_for(call: Call, agent: str | None, capability: str | None) -> str:
    """The queue for what may be in any: that of the Agent, or one where somebody has the capability."""
    names = call.core.queue_names
    if agent is not None:
        return (await Address(agent).settled(call.core)).queue or names[0]
    if capability is not None:
        able = {one.queue for one in await known_agents(call.core) if capability in one.capabilities}
        return next((name for name in names if name in able), names[0])
    return names[0]


async def _task(call: Call, address: Address, name: str) -> TaskRecord:
    """A task of an address. Raises TaskNotFoundError."""
    queue, task_id = address.task(name, call.core)
    if not TASK_ID.fullmatch(task_id):
        raise TaskNotFoundError(f"there is no task {name[:200]!r}")
    record = await call.core.task(queue, task_id)
    if address.agent is not None and record.agent != address.agent:
        raise TaskNotFoundError(f"there is no task {name!r} of the Agent {address.agent!r}")
    return record


async def _ended(call: Call, queue: str, task_id: str) -> TaskRecord:
    while True:
        (record,) = await call.core.results(queue, [task_id], timeout_seconds=_LOOK_SECONDS)
        if record.state.final or call.core.draining:
            return record


def _history(asked: Any) -> int | None:
    """How many messages of the history are wanted, if any are."""
    if not asked.HasField("history_length"):
        return None
    if asked.history_length < 0:
        raise invalid("historyLength", "must not be negative")
    length: int = asked.history_length
    return length
