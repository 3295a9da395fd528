# SPDX-License-Identifier: Apache-2.0
"""What a user has written, by the audit log of the API server."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

_OWN = frozenset({"leases"})
"""The operator's own Lease is no work."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the API server accepted or refused."""

    user: str
    at: float
    """When it had been answered, in seconds since the epoch."""
    verb: str
    resource: str
    namespace: str
    name: str
    accepted: bool

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


@dataclass
class Audit:
    """A log that grows."""

    path: Path
    _offset: int = 0

    def read(self) -> list[Write]:
        """What has come to it since the last time, leases left out."""
        with self.path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = (_write(orjson.loads(line)) for line in whole.splitlines())
        return [one for one in found if one.resource not in _OWN]


def tally(writes: list[Write], user: str) -> dict[str, int]:
    """How many of each kind the user has written, those that were refused included."""
    counted = Counter(str(one) if one.accepted else f"{one} (refused)" for one in writes if one.user == user)
    return dict(sorted(counted.items()))


def _write(event: dict[str, Any]) -> Write:
    target = event["objectRef"]
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    return Write(
        user=event["user"]["username"],
        at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
        verb=event["verb"],
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        accepted=event["responseStatus"]["code"] < 300,
    )
