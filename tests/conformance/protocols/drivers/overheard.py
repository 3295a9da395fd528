# SPDX-License-Identifier: Apache-2.0
"""What a server has said of an error, where the client of an SDK keeps it to itself."""

import json
import re
from typing import Any

_CODE = re.compile(r"[A-Z][A-Z0-9_]+")


class Overheard:
    """A hook for the answers of httpx and httpx2. Remembers the last error in JSON."""

    def __init__(self) -> None:
        self.body: Any = None

    async def __call__(self, answer: Any) -> None:
        """Read a whole answer, if it is one."""
        if answer.status_code == 413:
            self.body = {"code": "BODY_TOO_LARGE"}  # what it says varies
        if answer.headers.get("content-type", "").startswith("application/json"):
            found = json.loads(await answer.aread())
            if isinstance(found, dict) and "error" in found:
                self.body = found

    def code(self) -> str | None:
        """The code of the last error, which is forgotten then."""
        body, self.body = self.body, None
        return code_in(body)


def code_in(found: Any) -> str | None:
    """The first code or reason in an error, however deep it is."""
    if isinstance(found, dict):
        for name in ("code", "reason"):
            if isinstance(found.get(name), str) and _CODE.fullmatch(found[name]):
                return str(found[name])
        found = list(found.values())
    if isinstance(found, list):
        return next((code for one in found if (code := code_in(one)) is not None), None)
    return None
