# SPDX-License-Identifier: Apache-2.0
"""Agent cards: who can be spoken to, where, and what it can do.

Where keys are asked for, the public card has what is needed to call and to show a key, and nothing else: it is the same
whether there is such an Agent or not. The whole card, as far as it concerns the caller, is the extended one.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
    APIKeySecurityScheme,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import PROTOCOL_VERSION_1_0, TransportProtocol

from agent_runtime.adapters.a2a.addresses import Address, AgentNotFoundError
from agent_runtime.adapters.a2a.agents import KnownAgent, known_agents
from agent_runtime.adapters.a2a.parts import JSON, TEXT, struct
from agent_runtime.adapters.a2a.tasks import OURS
from agent_runtime.adapters.base import Core, Surroundings
from agent_runtime.adapters.headers import KEY_HEADER
from agent_runtime.telemetry.metrics import RUNTIME_VERSION

PREFIX: Final = "/a2a"
"""Everything but the card of the CentralAgent is below it."""
INPUT_SCHEMA: Final = "https://kubeagents.dev/a2a/input-schema/v1"
"""The extension by which the card of an Agent has the JSON Schema of what it wants."""
AGENT, CAPABILITY = f"{OURS}agent", f"{OURS}capability"
_MODES: Final = (JSON, TEXT)


class Cards:
    """Makes cards."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._name = surroundings.core.name
        self._guarded = surroundings.guard is not None
        self._endpoints = surroundings.endpoints
        self._pushes = surroundings.push_store is not None

    def public(self, address: Address, *, base_url: str) -> AgentCard:
        """What everybody may know."""
        return self._card(address, base_url, f"Ask with a key for the extended card of {address}.", ())

    async def whole(self, core: Core, address: Address, *, base_url: str | None) -> AgentCard:
        """With skills. Raises AgentNotFoundError."""
        found = await known_agents(core, queue=address.queue, agent=address.agent)
        skills = [*_capabilities(found), *_agents(found)]
        if address.agent is None:
            where = f"the queue {address.queue}" if address.queue else f"the CentralAgent {self._name}"
            text = f"Any Agent of {where}. Choose by metadata: {AGENT} or {CAPABILITY}."
            return self._card(address, base_url, text, skills)
        if not found:
            raise AgentNotFoundError(f"no Agent {address.agent!r} is known in the queue {address.queue!r}")
        (agent,) = found
        card = self._card(address, base_url, agent.description or _plain(agent), skills)
        if agent.input_schema is not None:
            schema = AgentExtension(
                uri=INPUT_SCHEMA,
                description="JSON Schema of the payload: of a message's one data part.",
                params=struct({"schema": agent.input_schema}),
            )
            card.capabilities.extensions.append(schema)
        return card

    def _card(
        self, address: Address, base_url: str | None, description: str, skills: Sequence[AgentSkill]
    ) -> AgentCard:
        card = AgentCard(
            name=address.agent or address.queue or self._name,
            description=description,
            version=RUNTIME_VERSION,
            supported_interfaces=self._interfaces(address, base_url),
            capabilities=AgentCapabilities(
                streaming=True, push_notifications=self._pushes, extended_agent_card=self._guarded
            ),
            default_input_modes=_MODES,
            default_output_modes=_MODES,
            skills=skills,
        )
        if self._guarded:
            self._ask_for_keys(card)
        return card

    def _interfaces(self, address: Address, base_url: str | None) -> list[AgentInterface]:
        """Where it is to be found: on the host that the caller has found already. Over gRPC nobody knows which."""
        if base_url is None:
            return []
        bindings = (TransportProtocol.JSONRPC, TransportProtocol.HTTP_JSON)
        interfaces = [_interface(f"{base_url}{PREFIX}/{address}", binding) for binding in bindings]
        if port := self._endpoints.get("grpc"):
            host = urlsplit(base_url).hostname or ""
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            interfaces.append(_interface(place, TransportProtocol.GRPC, tenant=str(address)))
        return interfaces

    def _ask_for_keys(self, card: AgentCard) -> None:
        bearer = HTTPAuthSecurityScheme(scheme="Bearer", description="An API key.")
        header = APIKeySecurityScheme(location="header", name=KEY_HEADER, description="The same.")
        card.security_schemes["bearer"].CopyFrom(SecurityScheme(http_auth_security_scheme=bearer))
        card.security_schemes["header"].CopyFrom(SecurityScheme(api_key_security_scheme=header))
        for name in ("bearer", "header"):
            card.security_requirements.append(SecurityRequirement(schemes={name: StringList()}))


def _interface(url: str, binding: TransportProtocol, *, tenant: str = "") -> AgentInterface:
    return AgentInterface(url=url, protocol_binding=binding, protocol_version=PROTOCOL_VERSION_1_0, tenant=tenant)


def _capabilities(found: Iterable[KnownAgent]) -> list[AgentSkill]:
    agents: dict[str, set[str]] = {}
    for one in found:
        for capability in one.capabilities:
            agents.setdefault(capability, set()).add(one.name)
    return [
        _skill(f"capability/{name}", name, f"By {', '.join(sorted(able))}; choose it by {CAPABILITY}.", "capability")
        for name, able in sorted(agents.items())
    ]


def _agents(found: Iterable[KnownAgent]) -> list[AgentSkill]:
    """Each Agent as a skill: it may have no capability that is named."""
    return [_skill(f"agent/{one.queue}/{one.name}", one.name, one.description or _plain(one), "agent") for one in found]


def _plain(agent: KnownAgent) -> str:
    return f"The Agent {agent.name} of the queue {agent.queue}, which has said nothing about itself."


def _skill(skill_id: str, name: str, description: str, kind: str) -> AgentSkill:
    return AgentSkill(
        id=skill_id, name=name, description=description, tags=[kind], input_modes=_MODES, output_modes=_MODES
    )
