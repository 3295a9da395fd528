# SPDX-License-Identifier: Apache-2.0
"""The audit log: every call that changes something, and every one that is refused.

An entry is a line in the log of the pod at once, and soon after one in Redis, where all pods write and admins read. It
has no payload and no key. Redis is written to in the background: a call never waits for it. If it is away for so long
that entries pile up, the oldest ones are left out there, and counted; the pod's log has them.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import orjson
from prometheus_client import CollectorRegistry, Counter

from agent_runtime.security.caller import Caller, Credentials
from agent_runtime.security.rates import Bucket
from kubeagents_api.access import AuditEntry
from kubeagents_api.errors import QueueUnavailableError

_log = logging.getLogger("kubeagents.audit")

_BACKLOG: Final = 10000
_AT_ONCE: Final = 200
_STRANGERS_AT_ONCE: Final = 100.0
_STRANGERS_PER_SECOND: Final = 10.0
_PAUSE_SECONDS: Final = 1.0
"""Until Redis is tried again."""


class Log(Protocol):
    """Where entries are kept: `agent_runtime.queue.access_store.AccessStore`."""

    async def log(self, entries: Sequence[str]) -> None: ...

    async def read_log(self, *, after: str, limit: int) -> Sequence[tuple[str, str]]: ...


class Audit:
    """Takes entries, and writes them while `run` runs."""

    def __init__(self, kept: Log, *, registry: CollectorRegistry) -> None:
        self._kept = kept
        self._waiting: deque[str] = deque()
        self._some = asyncio.Event()
        self._strangers = Bucket(tokens=_STRANGERS_AT_ONCE, now=time.monotonic())
        self._entries = Counter(
            "kubeagents_audit_entries_total",
            "Calls that changed something or were refused.",
            ["verb", "outcome"],
            registry=registry,
        )
        self._dropped = Counter(
            "kubeagents_audit_entries_dropped_total",
            "Entries left out, as too many unknown callers came or as Redis was away for long.",
            ["cause"],
            registry=registry,
        )

    def note(
        self,
        credentials: Credentials,
        caller: Caller | None,
        *,
        verb: str,
        outcome: str,
        queue: str | None = None,
        target: str | None = None,
        code: str | None = None,
    ) -> None:
        """Add an entry. Of callers who are unknown, who may be anybody and many, some a second are enough."""
        self._entries.labels(verb, outcome).inc()
        if caller is None and self._too_many_strangers():
            self._dropped.labels("strangers").inc()
            return
        entry = AuditEntry(
            at=datetime.now(UTC),
            principal=caller.name if caller is not None else None,
            key=caller.key if caller is not None else None,
            address=credentials.address,
            protocol=credentials.protocol,
            request=credentials.request,
            verb=verb,
            queue=queue,
            target=target,
            outcome=outcome,
            code=code,
        )
        who = entry.principal or "somebody unknown"
        level = logging.INFO if outcome == "done" else logging.WARNING
        told = entry.to_wire()
        _log.log(level, "%s: %s %s", who, verb, outcome, extra={"audit": told})
        if len(self._waiting) >= _BACKLOG:
            self._waiting.popleft()
            self._dropped.labels("backlog").inc()
        self._waiting.append(orjson.dumps(told).decode())
        self._some.set()

    def _too_many_strangers(self) -> bool:
        most, per_second = _STRANGERS_AT_ONCE, _STRANGERS_PER_SECOND
        return self._strangers.take(most=most, per_second=per_second, now=time.monotonic()) > 0

    async def read(self, *, after: str, limit: int) -> Sequence[tuple[str, AuditEntry]]:
        """Entries with their offsets, oldest first. Raises QueueUnavailableError."""
        found = await self._kept.read_log(after=after, limit=limit)
        return [(offset, AuditEntry.model_validate_json(text)) for offset, text in found]

    async def run(self) -> None:
        """Write until cancelled; what waits then is written, if Redis answers."""
        try:
            while True:
                await self._some.wait()
                if not await self._flush():
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await self._flush()

    async def _flush(self) -> bool:
        while self._waiting:
            part = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await self._kept.log(part)
            except QueueUnavailableError:
                self._waiting.extendleft(reversed(part))
                return False
        self._some.clear()
        return True
