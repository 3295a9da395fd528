# SPDX-License-Identifier: Apache-2.0
"""Who may do what at a CentralAgent: what its manifest says, and the keys that are made while it runs."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from kubeagents_api.model import MAP_BY_NAME, ApiModel, CertificateAuthority, LocalRef, ObjectName, Rule

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


class CertificateName(ApiModel):
    """A name in a client certificate."""

    common_name: str | None = Field(default=None, min_length=1, max_length=64)
    """The common name (CN) of its subject."""
    dns_name: str | None = Field(default=None, min_length=1, max_length=253)
    """A DNS name among its subject alternative names."""
    uri: str | None = Field(default=None, min_length=1, max_length=2048)
    """A URI among its subject alternative names, for example a SPIFFE ID."""

    rules = (
        Rule(
            cel="[has(self.commonName), has(self.dnsName), has(self.uri)].filter(x, x).size() == 1",
            message="certificates needs exactly one of commonName, dnsName and uri in each entry",
            holds=lambda n: [n.common_name, n.dns_name, n.uri].count(None) == 2,
        ),
    )


class Principal(Grant):
    """Somebody who may use the CentralAgent."""

    name: PrincipalName
    """Name of the person, program or team. It stands in the audit log and in the events of queues."""
    keys_from: LocalRef | None = None
    """The Secret with the principal's API keys: the value of each of its entries is one, of 16 printable characters at
    least. To change a key without a gap, add the new one under another name and remove the old one later; pods need no
    restart, and see it as soon as the kubelet brings it, usually within a minute."""
    certificates: list[CertificateName] | None = Field(default=None, min_length=1, max_length=16)
    """Client certificates that show the principal, by one of their names. They must be signed by an authority of
    `spec.tls.clientCa`. Who shows a key as well is whose key it is."""
    rate_limit: RequestLimit | None = None
    """How many calls it may make in a time. Without it there is no limit."""

    rules = (
        *Grant.rules,
        Rule(
            cel="has(self.keysFrom) || has(self.certificates)",
            message="principal needs keysFrom or certificates: a way to show who it is",
            holds=lambda p: p.keys_from is not None or p.certificates is not None,
        ),
    )


class ClaimGrant(Grant):
    """A role for those whose tokens say something."""

    claim: str = Field(min_length=1, max_length=253)
    """Name of the claim, for example `groups`. Dots lead into objects: `realm_access.roles`."""
    values: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(min_length=1, max_length=64)
    """The grant holds if the claim is one of these, or is a list or a text with spaces in which one of them is."""
    rate_limit: RequestLimit | None = None
    """How many calls each of them may make in a time. Without it there is no limit."""


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""How tokens may be signed: with a private key that only the issuer has."""


class Issuer(ApiModel):
    """Who issues tokens (JWT) that are accepted, such as an OpenID Connect provider."""

    name: ObjectName
    """A name for it. Whoever shows its tokens is `<name>:<user>` in the audit log and in the events of queues."""
    url: str = Field(pattern=r"^https://[^\s?#]+$", max_length=2048)
    """URL of the issuer, exactly as the claim `iss` of its tokens has it."""
    audiences: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(min_length=1, max_length=16)
    """For whom the tokens must be made: one of these must be in their claim `aud`."""
    jwks_url: str | None = Field(default=None, pattern=r"^https://[^\s#]+$", max_length=2048)
    """Where the issuer's public keys are. If unset, `<url>/.well-known/openid-configuration` says it."""
    ca: CertificateAuthority | None = None
    """The authority behind the certificate of the issuer's server, if the image does not trust it."""
    username_claim: str = Field(default="sub", min_length=1, max_length=253)
    """The claim with the name of the user."""
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256"], min_length=1, max_length=10)
    """How the tokens may be signed."""
    grants: list[ClaimGrant] = Field(min_length=1, max_length=64)
    """What its tokens allow. The first one that fits decides; a token that none fits is refused."""


class AccessSettings(ApiModel):
    """Who may use a CentralAgent. Whoever does not show who it is, is refused."""

    principals: list[Principal] = Field(default_factory=list, max_length=128, json_schema_extra=MAP_BY_NAME)
    """Those whose keys are in Secrets, or who have client certificates. An `admin` can make further keys while the
    system runs (`kubeagents keys create`)."""
    issuers: list[Issuer] = Field(default_factory=list, max_length=8, json_schema_extra=MAP_BY_NAME)
    """Those whose tokens are accepted, as well as keys."""

    rules = (
        Rule(
            cel="(has(self.principals) && "
            "self.principals.exists(p, p.role == 'admin' && !has(p.queues) && !has(p.agents))) || "
            "(has(self.issuers) && self.issuers.exists(i, "
            "i.grants.exists(g, g.role == 'admin' && !has(g.queues) && !has(g.agents))))",
            message="access has no admin of all queues and Agents: without one, nobody could make or revoke "
            "keys; give a principal, or a grant of an issuer, the role admin, without queues and agents",
            holds=lambda s: any(
                grant.role == "admin" and grant.queues is None and grant.agents is None
                for grant in (*s.principals, *(one for issuer in s.issuers for one in issuer.grants))
            ),
        ),
        Rule(
            cel="!has(self.issuers) || self.issuers.all(a, self.issuers.exists_one(b, b.url == a.url))",
            message="access.issuers has a url twice: give one issuer all its audiences and grants",
            holds=lambda s: len({issuer.url for issuer in s.issuers}) == len(s.issuers),
        ),
    )


def key_secrets(access: AccessSettings | None) -> dict[str, str]:
    """Names of the Secrets with keys, by principal."""
    principals = access.principals if access is not None else []
    return {one.name: one.keys_from.name for one in principals if one.keys_from is not None}


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
