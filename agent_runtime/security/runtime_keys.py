# SPDX-License-Identifier: Apache-2.0
"""The keys that are made while the system runs. What one pod makes or revokes, all know within LOOK_SECONDS."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final, Protocol

from pydantic import ConfigDict

from agent_runtime.security.caller import Caller
from agent_runtime.security.keys import ApiKey, new_key
from kubeagents_api.access import KeyInfo, KeyRequest, NewKey
from kubeagents_api.errors import KeyNotFoundError

LOOK_SECONDS: Final = 2.0
"""For how long what is known of a key is believed."""
_REMEMBERED = 4096
"""Ids of keys, there or not, of which something is known."""


class Storage(Protocol):
    """Where keys are kept: `agent_runtime.queue.access_store.AccessStore`."""

    async def get(self, key_id: str) -> str | None: ...

    async def all(self) -> Mapping[str, str]: ...

    async def put(self, key_id: str, text: str) -> None: ...

    async def remove(self, *key_ids: str) -> int: ...


class _Kept(KeyInfo):
    """A key as it is kept. A newer version may have written more."""

    model_config = ConfigDict(extra="ignore")

    digest: str


@dataclass(frozen=True, slots=True)
class _Known:
    at: float
    key: _Kept | None


class RuntimeKeys:
    """Makes, finds and revokes keys. All methods raise QueueUnavailableError when Redis does not answer."""

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Future[_Kept | None]] = {}

    async def caller(self, shown: ApiKey) -> Caller | None:
        """Whose key it is; None if it is not valid, or not any more."""
        kept = await self._look(shown.id)
        if kept is None or not compare_digest(kept.digest, shown.digest()) or self._expired(kept):
            return None
        return Caller.of(kept.principal, kept, rate_limit=kept.rate_limit, key=kept.id)

    async def make(self, wanted: KeyRequest, *, by: str) -> NewKey:
        """Make a key."""
        made = new_key()
        said = {name: getattr(wanted, name) for name in KeyRequest.model_fields}
        created = {"id": made.id, "created_at": self._now(), "created_by": by}
        kept = _Kept(**said, **created, digest=made.digest())
        await self._storage.put(made.id, kept.model_dump_json(by_alias=True, exclude_none=True))
        self._known.pop(made.id, None)
        return NewKey(**said, **created, key=made.text)

    async def list(self) -> Sequence[KeyInfo]:
        """All keys, the oldest first, also those that have expired: until somebody revokes them, they are kept."""
        kept = [_Kept.model_validate_json(text) for text in (await self._storage.all()).values()]
        infos = [KeyInfo(**{name: getattr(one, name) for name in KeyInfo.model_fields}) for one in kept]
        return sorted(infos, key=lambda one: (one.created_at, one.id))

    async def revoke(self, key_id: str) -> None:
        """End a key. Raises KeyNotFoundError."""
        removed = await self._storage.remove(key_id)
        self._known.pop(key_id, None)
        if not removed:
            raise KeyNotFoundError(f"there is no key {key_id!r}: see the list of keys for their ids")

    async def _look(self, key_id: str) -> _Kept | None:
        known = self._known.get(key_id)
        if known is not None and self._clock() - known.at < LOOK_SECONDS:
            return known.key
        if (asking := self._asking.get(key_id)) is None:
            asking = self._asking[key_id] = asyncio.ensure_future(self._ask(key_id))
            asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return await asyncio.shield(asking)

    async def _ask(self, key_id: str) -> _Kept | None:
        at = self._clock()
        text = await self._storage.get(key_id)
        kept = _Kept.model_validate_json(text) if text is not None else None
        self._known[key_id] = _Known(at, kept)
        self._known.move_to_end(key_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return kept

    def _expired(self, kept: _Kept) -> bool:
        return kept.expires_at is not None and self._now() >= kept.expires_at
