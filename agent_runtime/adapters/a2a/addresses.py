# SPDX-License-Identifier: Apache-2.0
"""Who is spoken to: `billing` an Agent, `billing@orders` the one of a queue, `@orders` any Agent of a queue, `@` any at
all, which is the CentralAgent itself.

In URLs it is the part after `/a2a/`; over gRPC, which has no paths, it is the `tenant` that the agent card tells
clients to send. A task has its id in its queue, and where the address leaves the queue open it has `id@queue`.
"""

import re
from dataclasses import dataclass

from agent_runtime.adapters.a2a.agents import known_agents
from agent_runtime.adapters.base import Core
from kubeagents_api.errors import InvalidTaskError, PermanentError, QueueNotFoundError

_ADDRESS = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)?(?:@([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)?)?")


class AgentNotFoundError(PermanentError):
    """There is no such Agent, or not for whoever calls."""

    code = "AGENT_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Address:
    """Who is spoken to, as far as it was said."""

    agent: str | None = None
    queue: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises AgentNotFoundError for what can be no address. An empty text is the CentralAgent."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise AgentNotFoundError(f"{text[:130]!r} is no agent: write agent, agent@queue, @queue or @")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        if self.queue is None and self.agent is not None:
            return self.agent
        return f"{self.agent or ''}@{self.queue or ''}"

    @property
    def open(self) -> bool:
        """Whether any Agent of any queue may be meant."""
        return self.agent is None and self.queue is None

    async def settled(self, core: Core) -> "Address":
        """With the queue of the Agent, if only that was left open.

        Raises AgentNotFoundError if that cannot be told, QueueNotFoundError if the queue is not there for the caller.
        """
        if self.queue is not None:
            if self.queue not in core.queue_names:
                raise QueueNotFoundError(f"there is no queue {self.queue!r} here, only {', '.join(core.queue_names)}")
            return self
        if self.agent is None:
            return self
        queues = [found.queue for found in await known_agents(core, agent=self.agent)]
        if not queues and len(core.queue_names) == 1:
            queues = list(core.queue_names)  # it may have been scaled to zero long ago
        if len(queues) != 1:
            known = f"there is one in each of {', '.join(queues)}" if queues else "none is known"
            raise AgentNotFoundError(f"which Agent {self.agent!r} is meant? {known}: write {self.agent}@queue")
        return Address(self.agent, queues[0])

    def task_name(self, queue: str, task_id: str) -> str:
        """How a task is called at this address."""
        return task_id if self.queue is not None else f"{task_id}@{queue}"

    def task(self, name: str, core: Core) -> tuple[str, str]:
        """Queue and id of a task that is called so at this address. Raises InvalidTaskError, QueueNotFoundError."""
        task_id, _, queue = name.partition("@")
        if self.queue is not None:
            if queue and queue != self.queue:
                raise InvalidTaskError(f"the task {name[:200]!r} is not of the queue {self.queue!r}", field="id")
            return self.queue, task_id
        return queue or core.queue_names[0], task_id
