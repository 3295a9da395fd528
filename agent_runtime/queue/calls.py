# SPDX-License-Identifier: Apache-2.0
"""What all parts of a queue in Redis share: its configuration, its keys, its server and its scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent_runtime.queue.connection import Server
from agent_runtime.queue.keys import Keys
from agent_runtime.queue.scripts import Argument, BoundScripts, Script
from kubeagents_api.runtime_config import QueueConfig

T = TypeVar("T")

LARGEST_BATCH_BYTES: Final = 128 * 1024 * 1024
"""Bytes of one submission, of one claim's answer, of one read: what fits the socket's timeout on a slow network."""
LARGEST_CALL: Final = 1000
"""Tasks in one call of any other script; longer lists are cut. Lua's stack takes some thousands of values."""
CLAIMS_PER_CALL: Final = 128
"""Tasks that are claimed or settled in one call. With twice as many, one worker drained a third less in short runs."""
LONGEST_BLOCK_SECONDS: Final = 5.0
"""How long an idle worker sleeps before it looks for itself, which takes some ten commands. It is also the most by
which the death of a worker between its wake-up and its claim can delay others."""


@dataclass(frozen=True, slots=True)
class Calls:
    """One queue at one server."""

    config: QueueConfig
    keys: Keys
    server: Server
    scripts: BoundScripts

    async def run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        """Run a script that may be repeated, again if need be."""
        return await self.server.call(lambda _: self.scripts.run(self.server.commands, script, arguments))

    @property
    def claims_per_call(self) -> int:
        """How many tasks one call claims or settles. Few, so that server and worker work at the same time: while one
        is busy with a call, the other is with the one before."""
        return max(1, min(CLAIMS_PER_CALL, LARGEST_BATCH_BYTES // self.config.inline_bytes))

    @property
    def records_per_call(self) -> int:
        """How many records do: they hold a payload and a result."""
        return max(1, min(LARGEST_CALL, LARGEST_BATCH_BYTES // (2 * self.config.inline_bytes)))


def parts_of(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """A long list, cut."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def milliseconds(seconds: float) -> int:
    """Seconds as the scripts want them."""
    return round(seconds * 1000)
