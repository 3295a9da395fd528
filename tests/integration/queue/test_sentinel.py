# SPDX-License-Identifier: Apache-2.0
"""Queues whose master may be replaced by Sentinels, with real ones."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeagents_api.errors import QueueAuthError, QueueUnavailableError
from kubeagents_api.task import TaskState
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    SOON,
    claim_one,
    payloads,
    submit,
    succeeded,
    told,
)
from tests.integration.queue.conftest import OpenQueue
from tests.integration.queue.load import Load
from tests.support.eventually import eventually
from tests.support.redis_sentinels import MASTER_NAME, Sentinels, replicates, role, sentinels

PAGE = Path(__file__).parents[3] / "docs/howto/choose-a-redis.md"


@pytest.fixture
def trio(redis_binary: Path, tmp_path: Path) -> Iterator[Sentinels]:
    """Sentinels with a user that has the rights of the documentation."""
    (user,) = re.findall(r"`(user agents on >password allchannels .*)`", PAGE.read_text())
    with sentinels(redis_binary, tmp_path, settings=(user,)) as ready:
        yield ready


def url_of(trio: Sentinels, password: str = "password") -> str:  # noqa: S107 - of these Sentinels only
    return f"{trio.url}?sentinel_username=agents&sentinel_password={password}"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer for a failover than callers would wait."""
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 60)


async def test_a_master_that_is_killed_under_load_loses_nothing(trio: Sentinels, open_test_queue: OpenQueue) -> None:
    # Replication is asynchronous: only what all replicas have confirmed is sure to survive.
    url = f"{url_of(trio)}&wait_replicas=2"
    load = Load([open_test_queue(url=url, lease_seconds=2) for _ in range(3)])
    async with load.running():
        await load.settled(100)
        trio.master.kill()
        await asyncio.to_thread(
            eventually, lambda: any(role(server) == "master" for server in trio.replicas), what="another master"
        )
        await asyncio.to_thread(trio.master.start)  # or there would be one replica only, where two must confirm
        await load.settled(100)
    await load.check()


async def test_who_is_idle_or_waits_notices_that_the_master_hangs(trio: Sentinels, open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(url=url_of(trio))
    (task_id,) = await submit(queue, "before")
    claim = await claim_one(queue)
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    idle = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await asyncio.to_thread(eventually, lambda: _blocked(trio) == 1, what="a worker that is blocked")
    trio.master.freeze()  # no connection breaks: only the Sentinels' word tells

    other = open_test_queue(url=url_of(trio))
    assert await other.settle(succeeded([claim], "done")) == [True]
    assert (await told(waiting))[0].result == "done"
    await submit(other, "after")
    async with asyncio.timeout(SOON):
        assert payloads([await idle]) == ["after"]


async def test_a_former_master_that_comes_back_is_left_alone(trio: Sentinels, open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(url=url_of(trio))
    await submit(queue, "one")
    idle = asyncio.create_task(claim_one(queue, CAROL, wait_seconds=FOREVER))
    assert payloads([await idle]) == ["one"]
    idle = asyncio.create_task(claim_one(queue, CAROL, wait_seconds=FOREVER))
    await asyncio.to_thread(eventually, lambda: _blocked(trio) == 1, what="a worker that is blocked")
    with trio.client(trio.ports[0]) as client:  # the master is well, and becomes a replica
        client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
    await asyncio.to_thread(eventually, lambda: replicates(trio.master), what="the former master is a replica")
    (task_id,) = await submit(queue, "two")
    async with asyncio.timeout(SOON):
        claim = await idle
    assert await queue.settle(succeeded([claim], 2)) == [True]
    assert (await queue.get(task_id)).state is TaskState.SUCCEEDED
    assert (await queue.storage()).append_only


async def test_sentinels_that_refuse_or_do_not_know_are_named(
    trio: Sentinels, open_test_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 0.1)
    wrong = open_test_queue(url=url_of(trio, "guess3d"))
    with pytest.raises(QueueAuthError, match=r"the Sentinel at 127\.0\.0\.1:\d+ says.*password") as refused:
        await wrong.stats()
    assert "guess3d" not in str(refused.value)
    unknown = open_test_queue(url=url_of(trio).replace(f"/{MASTER_NAME}", "/nobody"))
    with pytest.raises(QueueUnavailableError, match=r"No such master.*check the master's name"):
        await unknown.stats()
    queue = open_test_queue(url=url_of(trio))
    trio.stop()
    with pytest.raises(
        QueueUnavailableError, match=f"master '{MASTER_NAME}' of the Sentinels at .*no Sentinel can tell"
    ):
        await queue.claim(ALICE, limit=1, wait_seconds=0)


def _blocked(trio: Sentinels) -> int:
    with trio.master.client() as client:
        return int(client.info("clients")["blocked_clients"])
