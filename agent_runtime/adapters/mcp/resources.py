# SPDX-License-Identifier: Apache-2.0
"""Queues and tasks as resources.

kubeagents://queues/{queue}                 figures of a queue
kubeagents://queues/{queue}/tasks/{task}    a task: its state, its result once it has one, why it failed
"""

import re
from typing import Final

from mcp_types import ReadResourceResult, Resource, ResourceTemplate, TextResourceContents
from pydantic import BaseModel

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.mcp.errors import UnknownResourceError

JSON: Final = "application/json"
_QUEUE = re.compile(r"kubeagents://queues/([^/]+)")
_TASK = re.compile(r"kubeagents://queues/([^/]+)/tasks/([^/]+)")


def queue_uri(queue: str) -> str:
    """Where the figures of a queue are."""
    return f"kubeagents://queues/{queue}"


def task_uri(queue: str, task_id: str) -> str:
    """Where a task is. Names of queues and tasks have no characters that an URI has to escape."""
    return f"{queue_uri(queue)}/tasks/{task_id}"


def task_name(queue: str, task_id: str) -> str:
    """What tasks are called in the tasks extension: all that any replica needs to find it."""
    return f"{queue}/{task_id}"


TEMPLATES: Final = (
    ResourceTemplate(
        name="task",
        title="Task",
        uri_template=task_uri("{queue}", "{task}"),
        description="A task: its state, its result once it has one, and why it failed if it did.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        name="queue",
        title="Queue",
        uri_template=queue_uri("{queue}"),
        description="Figures of a queue: how many tasks wait, run, have failed.",
        mime_type=JSON,
    ),
)


def listed(core: Core) -> list[Resource]:
    """The queues that the caller may use. Tasks are too many to list."""
    return [
        Resource(name=name, uri=queue_uri(name), description=f"Figures of the queue {name}.", mime_type=JSON)
        for name in core.queue_names
    ]


async def read(core: Core, uri: str) -> ReadResourceResult:
    """A resource. Raises UnknownResourceError, TaskNotFoundError, QueueNotFoundError."""
    found: BaseModel
    if task := _TASK.fullmatch(uri):
        found = await core.task(task[1], task[2])
    elif queue := _QUEUE.fullmatch(uri):
        found = await core.stats(queue[1])
    else:
        shapes = " or ".join(template.uri_template for template in TEMPLATES)
        raise UnknownResourceError(f"there is no resource {uri!r}: write {shapes}")
    text = found.model_dump_json(by_alias=True, exclude_none=True)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type=JSON)])
