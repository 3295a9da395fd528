# SPDX-License-Identifier: Apache-2.0
"""Every script once, on each version of Redis and Valkey that we promise, with the rights that we document."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.queue import open_queue
from agent_runtime.queue.base import Beat, Gate, Orders, Partial, Progress
from agent_runtime.queue.scripts import SCRIPTS, BoundScripts, Script
from kubeagents_api.errors import CordonedError
from kubeagents_api.interface import Interface
from kubeagents_api.limits import QueueLimits, RateLimit, TenantLimits
from kubeagents_api.task import DeadFilter, TaskRequest, TaskState
from tests.integration.conftest import queue_config
from tests.integration.queue.actors import ALICE, FOREVER, NOW, claim_one, failed, submit, succeeded, told
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_server import RedisServer, binaries
from tests.support.server_versions import VERSIONS, ServerUnavailableError, fetch

PAGE = Path(__file__).parents[3] / "docs/howto/choose-a-redis.md"


def documented_rights() -> str:
    """The line with which the documentation makes a user."""
    (line,) = re.findall(r"^(user agents on .*)$", PAGE.read_text(), flags=re.MULTILINE)
    return str(line)


@pytest.fixture(scope="module", params=sorted({*binaries(), *VERSIONS}))
def binary(request: pytest.FixtureRequest) -> Path:
    """Each server that can be had here."""
    name: str = request.param
    if name in binaries():
        return binaries()[name]
    try:
        return fetch(name)
    except ServerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(binary, tmp_path, append_only=True, settings=(documented_rights(),)) as running:
        yield running


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the scripts that have run."""
    names: set[str] = set()
    run = BoundScripts.run

    async def noted(self: BoundScripts, client: Any, script: Script, arguments: Any) -> Any:
        answer = await run(self, client, script, arguments)
        names.add(script.name)
        return answer

    monkeypatch.setattr(BoundScripts, "run", noted)
    return names


async def test_every_script_works_for_the_documented_user(server: RedisServer, used: set[str]) -> None:
    limits = QueueLimits(
        max_depth=1000,
        concurrency=100,
        rate=RateLimit(tasks=10_000),
        per_tenant=TenantLimits(concurrency=50, rate=RateLimit(tasks=10_000)),
    )
    url = f"redis://agents:password@127.0.0.1:{server.port}/0"
    queue = open_queue(queue_config("work", limits=limits, inline_bytes=1024), url=url)
    said = Interface(description="Counts words.")
    beat = Beat(worker=ALICE, version="1", concurrency=1, running=0, draining=False, started_at_ms=0, interface=said)
    assert await queue.beat(beat) == Orders()
    assert [one.description for one in await queue.interfaces()] == ["Counts words."]
    await queue.cordon([ALICE.instance, "nobody"], by="ada")
    with pytest.raises(CordonedError):
        await queue.claim(ALICE, limit=1, wait_seconds=FOREVER)
    (alice,) = await queue.instances(timeout_seconds=60)
    assert alice.cordoned_by == ["ada"]
    await queue.uncordon([ALICE.instance], by="ada")

    parent, child, *_ = await queue.submit(
        [
            TaskRequest(id="parent", tenant="t", payload="x" * 5000),
            TaskRequest(id="child", depends_on=["parent"], agent="echo"),
            TaskRequest(delay_seconds=500, capability="ocr"),
            TaskRequest(idempotency_key="once", instance="somewhere-else"),
        ]
    )
    assert await queue.submit([TaskRequest(idempotency_key="once")]) != []
    waiting = asyncio.create_task(queue.wait([parent, child], timeout_seconds=FOREVER))
    claim = await claim_one(queue)
    assert len(claim.payload) == 5002
    assert await queue.extend([claim]) == []
    assert await queue.emit(claim, [Progress(0.5), Partial(b'"part"')])
    assert (await queue.get(parent)).progress is not None
    assert await queue.settle(succeeded([claim], "y" * 5000)) == [True]
    assert [item.kind async for item in queue.stream(parent)] == ["progress", "partial"]
    claim = await claim_one(queue)
    assert (claim.id, len(str((await queue.parents(claim))[parent].result))) == (child, 5000)
    await queue.release([claim])
    claim = await claim_one(queue)
    assert await queue.settle(succeeded([claim])) == [True]
    assert {record.state for record in await told(waiting)} == {TaskState.SUCCEEDED}

    dead, doomed = await submit(queue, 1, 2, max_attempts=1, tenant="t")
    for _ in range(2):
        await queue.settle(failed(await claim_one(queue)))
    assert [record.id for record in await queue.list_dead(limit=10)] == [doomed, dead]
    assert await queue.replay(DeadFilter(ids=[dead]), by="me") == [dead]
    assert await queue.purge(DeadFilter(), by="me") == [doomed]
    assert await queue.cancel([dead], by="me") == [TaskState.CANCELLED]

    due = datetime(2030, 1, 1, tzinfo=UTC)
    assert await queue.fire("nightly", due, TaskRequest(id="nightly.1"))
    assert not await queue.fire("nightly", due, TaskRequest(id="nightly.2"))
    assert await queue.fired() == {"nightly": due}
    await queue.set_gate(Gate.CLAIMS, shut=True, by="me")
    assert await queue.claim(ALICE, limit=1, wait_seconds=NOW) == []
    stats = await queue.stats()
    assert (stats.queued, stats.scheduled, stats.succeeded_total, stats.paused_by) == (2, 1, 2, ["me"])
    kinds = {event.kind for event in await queue.events(limit=100)}
    assert {"submitted", "merged", "started", "released", "dead", "replayed", "purged", "paused"} <= kinds
    assert await queue.events(after="$", limit=1, wait_seconds=0.05) is not None

    assert [instance.instance for instance in await queue.instances(timeout_seconds=60)] == [ALICE.instance]
    assert await queue.forget_silent(silent_seconds=60) == []
    await queue.leave(ALICE)
    storage = await queue.storage()
    assert storage.server.split()[0] in ("redis", "valkey")
    assert (storage.eviction_policy, storage.append_only) == ("noeviction", True)
    assert used == {script.name for script in SCRIPTS}
    await queue.aclose()


async def test_a_cluster_serves_the_documented_user(binary: Path, tmp_path: Path) -> None:
    rights = f"{documented_rights()} +cluster|slots"  # as the page says
    with redis_cluster(binary, tmp_path, settings=(rights,)) as cluster:
        url = cluster.url.replace("127.0.0.1", "agents:password@127.0.0.1")
        queue = open_queue(queue_config("work", shards=3), url=url)
        for number in range(3):
            await submit(queue, number)
        claims = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
        assert await queue.settle(succeeded(claims)) == [True] * 3
        assert (await queue.stats()).succeeded_total == 3
        await queue.aclose()
