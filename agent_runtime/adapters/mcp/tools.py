# SPDX-License-Identifier: Apache-2.0
"""Which tools there are for a caller, and what they are called.

An Agent is a tool of its name, a capability likewise. Where two would have the same name, the Agent keeps it, and what
is in several queues is named `<queue>.<name>`; that longer name always works. (A capability that is named as an Agent
of the same queue is `<queue>.capability.<name>`.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mcp_types import Tool

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.mcp.errors import UnknownToolError
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.interface import InterfaceInfo

PAYLOAD: Final = "payload"
"""The argument that is the payload, where that is no object."""
_OPEN: Final[Mapping[str, Any]] = {"type": "object"}
_LOCAL = "#/$defs/"
_KNOWN_SECONDS: Final = 1.0
"""A tool that was there so lately is taken to be there: its call needs not ask the queue for all tools."""


@dataclass(frozen=True, slots=True)
class AgentTool:
    """One tool: an Agent, or all Agents of a queue that have a capability."""

    name: str
    full_name: str
    """A name that holds whatever other tools come."""
    queue: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of the payload."""
    agent: str | None = None
    capability: str | None = None

    @property
    def listed(self) -> Tool:
        """As clients see it."""
        return Tool(name=self.name, description=self.description, input_schema=_arguments_schema(self.schema))

    def payload(self, arguments: Mapping[str, Any] | None) -> Any:
        """The payload of the task for these arguments. Raises InvalidTaskError."""
        given = dict(arguments or {})
        if _is_object(self.schema):
            return given
        if given.keys() != {PAYLOAD}:
            raise InvalidTaskError(f"the tool {self.name!r} takes one argument, {PAYLOAD!r}", field="arguments")
        return given[PAYLOAD]


async def tools(core: Core, *, max_age_seconds: float = 0.0) -> Sequence[AgentTool]:
    """The tools that the caller may use, sorted by name."""
    return named(await core.interfaces(queue=None, max_age_seconds=max_age_seconds), core)


async def find(core: Core, name: str) -> AgentTool:
    """A tool by its name. Raises UnknownToolError."""
    for age in (_KNOWN_SECONDS, 0.0):
        known = await tools(core, max_age_seconds=age)
        by_name = {tool.full_name: tool for tool in known} | {tool.name: tool for tool in known}
        if name in by_name:
            return by_name[name]
    others = [tool.full_name for tool in known if name in (tool.agent, tool.capability)]
    said = f"it is in several queues: {', '.join(others)}" if others else "tools/list says which there are"
    raise UnknownToolError(f"there is no tool {name!r} that you may use; {said}")


def named(interfaces: Iterable[InterfaceInfo], core: Core) -> Sequence[AgentTool]:
    """Tools for those of the Agents and capabilities to which the caller may submit tasks."""
    known = list(interfaces)
    agents = [one for one in known if core.may_submit(one.queue, one.agent)]
    able: dict[tuple[str, str], list[InterfaceInfo]] = {}
    for one in known:
        for capability in one.capabilities:
            if core.may_submit(one.queue, None):
                able.setdefault((one.queue, capability), []).append(one)
    agent_names = Counter(one.agent for one in agents)
    capability_names = Counter(capability for _, capability in able)
    in_queue = {(one.queue, one.agent) for one in agents}
    found = [
        AgentTool(
            name=one.agent if agent_names[one.agent] == 1 else f"{one.queue}.{one.agent}",
            full_name=f"{one.queue}.{one.agent}",
            queue=one.queue,
            description=one.description or f"Gives a task to the agent {one.agent}.",
            schema=one.input_schema,
            agent=one.agent,
        )
        for one in agents
    ]
    for (queue, capability), offered in able.items():
        unique = capability_names[capability] == 1 and capability not in agent_names
        full_name = f"{queue}.capability.{capability}" if (queue, capability) in in_queue else f"{queue}.{capability}"
        found.append(
            AgentTool(
                name=capability if unique else full_name,
                full_name=full_name,
                queue=queue,
                description=_described(capability, offered),
                schema=offered[0].input_schema
                if all(one.input_schema == offered[0].input_schema for one in offered)
                else _OPEN,
                capability=capability,
            )
        )
    return sorted(found, key=lambda tool: tool.name)


def _described(capability: str, offered: Sequence[InterfaceInfo]) -> str:
    said = [f"{one.agent}: {one.description}" for one in offered if one.description]
    head = f"Gives a task to any agent that is capable of {capability}."
    return "\n\n".join([head, *said])


def _is_object(schema: Mapping[str, Any]) -> bool:
    """Whether what fits the schema is an object, so that its members can be arguments."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(_LOCAL):
        definition = schema.get("$defs", {}).get(reference.removeprefix(_LOCAL))
        return isinstance(definition, Mapping) and definition.get("type") == "object"
    return schema.get("type") == "object"


def _arguments_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments, which must be an object."""
    if _is_object(schema):
        return {**schema, "type": "object"}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    payload = {name: value for name, value in schema.items() if name != "$defs"}
    return {"type": "object", "properties": {PAYLOAD: payload}, "required": [PAYLOAD], **definitions}
