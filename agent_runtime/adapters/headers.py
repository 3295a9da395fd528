# SPDX-License-Identifier: Apache-2.0
"""What callers say beside a request, in headers of HTTP or in metadata of gRPC."""

import re
from collections.abc import Iterable
from typing import Final

KEY_HEADER: Final = "x-api-key"
"""For clients whose `Authorization` is somebody else's, such as those that go by way of the Kubernetes API server."""
AUTHORIZATION_HEADER: Final = "authorization"
REQUEST_ID_HEADER: Final = "x-request-id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def api_key(headers: Iterable[tuple[str, str]]) -> str | None:
    """The key that is shown; the header of its own comes before `Authorization: Bearer`."""
    key = None
    for name, value in headers:
        if name == KEY_HEADER:
            return value.strip()
        if name == AUTHORIZATION_HEADER:
            scheme, _, rest = value.partition(" ")
            if scheme.lower() == "bearer":
                key = rest.strip()
    return key


def request_id(headers: Iterable[tuple[str, str]]) -> str | None:
    """The id that the caller has given to the request, if it has the form of one."""
    return next((value for name, value in headers if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value)), None)
