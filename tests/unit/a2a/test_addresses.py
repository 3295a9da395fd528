# SPDX-License-Identifier: Apache-2.0
"""Who is meant by an address."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from agent_runtime.adapters.a2a.addresses import Address, AgentNotFoundError
from agent_runtime.adapters.base import Core
from kubeagents_api.errors import InvalidTaskError, QueueNotFoundError


class Known:
    """A core that knows these agents, by queue."""

    def __init__(self, **agents: list[str]) -> None:
        self.agents = agents

    @property
    def queue_names(self) -> Sequence[str]:
        return tuple(self.agents)

    async def instances(self, *, queue: str | None, agent: str | None) -> list[Any]:
        return []

    async def interfaces(self, *, queue: str | None, max_age_seconds: float = 0.0) -> list[Any]:
        return [_Said(name, agent) for name, agents in self.agents.items() for agent in agents if queue in (None, name)]


class _Said:
    capabilities: tuple[str, ...] = ()
    description = ""
    input_schema: dict[str, Any] | None = None

    def __init__(self, queue: str, agent: str) -> None:
        self.queue, self.agent = queue, agent


def core(**agents: list[str]) -> Core:
    return cast("Core", Known(**agents))


@pytest.mark.parametrize("text", ["", "@"])
def test_nothing_is_the_central_agent(text: str) -> None:
    assert Address.parse(text).open
    assert str(Address.parse(text)) == "@"


@pytest.mark.parametrize("text", ["billing", "billing@orders", "@orders"])
def test_an_address_is_read_as_it_is_written(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["UPPER", "a b", "a@b@c", "a/b", "-a", "a@-", "x" * 64, "tasks/1", "a\n"])
def test_what_can_be_no_name_is_refused(text: str) -> None:
    with pytest.raises(AgentNotFoundError):
        Address.parse(text)


async def test_the_queue_of_an_agent_is_found() -> None:
    found = await Address("billing").settled(core(main=["other"], orders=["billing"]))
    assert found == Address("billing", "orders")


async def test_an_agent_that_is_not_known_may_have_been_scaled_away_where_there_is_one_queue() -> None:
    assert await Address("billing").settled(core(main=[])) == Address("billing", "main")
    with pytest.raises(AgentNotFoundError, match="none is known"):
        await Address("billing").settled(core(main=[], orders=[]))


async def test_an_agent_of_two_queues_needs_its_queue() -> None:
    with pytest.raises(AgentNotFoundError, match="each of main, orders: write billing@queue"):
        await Address("billing").settled(core(main=["billing"], orders=["billing"]))
    found = Address("billing", "orders")
    assert await found.settled(core(main=["billing"], orders=["billing"])) == found


async def test_a_queue_that_is_not_served_is_refused() -> None:
    with pytest.raises(QueueNotFoundError, match="only main"):
        await Address(None, "orders").settled(core(main=[]))


def test_tasks_have_their_queue_in_their_names_only_where_it_is_open() -> None:
    both = core(main=[], orders=[])
    assert Address("billing", "orders").task_name("orders", "1") == "1"
    assert Address().task_name("orders", "1") == "1@orders"
    assert Address().task("1@orders", both) == ("orders", "1")
    assert Address().task("1", both) == ("main", "1")
    assert Address("billing", "orders").task("1@orders", both) == ("orders", "1")
    with pytest.raises(InvalidTaskError):
        Address("billing", "orders").task("1@main", both)
