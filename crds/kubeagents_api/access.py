# SPDX-License-Identifier: Apache-2.0
"""Who may do what at a CentralAgent: what its manifest says, and the keys that are made while it runs."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from kubeagents_api.model import MAP_BY_NAME, ApiModel, LocalRef, ObjectName, Rule

PrincipalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._@-]{0,61}[A-Za-z0-9])?$")]
"""Name of a person, program or team. It stands in the audit log and in the events of queues."""


Role = Literal["admin", "developer", "viewer", "agent"]
"""What a principal may do. `viewer` reads. `developer` also submits and cancels. `admin` may do
everything, such as pause a queue, replay dead tasks and make keys. `agent` works, reads and submits."""


class Grant(ApiModel):
    """A role, and where it holds."""

    role: Role
    """What the principal may do. `viewer` reads. `developer` also submits and cancels tasks. `admin` may do everything,
    such as pause a queue, replay dead tasks and make keys. `agent` is for agents outside the cluster: it takes the
    tasks of its `agents` and settles them, and may submit tasks to any Agent and read them, as those inside may."""
    queues: list[ObjectName] | None = Field(default=None, min_length=1, max_length=32)
    """The TaskQueues for which the role holds; all of the CentralAgent's if unset."""
    agents: list[ObjectName] | None = Field(default=None, min_length=1, max_length=64)
    """The Agents for whose tasks the role holds; all if unset. Then tasks must name one of them. For the role `agent`
    they are those whose work is done."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.role != 'agent' || has(self.agents)",
            message="role agent needs agents: name the Agents whose tasks it works on",
            holds=lambda g: g.role != "agent" or g.agents is not None,
        ),
    )


class RequestLimit(ApiModel):
    """How many calls a principal may make in a time."""

    requests: int = Field(ge=1, le=1000000)
    """How many, over all protocols and all pods of the CentralAgent together."""
    per_seconds: float = Field(default=1.0, gt=0, le=3600)
    """The time in seconds."""


class Principal(Grant):
    """Somebody who may use the CentralAgent."""

    name: PrincipalName
    """Name of the person, program or team. It stands in the audit log and in the events of queues."""
    keys_from: LocalRef
    """The Secret with the principal's API keys: the value of each of its entries is one, of 16 printable characters at
    least. To change a key without a gap, add the new one under another name and remove the old one later; pods need no
    restart, and see it as soon as the kubelet brings it, usually within a minute."""
    rate_limit: RequestLimit | None = None
    """How many calls it may make in a time. Without it there is no limit."""


class AccessSettings(ApiModel):
    """Who may use a CentralAgent. Whoever shows no valid key is refused."""

    principals: list[Principal] = Field(min_length=1, max_length=128, json_schema_extra=MAP_BY_NAME)
    """Those whose keys are in Secrets. An `admin` among them can make further keys while the system runs
    (`kubeagents keys create`)."""

    rules = (
        Rule(
            cel="self.principals.exists(p, p.role == 'admin' && !has(p.queues) && !has(p.agents))",
            message="access.principals has no admin of all queues and Agents: without one, nobody could make or revoke "
            "keys; give one principal the role admin, without queues and agents",
            holds=lambda s: any(p.role == "admin" and p.queues is None and p.agents is None for p in s.principals),
        ),
    )


class KeyRequest(Grant):
    """A key to be made."""

    principal: PrincipalName
    """Whose key it is. A principal may have several."""
    expires_at: AwareDatetime | None = None
    """When it ceases to be valid, with time zone; never if unset."""
    rate_limit: RequestLimit | None = None
    """How many calls may be made with it in a time. Without it there is no limit."""


class KeyInfo(KeyRequest):
    """A key, without what makes it one."""

    id: str
    """Its name, which is no secret: the part of the key between the underscores."""
    created_at: datetime
    """When it was made."""
    created_by: str
    """Who made it."""


class NewKey(KeyInfo):
    """A key that has just been made."""

    key: str
    """What the principal has to show. It is not kept anywhere, so this is the only time that it is seen."""


class AuditEntry(ApiModel):
    """One call that changed something, or was refused."""

    at: datetime
    """When."""
    principal: str | None = None
    """Who; unset if that could not be told."""
    key: str | None = None
    """Id of the key that was shown, or the entry of the Secret that it is in."""
    address: str | None = None
    """Where the call came from, as far as the pod can tell: it may be a proxy's address."""
    protocol: str
    """How it came, for example `http`."""
    request: str | None = None
    """Id of the request, which the log of the pod has as well."""
    verb: str
    """What was asked for, for example `submit`."""
    queue: str | None = None
    """Which TaskQueue it concerns."""
    target: str | None = None
    """What else it concerns: a task, a key, or how many."""
    outcome: str
    """`done`; `denied` to somebody who may not; `failed` for another reason."""
    code: str | None = None
    """The error's code, if it was not done."""
