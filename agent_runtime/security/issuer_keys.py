# SPDX-License-Identifier: Apache-2.0
"""The public keys of an issuer of tokens, as they are now.

They are fetched in the background, again and again, so a key that the issuer adds or takes away is known without a
restart. A key that is asked for and not known is looked for at once, but not more often than now and then: anybody can
name keys that do not exist. While the issuer does not answer, the keys that are known go on.
"""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import jwt
from prometheus_client import CollectorRegistry, Counter

from agent_runtime.security.rates import Bucket
from kubeagents_api.access import Issuer
from kubeagents_api.errors import IssuerUnavailableError, UnauthenticatedError

_log = logging.getLogger(__name__)

_REFRESH_SECONDS: Final = 300.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
"""Between two tries while the issuer does not answer."""
_FETCH_SECONDS: Final = 5.0
"""A fetch takes no longer, whatever the issuer does."""
_LARGEST_BYTES: Final = 1048576
_LOOKS_AT_ONCE: Final = 3.0
_LOOKS_PER_SECOND: Final = 0.2
_KINDS: Final = frozenset({"RSA", "EC", "OKP"})
"""Kinds of keys of which the issuer keeps a private half."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key."""

    id: str | None
    document: dict[str, Any]
    _parsed: dict[str, jwt.PyJWK | None] = field(default_factory=dict, compare=False, repr=False)
    """By algorithm."""

    def parsed(self, algorithm: str) -> jwt.PyJWK | None:
        """For signatures of this algorithm; None if it is not for them."""
        if algorithm not in self._parsed:
            self._parsed[algorithm] = self._parse(algorithm)
        return self._parsed[algorithm]

    def _parse(self, algorithm: str) -> jwt.PyJWK | None:
        if self.document.get("alg") not in (None, algorithm):
            return None
        try:
            return jwt.PyJWK(self.document, algorithm)
        except jwt.PyJWTError:
            return None


class IssuerKeys:
    """Finds keys, and fetches them while `run` runs."""

    def __init__(
        self, issuer: Issuer, *, ca: str | None, fetches: Counter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ca` is the path of the authorities that are trusted instead of the usual ones; it may change."""
        self.issuer = issuer
        self._ca = ca
        self._fetches = fetches
        self._clock = clock
        self._keys: Sequence[PublicKey] = ()
        self._trouble: str | None = "it has not been asked yet"
        self._fetching: asyncio.Task[None] | None = None
        self._looks = Bucket(tokens=_LOOKS_AT_ONCE, now=clock())

    async def find(self, key_id: str | None) -> Sequence[PublicKey]:
        """The keys with this id; all, for a token that names none.

        Raises UnauthenticatedError if the issuer has none, IssuerUnavailableError if it cannot be asked.
        """
        if found := self._known(key_id):
            return found
        if self._looks.take(most=_LOOKS_AT_ONCE, per_second=_LOOKS_PER_SECOND, now=self._clock()) == 0:
            await self._fetch()
            if found := self._known(key_id):
                return found
        name = self.issuer.name
        if self._trouble is not None:
            raise IssuerUnavailableError(
                f"the keys of the issuer {name} cannot be had now, so its token cannot be checked", delay=5.0
            )
        raise UnauthenticatedError(f"the issuer {name} has no such key as the token was signed with")

    async def run(self) -> None:
        """Fetch until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._fetch()
            if self._trouble is None:
                pause = _FIRST_PAUSE_SECONDS
                await asyncio.sleep(_REFRESH_SECONDS)
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _known(self, key_id: str | None) -> Sequence[PublicKey]:
        return self._keys if key_id is None else [key for key in self._keys if key.id == key_id]

    async def _fetch(self) -> None:
        """Fetch, or wait for the fetch that is under way. What goes wrong is in `_trouble`."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_once(), name=f"keys of {self.issuer.name}")
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        name = self.issuer.name
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                keys = await self._asked()
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:  # TimeoutError is an OSError
            trouble = str(error) or type(error).__name__
            if trouble != self._trouble:
                _log.warning("the keys of the issuer %s cannot be fetched, %d are known: %s", name, len(self._keys),
                             trouble)  # fmt: skip
            self._trouble = trouble
            self._fetches.labels(name, "failed").inc()
            return
        if self._trouble is not None or keys != self._keys:
            _log.info("the issuer %s has %d keys: %s", name, len(keys), ", ".join(str(key.id) for key in keys))
        self._keys, self._trouble = keys, None
        self._fetches.labels(name, "done").inc()

    async def _asked(self) -> Sequence[PublicKey]:
        verify = ssl.create_default_context(cafile=self._ca) if self._ca is not None else True
        async with httpx.AsyncClient(verify=verify, timeout=_FETCH_SECONDS) as client:
            url = self.issuer.jwks_url or await self._discover(client)
            document = await _document(client, url)
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise ValueError(f"{url} has no list of keys")
        return [
            PublicKey(key.get("kid"), key)
            for key in keys
            if isinstance(key, dict) and key.get("kty") in _KINDS and key.get("use", "sig") == "sig"
        ]

    async def _discover(self, client: httpx.AsyncClient) -> str:
        where = self.issuer.url.rstrip("/") + "/.well-known/openid-configuration"
        document = await _document(client, where)
        if document.get("issuer") != self.issuer.url:
            raise ValueError(f"{where} is of another issuer: {document.get('issuer')!r}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith("https://"):
            raise ValueError(f"{where} has no jwks_uri with https://")
        return url


def issuer_keys(
    issuers: Sequence[Issuer], *, ca: Mapping[str, str], registry: CollectorRegistry
) -> Sequence[IssuerKeys]:
    """Those of all issuers; `ca` has the paths of authorities, by the issuers' names."""
    fetches = Counter(
        "kubeagents_issuer_fetches_total",
        "Fetches of the keys of issuers of tokens.",
        ["issuer", "outcome"],
        registry=registry,
    )
    return [IssuerKeys(issuer, ca=ca.get(issuer.name), fetches=fetches) for issuer in issuers]


async def _document(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object. Raises httpx.HTTPError, ValueError."""
    body = bytearray()
    async with client.stream("GET", url, headers={"accept": "application/json"}) as answer:
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answered {answer.status_code}")
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _LARGEST_BYTES:
                raise ValueError(f"{url} answered with more than {_LARGEST_BYTES} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answered with JSON that is no object")
    return document
