# SPDX-License-Identifier: Apache-2.0
"""Who calls, and what is shown to prove it."""

from dataclasses import dataclass, field

from kubeagents_api.access import Grant, RequestLimit, Role


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a call."""

    protocol: str
    """For the audit log, for example `http`."""
    address: str | None = None
    key: str | None = field(default=None, repr=False)
    """An API key."""
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
    """Id of the key that was shown, or the entry of the Secret that it is in."""

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
