# SPDX-License-Identifier: Apache-2.0
"""Who wants to be told of what tasks say, in the Redis of a CentralAgent's first queue.

Each entry is claimed by one pod for a while, which renews its claim as long as it lives. What is not renewed, another
pod takes: so somebody tells on, from where the last one has noted that it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent_runtime.queue.connection import Server
from agent_runtime.queue.exchange import execute
from kubeagents_api.errors import QueueFullError

KEPT: Final = 10000
"""Entries that there may be."""
_PAGE: Final = 500

# KEYS configs, due   ARGV name, text, most   Returns 0 if there is no room.
_PUT: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[1])
return 1
"""
# KEYS configs, due, places   ARGV seconds, limit   Returns name, text, place of each that is claimed.
_CLAIM: Final = """
local now = tonumber(redis.call('TIME')[1])
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))) do
  local text = redis.call('HGET', KEYS[1], name)
  if text then
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), name)
    found[#found + 1] = name
    found[#found + 1] = text
    found[#found + 1] = redis.call('HGET', KEYS[3], name) or ''
  else
    redis.call('ZREM', KEYS[2], name)
    redis.call('HDEL', KEYS[3], name)
  end
end
return found
"""
# KEYS due   ARGV seconds, name ...   Entries that are gone stay gone.
_RENEW: Final = """
local until_ = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[1])
for index = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', until_, ARGV[index]) end
return 1
"""
# KEYS configs, places   ARGV name, place   A place is kept only as long as the entry is there.
_NOTE: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return 1
"""
# KEYS configs, due, places   ARGV name
_REMOVE: Final = """
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An entry that is ours for a while."""

    name: str
    text: str
    place: str
    """As it was noted last; empty at first."""


class PushStore:
    """Texts by name, here without a meaning. A name begins with its group, up to the last slash.

    All methods raise QueueUnavailableError when Redis does not answer, and may be repeated safely.
    """

    def __init__(self, namespace: str, central: str, *, url: str) -> None:
        prefix = f"ka:{{{namespace}/{central}@}}:push:"  # as the keys of AccessStore
        self._configs, self._due, self._places = prefix + "configs", prefix + "due", prefix + "places"
        self._server = Server(url, longest_block_seconds=1.0, key=self._configs)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    async def put(self, name: str, text: str) -> None:
        """Keep an entry; whoever has claimed it keeps its claim. Raises QueueFullError."""
        if not await self._eval(_PUT, [self._configs, self._due], name, text, KEPT):
            raise QueueFullError(f"there are {KEPT} push notification configs already", delay=60)

    async def get(self, name: str) -> str | None:
        """One entry."""
        found = await self._command("HGET", self._configs, name)
        return found.decode() if found is not None else None

    async def group(self, group: str) -> Sequence[tuple[str, str]]:
        """The entries of a group with their names, sorted."""
        entries: dict[str, str] = {}
        cursor = "0"
        while True:
            at, flat = await self._command("HSCAN", self._configs, cursor, "MATCH", f"{group}/*", "COUNT", _PAGE)
            entries.update(zip((n.decode() for n in flat[::2]), (t.decode() for t in flat[1::2]), strict=True))
            cursor = at.decode()
            if cursor == "0":
                return sorted(entries.items())

    async def remove(self, name: str) -> bool:
        """Keep it no more; whether it was there."""
        return bool(await self._eval(_REMOVE, [self._configs, self._due, self._places], name))

    async def claim(self, *, limit: int, seconds: int) -> Sequence[Claimed]:
        """Entries that nobody has, which are ours for that time."""
        keys = [self._configs, self._due, self._places]
        flat = [part.decode() for part in await self._eval(_CLAIM, keys, seconds, limit)]
        return [Claimed(*entry) for entry in zip(flat[::3], flat[1::3], flat[2::3], strict=True)]

    async def renew(self, names: Sequence[str], *, seconds: int) -> None:
        """Have them for longer. With 0 seconds they are anybody's."""
        if names:
            await self._eval(_RENEW, [self._due], seconds, *names)

    async def note(self, name: str, place: str) -> None:
        """Note how far it is, for whoever goes on."""
        await self._eval(_NOTE, [self._configs, self._places], name, place)

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | int) -> Any:
        return await self._command("EVAL", script, len(keys), *keys, *arguments)

    async def _command(self, *command: str | int) -> Any:
        async def send(_repeated: bool) -> Any:
            return await execute(self._server.commands, *command)

        return await self._server.call(send)
