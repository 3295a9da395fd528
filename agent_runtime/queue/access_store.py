# SPDX-License-Identifier: Apache-2.0
"""What a CentralAgent keeps of API keys and of who did what, in the Redis of its first queue."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_runtime.queue.connection import Server
from agent_runtime.queue.exchange import execute

AUDIT_KEPT: Final = 10000
"""Entries of the audit log that are kept, about."""


class AccessStore:
    """Keys by id, and a log. Both are texts here; what they mean is known to who stores them.

    All methods raise QueueUnavailableError when Redis does not answer. Each may be repeated safely, but an entry of the
    log may then be there twice.
    """

    def __init__(self, namespace: str, central: str, *, url: str) -> None:
        prefix = f"ka:{{{namespace}/{central}@}}:"  # "@": no queue can have that name
        self._keys, self._audit, self._pods = prefix + "keys", prefix + "audit", prefix + "pods"
        self._server = Server(url, longest_block_seconds=1.0, key=self._keys)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    async def get(self, key_id: str) -> str | None:
        """What is kept under an id."""
        found = await self._command("HGET", self._keys, key_id)
        return found.decode() if found is not None else None

    async def all(self) -> Mapping[str, str]:
        """Everything that is kept, by id."""
        flat = await self._command("HGETALL", self._keys)
        return {name.decode(): text.decode() for name, text in zip(flat[::2], flat[1::2], strict=True)}

    async def put(self, key_id: str, text: str) -> None:
        """Keep it."""
        await self._command("HSET", self._keys, key_id, text)

    async def remove(self, *key_ids: str) -> int:
        """Keep them no more; how many there were. The repeat of a call whose answer was lost says none."""
        removed: int = await self._command("HDEL", self._keys, *key_ids)
        return removed

    async def log(self, entries: Sequence[str]) -> None:
        """Add to the log, oldest first."""
        for entry in entries:
            await self._command("XADD", self._audit, "MAXLEN", "~", AUDIT_KEPT, "*", "e", entry)

    async def read_log(self, *, after: str, limit: int) -> Sequence[tuple[str, str]]:
        """Entries with their offsets, oldest first, after an offset; from the oldest that is kept if it is empty."""
        begin = f"({after}" if after else "-"
        found = await self._command("XRANGE", self._audit, begin, "+", "COUNT", limit)
        return [(offset.decode(), fields[1].decode()) for offset, fields in found]

    async def show(self, instance: str, *, gone_seconds: float) -> int:
        """Note that a pod is there. Returns how many are, of those that were noted in that time."""
        seconds, _ = await self._command("TIME")
        await self._command("ZADD", self._pods, int(seconds), instance)
        await self._command("ZREMRANGEBYSCORE", self._pods, "-inf", f"({int(seconds) - int(gone_seconds)}")
        count: int = await self._command("ZCARD", self._pods)
        return count

    async def _command(self, *command: str | int) -> Any:
        async def send(_repeated: bool) -> Any:
            return await execute(self._server.commands, *command)

        return await self._server.call(send)
