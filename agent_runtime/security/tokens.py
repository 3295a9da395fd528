# SPDX-License-Identifier: Apache-2.0
"""Tokens (JWT): whoever shows one is who its issuer says, and may do what the manifest grants for its claims.

Only signatures are accepted that need a private key, of the algorithms that the manifest names for the issuer. What a
token says is believed after its signature has been checked; before, its `iss` only tells by whose keys to check it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import jwt

from agent_runtime.security.caller import Caller
from agent_runtime.security.issuer_keys import PublicKey
from kubeagents_api.access import ClaimGrant, Issuer
from kubeagents_api.errors import ForbiddenError, UnauthenticatedError

LEEWAY_SECONDS: Final = 5
"""By how much the clocks of an issuer and of a pod may differ."""
_FORM = re.compile(r"ey[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,253}")
_ID = re.compile(r"[!-~]{1,64}")
_CHECKS: Final[Any] = {
    "require": ["exp", "iss", "aud"],
    "verify_sub": False,
    "verify_jti": False,
    "enforce_minimum_key_length": True,
}


class Keys(Protocol):
    """The keys of one issuer: `IssuerKeys`."""

    @property
    def issuer(self) -> Issuer: ...

    async def find(self, key_id: str | None) -> Sequence[PublicKey]: ...


def is_token(text: str) -> bool:
    """Whether it has the form of one."""
    return _FORM.fullmatch(text) is not None


class Tokens:
    """Checks tokens."""

    def __init__(self, issuers: Sequence[Keys]) -> None:
        self._issuers = {keys.issuer.url: keys for keys in issuers}

    def __bool__(self) -> bool:
        return bool(self._issuers)

    async def caller(self, token: str) -> Caller:
        """Whose token it is.

        Raises UnauthenticatedError, which says what is wrong with the token; ForbiddenError if nothing is granted to
        its owner; IssuerUnavailableError.
        """
        try:
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, RecursionError) as error:
            raise UnauthenticatedError("the token is malformed: it is no JWT") from error
        keys = self._of(claimed.get("iss"))
        issuer = keys.issuer
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            raise UnauthenticatedError(
                f"the token's algorithm is none of those of the issuer {issuer.name}: {', '.join(issuer.algorithms)}"
            )
        if key_id is not None and not isinstance(key_id, str):
            raise UnauthenticatedError("the token is malformed: the id of its key is no text")
        return _caller(issuer, await self._verified(token, algorithm, keys, key_id))

    def _of(self, url: object) -> Keys:
        keys = self._issuers.get(url) if isinstance(url, str) else None
        if keys is None:
            accepted = ", ".join(sorted(self._issuers))
            raise UnauthenticatedError(f"the token is of an issuer that is not accepted here, only {accepted}")
        return keys

    async def _verified(self, token: str, algorithm: str, keys: Keys, key_id: str | None) -> Mapping[str, Any]:
        """The claims."""
        name = keys.issuer.name
        for key in await keys.find(key_id):
            if (parsed := key.parsed(algorithm)) is None:
                continue
            try:
                claims: Mapping[str, Any] = jwt.decode(
                    token,
                    parsed,
                    algorithms=[algorithm],
                    audience=keys.issuer.audiences,
                    issuer=keys.issuer.url,
                    leeway=LEEWAY_SECONDS,
                    options=_CHECKS,
                )
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
                continue
            except (jwt.PyJWTError, OverflowError) as error:
                raise UnauthenticatedError(f"the token of the issuer {name} {_fault(error, keys.issuer)}") from error
            return claims
        raise UnauthenticatedError(f"the signature of the token is not one of the issuer {name}")


def _fault(error: Exception, issuer: Issuer) -> str:
    """What is wrong with a token that the issuer has signed."""
    match error:
        case jwt.ExpiredSignatureError():
            return "has expired: get a new one"
        case jwt.ImmatureSignatureError():
            return "is not valid yet: see its time (nbf, iat), and the clocks"
        case jwt.InvalidAudienceError():
            return f"is for somebody else: its audience (aud) must be one of {', '.join(issuer.audiences)}"
        case jwt.MissingRequiredClaimError():
            return f"has no {error.claim}"
        case _:
            return "is malformed: one of its claims has a wrong form"


def _caller(issuer: Issuer, claims: Mapping[str, Any]) -> Caller:
    user = _claim(claims, issuer.username_claim)
    if not isinstance(user, str) or not _NAME.fullmatch(user):
        raise UnauthenticatedError(f"the token of the issuer {issuer.name} has no user: no text in its claim "
                                   f"{issuer.username_claim}")  # fmt: skip
    name = f"{issuer.name}:{user}"  # no principal of the manifest or of a key can have a colon
    grant = next((grant for grant in issuer.grants if _fits(grant, claims)), None)
    if grant is None:
        raise ForbiddenError(
            f"{name} may not use this CentralAgent: no grant of the issuer fits the claims of the token"
        )
    token_id = claims.get("jti")
    key = token_id if isinstance(token_id, str) and _ID.fullmatch(token_id) else "token"
    return Caller.of(name, grant, rate_limit=grant.rate_limit, key=key)


def _fits(grant: ClaimGrant, claims: Mapping[str, Any]) -> bool:
    found = _claim(claims, grant.claim)
    if isinstance(found, str):
        return any(value == found or value in found.split() for value in grant.values)
    return isinstance(found, list) and any(value in found for value in grant.values)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name; if there is none, what the name leads to by its dots."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
