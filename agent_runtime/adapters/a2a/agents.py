# SPDX-License-Identifier: Apache-2.0
"""The Agents that are known: those with processes, and those that have said something about themselves lately."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.adapters.base import Core


@dataclass(slots=True)
class KnownAgent:
    """One Agent."""

    queue: str
    name: str
    capabilities: set[str] = field(default_factory=set)
    description: str = ""
    input_schema: dict[str, Any] | None = None
    """JSON Schema of the payload of its tasks, if it has said so."""


async def known_agents(core: Core, *, queue: str | None = None, agent: str | None = None) -> Sequence[KnownAgent]:
    """Those that the caller may use, of one queue or of all (None), sorted. An Agent that is scaled to zero is among
    them for a day."""
    found: dict[tuple[str, str], KnownAgent] = {}
    for one in await core.instances(queue=queue, agent=agent):
        known = found.setdefault((one.queue, one.agent), KnownAgent(one.queue, one.agent))
        known.capabilities.update(one.capabilities)
    for said in await core.interfaces(queue=queue):
        if agent is None or said.agent == agent:
            known = found.setdefault((said.queue, said.agent), KnownAgent(said.queue, said.agent))
            known.capabilities.update(said.capabilities)
            known.description, known.input_schema = said.description, said.input_schema
    return [found[key] for key in sorted(found)]
