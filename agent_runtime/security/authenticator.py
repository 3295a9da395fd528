# SPDX-License-Identifier: Apache-2.0
"""From what is shown to who it is: the same for every protocol.

A key or a token that is shown decides, also over a client certificate: who shows a bad one is refused.
"""

from typing import Protocol

from agent_runtime.security.caller import Caller, Credentials
from agent_runtime.security.certificates import Certificates
from agent_runtime.security.key_files import KeyFiles
from agent_runtime.security.keys import parse_key
from agent_runtime.security.runtime_keys import RuntimeKeys
from agent_runtime.security.tokens import Tokens, is_token
from kubeagents_api.errors import UnauthenticatedError


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who it is.

        Raises UnauthenticatedError; ForbiddenError if that is nobody who may do anything; QueueUnavailableError or
        IssuerUnavailableError if it cannot be found out now.
        """
        ...


class Identities:
    """By API keys, those of Secrets and those that were made since; by tokens; by client certificates."""

    def __init__(
        self, files: KeyFiles, runtime_keys: RuntimeKeys, *, tokens: Tokens, certificates: Certificates
    ) -> None:
        self._files = files
        self._runtime_keys = runtime_keys
        self._tokens = tokens
        self._certificates = certificates

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who it is."""
        if credentials.key is not None:
            return await self._by_key(credentials.key)
        if credentials.certificate is not None and self._certificates:
            return self._certificates.caller(credentials.certificate)
        ways = [
            "an API key",
            *(["a token"] * bool(self._tokens)),
            *(["a client certificate"] * bool(self._certificates)),
        ]
        raise UnauthenticatedError(f"{' or '.join(ways)} is needed: ask an admin of this CentralAgent")

    async def _by_key(self, key: str) -> Caller:
        if (caller := self._files.caller(key)) is not None:
            return caller
        made = parse_key(key)
        if made is None and self._tokens and is_token(key):
            return await self._tokens.caller(key)
        caller = await self._runtime_keys.caller(made) if made is not None else None
        if caller is None:
            which = f"the API key {made.id!r}" if made is not None else "the API key"
            raise UnauthenticatedError(f"{which} is not valid: it is unknown, was revoked or has expired")
        return caller
