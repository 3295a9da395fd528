# SPDX-License-Identifier: Apache-2.0
"""Who calls, and what is shown to prove it."""

from dataclasses import dataclass, field
from datetime import datetime

from kubeagents_api.access import Grant, RequestLimit, Role


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that the handshake of a connection has verified."""

    serial: str
    common_names: tuple[str, ...]
    dns_names: tuple[str, ...]
    """In lower case."""
    uris: tuple[str, ...]
    not_after: datetime

    @property
    def title(self) -> str:
        """Its names, for people."""
        return ", ".join((*self.common_names, *self.dns_names, *self.uris)) or f"number {self.serial}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a call."""

    protocol: str
    """For the audit log, for example `http`."""
    address: str | None = None
    key: str | None = field(default=None, repr=False)
    """An API key or a token."""
    certificate: ClientCertificate | None = None
    request: str | None = None
    """Id of the request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has shown who it is."""

    name: str
    role: Role
    queues: frozenset[str] | None = None
    """The queues for which the role holds; None: all."""
    agents: frozenset[str] | None = None
    """The Agents for whose tasks the role holds; None: all."""
    rate_limit: RequestLimit | None = None
    key: str = ""
    """Id of the key, token or certificate that was shown, or the entry of the Secret that the key is in."""

    @classmethod
    def of(cls, name: str, grant: Grant, *, rate_limit: RequestLimit | None, key: str) -> "Caller":
        """The caller to whom something is granted."""
        return cls(
            name,
            grant.role,
            frozenset(grant.queues) if grant.queues is not None else None,
            frozenset(grant.agents) if grant.agents is not None else None,
            rate_limit,
            key,
        )
