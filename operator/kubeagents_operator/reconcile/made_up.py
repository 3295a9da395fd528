# SPDX-License-Identifier: Apache-2.0
"""Values that the operator makes up once and keeps in Secrets: whatever fits and is there stays, also if somebody has
put another value in its place."""

import base64
import re
import secrets

from kubeagents_operator import fingerprint
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.keys import Name
from kubeagents_operator.observed import Body, secret_value
from kubeagents_operator.watched import SECRET


class MadeUp:
    """The values of one entry of Secrets. Remembers those that it has seen: a Secret is read when it has changed."""

    def __init__(self, cluster: Cluster, cache: Cache, *, entry: str, form: str) -> None:
        """`form` is the regular expression for a value that can stay."""
        self._cluster = cluster
        self._cache = cache
        self._entry = entry
        self._form = re.compile(form)
        self._known: dict[Name, str] = {}

    async def value(self, name: Name) -> str:
        """What the Secret has; something new if there is no such Secret, or nothing in it that can stay.

        Raises ApiUnavailableError.
        """
        digest, known = self._cache.digest("Secret", name), self._known.get(name)
        if digest is not None and known is not None and digest.keys.get(self._entry) == _digest(known):
            return known
        body = await self._cluster.get(SECRET, name.namespace, name.name)
        found = self._found(body) if body is not None else None
        value = self._known[name] = found if found is not None else secrets.token_urlsafe(32)
        return value

    def forget(self, name: Name) -> None:
        """Nobody needs it any more."""
        self._known.pop(name, None)

    def _found(self, body: Body) -> str | None:
        try:
            value = secret_value(body, self._entry) or ""
        except ValueError:
            return None
        return value if self._form.fullmatch(value) else None


def _digest(value: str) -> str:
    """As the cache has it, of the value as the API server has it."""
    return fingerprint.digest([base64.b64encode(value.encode()).decode()])
