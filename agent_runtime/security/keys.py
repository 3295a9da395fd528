# SPDX-License-Identifier: Apache-2.0
"""API keys: `ka_<id>_<secret>`. The id is no secret and finds the key; of the secret only a digest is kept.

The secret has 256 random bits, so a fast digest is enough: there is nothing to guess. Digests are compared in constant
time, or looked up, which tells nothing about the key that they are of.
"""

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field

_PREFIX = "ka"
_KEY = re.compile(r"ka_([a-z0-9]{12})_([A-Za-z0-9]{43})")
_ID_LETTERS = string.ascii_lowercase + string.digits
_LETTERS = string.ascii_letters + string.digits
_ID_LENGTH, _LENGTH = 12, 43
"""43 letters of 62 are 256 bits."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, in its parts."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """What its owner shows."""
        return f"{_PREFIX}_{self.id}_{self.secret}"

    def digest(self) -> str:
        """What is kept of it."""
        return digest(self.text)


def new_key() -> ApiKey:
    """Make one up."""
    return ApiKey(
        "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH)),
        "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)),
    )


def parse_key(text: str) -> ApiKey | None:
    """The parts of a key that was made here; None if it is of another form, such as one from a Secret may be."""
    match = _KEY.fullmatch(text)
    return ApiKey(*match.groups()) if match is not None else None


def digest(text: str) -> str:
    """Of a key of any form."""
    return hashlib.sha256(text.encode()).hexdigest()
