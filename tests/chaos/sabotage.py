# SPDX-License-Identifier: Apache-2.0
"""Breaks the queue on purpose, in one process only, to see that the judges notice. Nothing in the repository changes.

Each sabotage replaces a piece of a Lua script. If the piece is not there any more, the sabotage must be made to fit.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from agent_runtime.queue import scripts


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A mistake that the queue's authors might have made."""

    file: str
    """Below agent_runtime/queue/lua, without the ending."""
    right: str
    wrong: str


_BACK: Final = "line_up(id, head.lane, head.tenant, place)\n    return"
"""How a task whose lease is over goes back to its lane."""
SABOTAGES: Final = {
    "any token counts": Sabotage("settle", "token_of(hold) ~= token", "not hold"),
    "settling leaves the lease": Sabotage("settle", "redis.call('ZREM', leases, unpack(ended))", ""),
    "a lost lease loses the place": Sabotage("include/tidy", _BACK, _BACK.replace("place", "FRONT")),
    "a lost lease loses the task": Sabotage("include/tidy", _BACK, "return"),
    "leases never end": Sabotage("include/tidy", "due(leases, now, bound)", "{}, nil"),
}


def commit(name: str) -> None:
    """Break the queue of this process. Raises ValueError if the sabotage does not fit the scripts any more."""
    sabotage = SABOTAGES[name]
    whole = scripts.source
    if sabotage.right not in whole(sabotage.file):
        raise ValueError(
            f"{name!r} does not fit {sabotage.file}.lua any more: find out what its mistake looks like now"
        )

    @cache
    def broken(file: str) -> str:
        text = whole(file)
        return text.replace(sabotage.right, sabotage.wrong) if file == sabotage.file else text

    scripts.source = broken
