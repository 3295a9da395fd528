# SPDX-License-Identifier: Apache-2.0
"""The Lua scripts: one file for each transition, loaded by digest.

A script's file begins with a header that says which keys it touches, which arguments it takes, what it guarantees and
what it returns. `SCRIPTS` repeats keys and fixed arguments, and a test compares the two. From the table the loader
writes the first lines of each script, so that Lua code speaks of `leases` and `limit`, not of KEYS[6] and ARGV[3].
`-- @include name` is replaced by `lua/include/name.lua`.

Keys that depend on data (`t:<id>`, `ready:a:<agent>`) are not declared to Redis, as it would like, but made from
declared prefixes. All have the queue's hash tag, so they are on the same node of a cluster.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from agent_runtime.queue.exchange import execute
from agent_runtime.queue.keys import Keys

_INCLUDE: Final = re.compile(r"^-- @include (\w+)\n", re.MULTILINE)

Argument = str | bytes | int
"""What a script takes."""


class Submitted(IntEnum):
    """First number that `submit` returns for each submission."""

    QUEUED = 0
    DUPLICATE = 1
    UNKNOWN_PARENT = 2
    CLOSED = 3
    FULL = 4
    FIRED = 5


class Cancelled(IntEnum):
    """First number that `cancel` returns."""

    DONE = 0
    UNKNOWN = 1


class Held(IntEnum):
    """What `extend` and `release` return for each task, and `emit` for one."""

    NOT_HELD = 0
    HELD = 1


SEND_TEXT: Final = 2
"""What `beat` adds to its answer if it does not know what the instance says about its Agent."""
CORDONED: Final = -2
"""What `claim` returns in place of a time to a worker that is cordoned."""


class Settled(IntEnum):
    """What `settle` returns for each attempt."""

    REFUSED = 0
    ACCEPTED = 1
    REPEATED = 2
    GONE = 3


@dataclass(frozen=True, slots=True)
class Script:
    """One transition. `arguments` are the fixed ones; what repeats for each task follows them."""

    name: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole script as Redis gets it."""
        return _text(self)

    @property
    def digest(self) -> str:
        """What Redis knows it by."""
        return _digest(self)


def _script(name: str, keys: str, arguments: str = "") -> Script:
    return Script(name, tuple(keys.split()), tuple(arguments.split()))


SUBMIT = _script(
    "submit",
    "records ready wake lanes lines lined parked positions tenants scheduled history deadlines blocked "
    "kids parents heirs chunks keyed schedules dead totals events gates capped full room done sequence leases "
    "running progress said revoked",
    "keep result_ttl_s max_depth when_full dedup_ms schedule due count",
)
CLAIM = _script(
    "claim",
    "records ready wake lanes lines lined parked positions tenants rates scheduled leases running history "
    "deadlines blocked kids parents heirs chunks progress said dead totals events gates cordons capped full room done "
    "revoked sequence",
    "keep result_ttl_s nonce repeated limit lease_ms horizon_ms worker limits",
)
EXTEND = _script(
    "extend",
    "leases running",
    "lease_ms",
)
SETTLE = _script(
    "settle",
    "records ready wake lanes lines lined parked positions tenants scheduled leases running history "
    "deadlines blocked kids parents heirs chunks progress said dead totals events capped full room done",
    "keep result_ttl_s",
)
RELEASE = _script(
    "release",
    "records ready wake lanes lines lined parked positions tenants leases running history progress totals "
    "events capped",
    "keep",
)
CANCEL = _script(
    "cancel",
    "records ready wake lanes lines lined parked positions tenants scheduled leases running history "
    "deadlines blocked kids parents heirs chunks progress said dead totals events capped full room done revoked",
    "keep result_ttl_s by message",
)
EMIT = _script(
    "emit",
    "records running said progress saying",
    "id token keep_items ttl_s",
)
READ = _script(
    "read",
    "records scheduled running history blocked progress",
)
STATS = _script(
    "stats",
    "records ready wake lanes lines lined parked positions tenants rates scheduled leases running history "
    "deadlines blocked kids parents heirs chunks progress said dead totals events gates capped full room done "
    "revoked",
    "keep result_ttl_s",
)
REPLAY = _script(
    "replay",
    "records ready wake lanes lines lined parked positions tenants history dead totals events sequence",
    "keep by",
)
PURGE = _script(
    "purge",
    "records parents heirs chunks said dead events",
    "keep result_ttl_s by",
)
GATE = _script(
    "gate",
    "ready wake lanes gates events",
    "keep gate by shut event",
)
BEAT = _script(
    "beat",
    "instances beats cordons interfaces described",
    "instance info interface text",
)
CORDON = _script(
    "cordon",
    "wake cordons revoked",
    "by cordoned",
)
INSTANCES = _script(
    "instances",
    "instances beats cordons",
)
INTERFACES = _script(
    "interfaces",
    "interfaces described",
)
FORGET = _script(
    "forget",
    "wake instances beats cordons interfaces described",
    "instance silent_ms",
)

SCRIPTS: Final = (
    SUBMIT,
    CLAIM,
    EXTEND,
    SETTLE,
    RELEASE,
    CANCEL,
    EMIT,
    READ,
    STATS,
    REPLAY,
    PURGE,
    GATE,
    BEAT,
    CORDON,
    INSTANCES,
    INTERFACES,
    FORGET,
)


def source(name: str) -> str:
    """The text of a file in lua/, without the ending."""
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


@cache
def _text(script: Script) -> str:
    def assign(names: tuple[str, ...], array: str) -> str:
        values = ", ".join(f"{array}[{n}]" for n in range(1, len(names) + 1))
        return f"local {', '.join(names)} = {values}\n" if names else ""

    body = _INCLUDE.sub(lambda match: source(f"include/{match[1]}"), source(script.name))
    return assign(script.keys, "KEYS") + assign(script.arguments, "ARGV") + body


@cache
def _digest(script: Script) -> str:
    return hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()


class BoundScripts:
    """The scripts with the keys of one queue."""

    def __init__(self, keys: Keys) -> None:
        self._heads: dict[str, tuple[str | int, ...]] = {
            script.name: (len(script.keys), *(keys.name(part) for part in script.keys)) for script in SCRIPTS
        }

    async def run(self, client: Redis, script: Script, arguments: Sequence[Argument]) -> Any:
        """Run a script in one round trip; two if the server does not know it yet (new, restarted, flushed)."""
        head = self._heads[script.name]
        try:
            return await execute(client, "EVALSHA", script.digest, *head, *arguments)
        except NoScriptError:
            return await execute(client, "EVAL", script.text, *head, *arguments)
