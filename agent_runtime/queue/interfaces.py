# SPDX-License-Identifier: Apache-2.0
"""What Agents say about themselves, as a queue keeps it.

All processes of an Agent say the same, so it is kept once, under its digest; heartbeats name the digest only. While two
versions of an Agent run, what was said for the first time later counts. It is kept for a day after it was said last:
an Agent without processes may have been scaled to zero, and shall be found all the same.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from agent_runtime.queue.base import Beat
from agent_runtime.queue.records import moment
from kubeagents_api.interface import InterfaceInfo

KEPT_SECONDS: Final = 24 * 3600
"""How long it is kept after it was said last. `forget.lua` knows the number, too."""
_OVERLAP_MS: Final = 60_000
"""Of what an Agent has said within this time, the newest counts; anything older is of processes that are gone."""


@dataclass(frozen=True, slots=True)
class Said:
    """Something that processes of an Agent have said about it."""

    text: bytes
    since_ms: float
    seen_ms: float


def digest_and_text(beat: Beat) -> tuple[str, bytes]:
    """What a beat says about its Agent, and the digest of that; both empty if it says nothing."""
    if beat.interface is None:
        return "", b""
    about = {"agent": beat.worker.agent, "capabilities": beat.worker.capabilities, **beat.interface.to_wire()}
    text = orjson.dumps(about, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32], text


def current(rows: Iterable[Said], *, queue: str) -> list[InterfaceInfo]:
    """What counts, one for each Agent, sorted by name."""
    found = [
        InterfaceInfo.model_validate(
            orjson.loads(row.text) | {"queue": queue, "since": moment(row.since_ms), "seen_at": moment(row.seen_ms)}
        )
        for row in rows
    ]
    return newest(found)


def newest(found: Iterable[InterfaceInfo]) -> list[InterfaceInfo]:
    """Of each Agent what counts, sorted by name."""
    by_agent: dict[str, list[InterfaceInfo]] = {}
    for one in found:
        by_agent.setdefault(one.agent, []).append(one)
    return [_newest(by_agent[agent]) for agent in sorted(by_agent)]


def _newest(found: list[InterfaceInfo]) -> InterfaceInfo:
    last = max(one.seen_at for one in found)
    recent = (one for one in found if (last - one.seen_at).total_seconds() * 1000 <= _OVERLAP_MS)
    return max(recent, key=lambda one: (one.since, one.seen_at))
