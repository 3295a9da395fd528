# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a token is said, and nothing that is wrong gets through."""

import base64
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest

from agent_runtime.security.issuer_keys import PublicKey
from agent_runtime.security.tokens import Tokens, is_token
from kubeagents_api.access import ClaimGrant, Issuer, RequestLimit
from kubeagents_api.errors import ForbiddenError, UnauthenticatedError
from tests.support.certificates import Authority
from tests.support.issuer import AUDIENCE, TokenIssuer

GRANTS = [
    ClaimGrant(claim="groups", values=["platform"], role="admin"),
    ClaimGrant(
        claim="realm_access.roles", values=["clerk", "buyer"], role="developer", queues=["orders"],
        rate_limit=RequestLimit(requests=5),
    ),
    ClaimGrant(claim="https://shop/role", values=["guest"], role="viewer"),
    ClaimGrant(claim="scope", values=["tasks:read"], role="viewer"),
]  # fmt: skip


class Published:
    """The keys that an issuer publishes, without a network."""

    def __init__(self, source: TokenIssuer, **settings: Any) -> None:
        self.source = source
        self.issuer = Issuer(name="corp", url=source.url, audiences=["other", AUDIENCE], grants=GRANTS, **settings)

    async def find(self, key_id: str | None) -> Sequence[PublicKey]:
        keys = [PublicKey(key["kid"], key) for key in self.source.jwks()["keys"]]
        found = [key for key in keys if key_id in (None, key.id)]
        if not found:
            raise UnauthenticatedError("no such key")
        return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TokenIssuer:
    return TokenIssuer(Authority(), tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def tokens(source: TokenIssuer) -> Tokens:
    source.rotate("first")
    return Tokens([Published(source)])


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["x", "platform"]}, "admin"),
        ({"groups": "platform"}, "admin"),
        ({"realm_access": {"roles": ["buyer"]}}, "developer"),
        ({"https://shop/role": "guest"}, "viewer"),
        ({"scope": "openid tasks:read"}, "viewer"),
        ({"scope": "tasks:read", "groups": ["platform"]}, "admin"),
    ],
)
async def test_the_claims_of_a_token_are_its_role(
    source: TokenIssuer, tokens: Tokens, claims: dict[str, Any], role: str
) -> None:
    caller = await tokens.caller(source.token("maria", **claims))

    assert (caller.name, caller.role, caller.key) == ("corp:maria", role, "token")


async def test_a_grant_narrows_the_role_and_limits_the_calls(source: TokenIssuer, tokens: Tokens) -> None:
    caller = await tokens.caller(source.token("maria", realm_access={"roles": ["clerk"]}, jti="4711"))

    assert (caller.queues, caller.agents, caller.key) == (frozenset({"orders"}), None, "4711")
    assert caller.rate_limit == RequestLimit(requests=5)


@pytest.mark.parametrize(
    "claims", [{}, {"groups": ["platform2"]}, {"groups": {"platform": True}}, {"realm_access": ["clerk"]}, {"scope": 7}]
)
async def test_who_has_no_claim_that_is_granted_something_may_do_nothing(
    source: TokenIssuer, tokens: Tokens, claims: dict[str, Any]
) -> None:
    with pytest.raises(ForbiddenError, match="corp:maria may not use this CentralAgent: no grant"):
        await tokens.caller(source.token("maria", **claims))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seconds": -60}, "has expired: get a new one"),
        ({"nbf": 4_000_000_000}, "is not valid yet"),
        ({"aud": "somebody"}, "its audience .aud. must be one of other, kubeagents"),
        ({"aud": None}, "has no aud"),
        ({"exp": None}, "has no exp"),
        ({"exp": "soon"}, "one of its claims has a wrong form"),
        ({"iss": "https://elsewhere"}, "of an issuer that is not accepted here, only https://localhost"),
        ({"iss": None}, "of an issuer that is not accepted"),
        ({"sub": None}, "has no user: no text in its claim sub"),
        ({"sub": "a\nb"}, "has no user"),
        ({"headers": {"kid": "other"}}, "no such key"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_token_is_said(
    source: TokenIssuer, tokens: Tokens, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UnauthenticatedError, match=sentence):
        await tokens.caller(source.token("maria", **{"groups": ["platform"], **changed}))


def encoded(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def test_a_token_without_a_signature_is_refused(source: TokenIssuer, tokens: Tokens) -> None:
    _, body, _ = source.token("maria", groups=["platform"]).split(".")
    for algorithm in ("none", "None", "nOnE"):
        with pytest.raises(UnauthenticatedError):
            await tokens.caller(f"{encoded({'alg': algorithm, 'kid': 'first'})}.{body}.")


async def test_a_public_key_is_no_shared_secret(source: TokenIssuer, tokens: Tokens) -> None:
    """Whoever knows the public key could sign with it, if HS256 were accepted."""
    claims = jwt.decode(source.token("maria", groups=["platform"]), options={"verify_signature": False})
    public = json.dumps(source.jwks()["keys"][0]).encode()
    signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(claims)}"
    forged = f"{signed}.{encoded(hmac.digest(public, signed.encode(), 'sha256'))}"

    with pytest.raises(UnauthenticatedError, match="algorithm is none of those of the issuer corp: RS256, ES256"):
        await tokens.caller(forged)


async def test_a_token_that_was_changed_is_refused(source: TokenIssuer, tokens: Tokens) -> None:
    head, _, signature = source.token("maria").split(".")
    _, better, _ = source.token("maria", groups=["platform"]).split(".")

    with pytest.raises(UnauthenticatedError, match="signature of the token is not one of the issuer corp"):
        await tokens.caller(f"{head}.{better}.{signature}")


async def test_a_key_is_for_its_own_algorithm(source: TokenIssuer) -> None:
    source.rotate("first", algorithm="RS512")
    token = source.token("maria", groups=["platform"])
    with pytest.raises(UnauthenticatedError, match="algorithm is none of those"):
        await Tokens([Published(source)]).caller(token)
    assert (await Tokens([Published(source, algorithms=["RS512"])]).caller(token)).role == "admin"


async def test_a_token_need_not_name_its_key(source: TokenIssuer, tokens: Tokens) -> None:
    source.rotate("second", keep=True)

    assert (await tokens.caller(source.token("maria", groups=["platform"], headers={}))).role == "admin"


@pytest.mark.parametrize(
    "text",
    [
        "eyJ.x.y",
        f"eyJ{'A' * 50}.{'A' * 50}.",
        f"{encoded({'alg': 'ES256'})}.{encoded([])}.AA",
        f"{encoded({'alg': 'ES256'})}.{encoded(b'[' * 20000)}.AA",
        f"{encoded(b'{' + b' ' * 20)}.{encoded({})}.AA",
        f"{encoded({'alg': 'ES256'})}.{encoded(bytes([255] * 9))}.AA",
        f"{encoded({'alg': 'ES256', 'kid': 5})}.{encoded({})}.AA",
        f"{encoded({'alg': ['ES256']})}.{encoded({'iss': ['a']})}.AA",
    ],
    ids=lambda text: text[:24],
)
async def test_what_only_looks_like_a_token_is_refused(tokens: Tokens, text: str) -> None:
    assert is_token(text)
    with pytest.raises(UnauthenticatedError):
        await tokens.caller(text)


def test_an_api_key_is_no_token(tmp_path: Path, source: TokenIssuer) -> None:
    assert not is_token("ka_abcdefghijkl_" + "x" * 43)
    assert not is_token("the.key.of-somebody")
    assert is_token(source.token("maria"))
