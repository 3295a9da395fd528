# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.security import Audit, Caller, Credentials
from kubeagents_api.access import AuditEntry
from kubeagents_api.errors import QueueUnavailableError
from tests.support.eventually import eventually_async

CALL = Credentials("http", address="10.0.0.7", key="a-key-that-is-secret", request="r1")
MARIA = Caller("maria", "admin", key="3k9x0a7m2c5q")


class Kept:
    """Where entries go, if it is there."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.away = False

    async def log(self, entries: Sequence[str]) -> None:
        if self.away:
            raise QueueUnavailableError("away")
        self.texts += entries

    async def read_log(self, *, after: str, limit: int) -> Sequence[tuple[str, str]]:
        return [(str(number), text) for number, text in enumerate(self.texts)][:limit]

    async def has(self, count: int) -> bool:
        return len(self.texts) == count


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def audit(kept: Kept, registry: CollectorRegistry) -> Audit:
    return Audit(kept, registry=registry)


@asynccontextmanager
async def running(audit: Audit) -> AsyncIterator[None]:
    task = asyncio.create_task(audit.run())
    await asyncio.sleep(0)  # what has not begun ends without a word
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_entry_says_who_did_what_and_keeps_no_secret(audit: Audit, kept: Kept) -> None:
    async with running(audit):
        audit.note(CALL, MARIA, verb="pause", outcome="done", queue="orders")
        await eventually_async(lambda: kept.has(1), what="the entry")

    ((_, entry),) = await audit.read(after="", limit=10)
    assert entry.model_dump(exclude_none=True, exclude={"at"}) == {
        "principal": "maria",
        "key": "3k9x0a7m2c5q",
        "address": "10.0.0.7",
        "protocol": "http",
        "request": "r1",
        "verb": "pause",
        "queue": "orders",
        "outcome": "done",
    }
    assert "secret" not in kept.texts[0]
    assert "secret" not in repr(CALL)


async def test_what_waits_at_the_end_is_written(audit: Audit, kept: Kept) -> None:
    async with running(audit):
        audit.note(CALL, MARIA, verb="pause", outcome="done")

    assert len(kept.texts) == 1


async def test_while_redis_is_away_entries_wait_in_their_order(audit: Audit, kept: Kept) -> None:
    kept.away = True
    async with running(audit):
        for number in range(500):
            audit.note(CALL, MARIA, verb=str(number), outcome="done")
        await asyncio.sleep(0)
        kept.away = False
        await eventually_async(lambda: kept.has(500), what="all entries")

    assert [AuditEntry.model_validate_json(text).verb for text in kept.texts] == [str(n) for n in range(500)]


async def test_a_flood_of_strangers_fills_nothing_and_is_counted(
    audit: Audit, kept: Kept, registry: CollectorRegistry
) -> None:
    for _ in range(5000):
        audit.note(CALL, None, verb="call", outcome="denied", code="UNAUTHENTICATED")
    audit.note(CALL, MARIA, verb="pause", outcome="done")
    async with running(audit):
        pass

    assert len(kept.texts) < 500
    assert AuditEntry.model_validate_json(kept.texts[-1]).principal == "maria"
    counted = registry.get_sample_value("kubeagents_audit_entries_total", {"verb": "call", "outcome": "denied"})
    assert counted == 5000
