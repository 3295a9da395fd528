# SPDX-License-Identifier: Apache-2.0
"""The core of an Agent's own pods, where its manifest has endpoints: a CentralAgent for itself alone.

Tasks that are submitted here go into the Agent's queue, like all others: any pod of the Agent may get them. So a client
that reaches one pod is served by all, and nothing is lost when that pod goes.
"""

from collections.abc import Sequence
from typing import Final

from agent_runtime.central.core import Central
from agent_runtime.central.served import ServedQueue
from agent_runtime.leader.alone import AloneElector
from agent_runtime.queue.base import Gate
from kubeagents_api.errors import ForbiddenError, InvalidTaskError
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, LeaderConfig
from kubeagents_api.task import TaskRequest

_TIMEOUT_BEATS: Final = 3
"""Missed heartbeats after which a process counts as unhealthy."""


class Dedicated(Central):
    """The core for one Agent."""

    def __init__(self, config: AgentConfig, *, instance: str, queue: ServedQueue) -> None:
        central = CentralAgentConfig(
            name=config.name,
            namespace=config.namespace,
            queues=[config.queue],
            leader=LeaderConfig(type="alone", lease_name=config.name, lease_duration_seconds=15),
            agent_timeout_seconds=_TIMEOUT_BEATS * config.heartbeat_seconds,
            endpoints=config.endpoints,
            port=config.port,
        )
        super().__init__(central, instance=instance, queues=[queue], elector=AloneElector(identity=instance))

    def named(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[TaskRequest]:
        """As in every core; in addition, all are for this Agent. Raises InvalidTaskError for one that is not."""
        return super().named(queue, self._ours(tasks))

    async def submit(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[str]:
        """Queue the tasks for this Agent."""
        return await super().submit(queue, self._ours(tasks))

    async def set_gate(self, queue: str, gate: Gate, *, shut: bool, by: str) -> None:
        """Not here: the queue may have other Agents. Raises ForbiddenError."""
        raise ForbiddenError("an Agent's own endpoint cannot pause or close its queue: ask a CentralAgent")

    async def set_cordon(self, queue: str, instances: Sequence[str], *, cordoned: bool, by: str) -> None:
        """Not here. Raises ForbiddenError."""
        raise ForbiddenError("an Agent's own endpoint cannot cordon processes: ask a CentralAgent")

    def _ours(self, tasks: Sequence[TaskRequest]) -> list[TaskRequest]:
        return [self._our(task) for task in tasks]

    def _our(self, task: TaskRequest) -> TaskRequest:
        if task.agent not in (None, self.name):
            raise InvalidTaskError(
                f"this is the endpoint of Agent {self.name}, the task is for {task.agent!r}: leave `agent` out, or "
                "submit it to a CentralAgent",
                field="agent",
            )
        for field in ("capability", "instance"):
            if getattr(task, field) is not None:
                raise InvalidTaskError(
                    f"this is the endpoint of Agent {self.name}, whose pods share its tasks: leave `{field}` out, or "
                    "submit it to a CentralAgent",
                    field=field,
                )
        return task if task.agent is not None else task.model_copy(update={"agent": self.name})
