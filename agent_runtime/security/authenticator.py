# SPDX-License-Identifier: Apache-2.0
"""From what is shown to who it is: the same for every protocol."""

from typing import Protocol

from agent_runtime.security.caller import Caller, Credentials
from agent_runtime.security.key_files import KeyFiles
from agent_runtime.security.keys import parse_key
from agent_runtime.security.runtime_keys import RuntimeKeys
from kubeagents_api.errors import UnauthenticatedError


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who it is. Raises UnauthenticatedError, or QueueUnavailableError if that cannot be found out now."""
        ...


class KeyAuthenticator:
    """By API keys: those of Secrets, and those that were made since."""

    def __init__(self, files: KeyFiles, runtime_keys: RuntimeKeys) -> None:
        self._files = files
        self._runtime_keys = runtime_keys

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who it is."""
        key = credentials.key
        if key is None:
            raise UnauthenticatedError("an API key is needed: ask an admin of this CentralAgent for one")
        if (caller := self._files.caller(key)) is not None:
            return caller
        made = parse_key(key)
        caller = await self._runtime_keys.caller(made) if made is not None else None
        if caller is None:
            which = f"the API key {made.id!r}" if made is not None else "the API key"
            raise UnauthenticatedError(f"{which} is not valid: it is unknown, was revoked or has expired")
        return caller
