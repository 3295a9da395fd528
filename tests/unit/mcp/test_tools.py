# SPDX-License-Identifier: Apache-2.0
"""Which tools there are, what they are called, and what they take."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.mcp.errors import UnknownToolError
from agent_runtime.adapters.mcp.tools import AgentTool, find, tools
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.interface import InterfaceInfo

NOW = datetime.now(UTC)


def interface(agent: str, queue: str = "main", *capabilities: str, schema: Any = None, said: str = "") -> InterfaceInfo:
    return InterfaceInfo(
        agent=agent,
        queue=queue,
        capabilities=list(capabilities),
        description=said,
        input_schema=schema or {"type": "object"},
        since=NOW,
        seen_at=NOW,
    )


class Agents:
    """What a core says about its Agents; `forbidden` are those that the caller may not use."""

    def __init__(self, *known: InterfaceInfo, forbidden: Collection[str | None] = ()) -> None:
        self._known = known
        self._forbidden = forbidden
        self.old: Sequence[InterfaceInfo] = known
        """What it would say that need not be quite new."""

    async def interfaces(self, *, queue: str | None, max_age_seconds: float = 0.0) -> Sequence[InterfaceInfo]:
        return self.old if max_age_seconds else self._known

    def may_submit(self, queue: str, agent: str | None) -> bool:
        return agent not in self._forbidden


def core(*known: InterfaceInfo, forbidden: Collection[str | None] = ()) -> Core:
    return cast("Core", Agents(*known, forbidden=forbidden))


async def names(*known: InterfaceInfo, forbidden: Collection[str | None] = ()) -> list[str]:
    return [tool.name for tool in await tools(core(*known, forbidden=forbidden))]


async def test_agents_and_capabilities_are_tools() -> None:
    assert await names(interface("reader", "main", "ocr", "pdf"), interface("writer")) == [
        "ocr",
        "pdf",
        "reader",
        "writer",
    ]


async def test_what_is_in_several_queues_is_named_by_its_queue() -> None:
    known = (interface("echo", "a", "ocr"), interface("echo", "b", "ocr"), interface("other", "b"))
    assert await names(*known) == ["a.echo", "a.ocr", "b.echo", "b.ocr", "other"]


async def test_an_agent_keeps_its_name_when_a_capability_has_it_too() -> None:
    assert await names(interface("ocr", "a"), interface("reader", "b", "ocr")) == ["b.ocr", "ocr", "reader"]
    assert await names(interface("ocr", "a", "ocr")) == ["a.capability.ocr", "ocr"]


async def test_no_two_tools_have_the_same_name() -> None:
    queues, words = ("a", "b"), ("x", "y")
    known = [interface(agent, queue, *words) for queue in queues for agent in words]
    found = await names(*known)
    assert len(found) == len(set(found)) == 8


async def test_what_may_not_be_used_is_no_tool_and_takes_no_name() -> None:
    known = (interface("echo", "a", "ocr"), interface("secret", "b", "ocr"))
    assert await names(*known, forbidden={"secret"}) == ["a.ocr", "b.ocr", "echo"]
    assert await names(*known, forbidden={"secret", None}) == ["echo"]


async def test_a_tool_is_found_by_either_name() -> None:
    agents = core(interface("echo", "a"), interface("twin", "a"), interface("twin", "b"))
    assert (await find(agents, "echo")).queue == (await find(agents, "a.echo")).queue == "a"
    assert (await find(agents, "b.twin")).agent == "twin"
    with pytest.raises(UnknownToolError, match=r"in several queues: a\.twin, b\.twin"):
        await find(agents, "twin")
    with pytest.raises(UnknownToolError, match="tools/list says"):
        await find(agents, "nobody")


async def test_a_tool_that_is_new_is_found_though_what_was_heard_lately_lacks_it() -> None:
    agents = Agents(interface("reader"), interface("writer"))
    agents.old = [interface("reader")]
    assert (await find(cast("Core", agents), "writer")).agent == "writer"


async def test_a_capability_says_what_all_who_have_it_say() -> None:
    schema = {"type": "object", "required": ["page"]}
    same = (
        interface("a", "main", "ocr", schema=schema, said="Fast."),
        interface("b", "main", "ocr", schema=schema, said="Exact."),
    )
    found = await find(core(*same), "ocr")
    assert found.schema == schema
    assert found.description == "Gives a task to any agent that is capable of ocr.\n\na: Fast.\n\nb: Exact."
    different = await find(core(*same, interface("c", "main", "ocr")), "ocr")
    assert different.schema == {"type": "object"}


class Node(BaseModel):
    name: str
    children: list["Node"] = []


@pytest.mark.parametrize("kind", [Node, dict[str, int], str, list[Node], int | None, tuple[int, str]])
def test_arguments_are_an_object_whatever_the_payload_is(kind: Any) -> None:
    tool = AgentTool(
        name="t", full_name="q.t", queue="q", description="", schema=TypeAdapter(kind).json_schema(), agent="t"
    )
    schema = tool.listed.input_schema
    assert schema["type"] == "object"
    Draft202012Validator.check_schema(schema)
    payload: Any = {Node: {"name": "a", "children": [{"name": "b"}]}, list[Node]: [{"name": "a"}], str: "text"}.get(
        kind, {} if kind == dict[str, int] else None if kind == (int | None) else [1, "a"]
    )
    arguments = payload if isinstance(payload, dict) else {"payload": payload}
    Draft202012Validator(schema).validate(arguments)
    assert tool.payload(arguments) == payload


def test_a_payload_that_is_no_object_must_be_the_only_argument() -> None:
    tool = AgentTool(name="t", full_name="q.t", queue="q", description="", schema={"type": "string"}, agent="t")
    for wrong in (None, {}, {"text": "x"}, {"payload": "x", "more": 1}):
        with pytest.raises(InvalidTaskError, match="one argument, 'payload'"):
            tool.payload(wrong)
