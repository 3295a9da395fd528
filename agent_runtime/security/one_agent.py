# SPDX-License-Identifier: Apache-2.0
"""Callers of an Agent's own endpoints."""

from dataclasses import replace

from agent_runtime.security.authenticator import Authenticator
from agent_runtime.security.caller import Caller, Credentials
from kubeagents_api.errors import ForbiddenError


class OfOneAgent:
    """An Authenticator whose callers may have to do with one Agent only, whatever else they are granted."""

    def __init__(self, authenticator: Authenticator, agent: str) -> None:
        self._authenticator = authenticator
        self._agent = agent

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who it is. Raises what the other one does, and ForbiddenError for somebody of other Agents."""
        caller = await self._authenticator.authenticate(credentials)
        if caller.agents is not None and self._agent not in caller.agents:
            raise ForbiddenError(f"{caller.name} may not use Agent {self._agent!r}")
        return replace(caller, agents=frozenset({self._agent}))
