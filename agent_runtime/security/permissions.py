# SPDX-License-Identifier: Apache-2.0
"""Which role may do what. This table is the whole of it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from agent_runtime.security.caller import Caller
from kubeagents_api.access import Role
from kubeagents_api.errors import ForbiddenError


class Verb(StrEnum):
    """What a call wants."""

    READ = "read"
    """Tasks, results, streams, events, figures, agents."""
    SUBMIT = "submit"
    CANCEL = "cancel"
    WORK = "work"
    """To be an agent's process: to show itself, take tasks and settle them."""
    OPERATE = "operate"
    """Gates, cordons, dead tasks."""
    ADMINISTER = "administer"
    """Keys and the audit log."""


_ALLOWED: Final[dict[Role, frozenset[Verb]]] = {
    "admin": frozenset(Verb),
    "developer": frozenset({Verb.READ, Verb.SUBMIT, Verb.CANCEL}),
    "viewer": frozenset({Verb.READ}),
    "agent": frozenset({Verb.READ, Verb.SUBMIT, Verb.CANCEL, Verb.WORK}),  # it cancels what it has called
}


def require(caller: Caller, verb: Verb, *, queue: str | None = None) -> None:
    """Raises ForbiddenError, with what would help, if the caller may not."""
    if verb not in _ALLOWED[caller.role]:
        able = ", ".join(sorted(role for role, verbs in _ALLOWED.items() if verb in verbs))
        raise ForbiddenError(f"{caller.name} has the role {caller.role}, which may not {verb}: that needs {able}")
    if verb is Verb.ADMINISTER and (caller.queues is not None or caller.agents is not None):
        raise ForbiddenError(f"{caller.name} is no admin of all queues and Agents, which {verb} needs")
    if queue is not None and not sees(caller, queue):
        raise ForbiddenError(f"{caller.name} may not use the queue {queue!r}, only {_list(caller.queues)}")


def require_agents(caller: Caller, agents: Iterable[str | None]) -> None:
    """Raises ForbiddenError unless the caller may have to do with tasks for each of these Agents (None: for any)."""
    if caller.agents is None:
        return
    for agent in agents:
        if agent is None:
            raise ForbiddenError(f"{caller.name} may only use tasks that name an agent, one of {_list(caller.agents)}")
        if agent not in caller.agents:
            raise ForbiddenError(f"{caller.name} may not use tasks of Agent {agent!r}, only of {_list(caller.agents)}")


def reach(caller: Caller) -> frozenset[str] | None:
    """The Agents to which the caller may submit tasks, and whose tasks it sees; None: all.

    An `agent` works for its own only (`require_agents`), and may call any.
    """
    return None if caller.role == "agent" else caller.agents


def sees(caller: Caller, queue: str) -> bool:
    """Whether a queue is among those of the caller."""
    return caller.queues is None or queue in caller.queues


def _list(names: frozenset[str] | None) -> str:
    return ", ".join(sorted(names or ()))
