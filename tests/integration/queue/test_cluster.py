# SPDX-License-Identifier: Apache-2.0
"""Queues in a real Redis Cluster whose slots move and whose nodes die."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime.queue.keys import Keys
from kubeagents_api.errors import QueueUnavailableError
from tests.integration.queue.actors import ALICE, BOB, FOREVER, SOON, claim_one, payloads, submit, succeeded, told
from tests.integration.queue.conftest import OpenQueue
from tests.integration.queue.load import Load
from tests.support.eventually import eventually
from tests.support.redis_cluster import RedisCluster, free_cluster_port, redis_cluster
from tests.support.redis_server import RedisServer
from tests.support.tls import self_signed


@pytest.fixture
def cluster(redis_binary: Path, tmp_path: Path) -> Iterator[RedisCluster]:
    with redis_cluster(redis_binary, tmp_path) as ready:
        yield ready


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of the test's queue."""
    return Keys("tests", request.node.originalname).name("records")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer for a failover than callers would wait."""
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 60)


async def test_a_slot_that_moves_under_load_loses_nothing(
    cluster: RedisCluster, open_test_queue: OpenQueue, key: str
) -> None:
    load = Load([open_test_queue(url=cluster.url, lease_seconds=2) for _ in range(3)])
    async with load.running():
        for _ in range(3):
            await load.settled(50)
            target = _another(cluster, key)
            refusals = _refusals(cluster)

            def halfway(refusals: int = refusals) -> None:
                eventually(lambda: _refusals(cluster) > refusals, what="calls that meet a slot on its way")

            await asyncio.to_thread(cluster.move_slot, key, to=target, halfway=halfway)
    await load.check()


async def test_a_node_that_is_killed_under_load_loses_nothing(
    cluster: RedisCluster, open_test_queue: OpenQueue, key: str
) -> None:
    owner = cluster.owner(key)
    replicas = [await asyncio.to_thread(cluster.add_replica, owner) for _ in range(2)]
    url = f"{cluster.url}?wait_replicas=1"
    load = Load([open_test_queue(url=url, lease_seconds=2) for _ in range(3)])
    async with load.running():
        await load.settled(50)
        owner.kill()
        await load.settled(50)
    await load.check()
    assert cluster.owner(key) in replicas


async def test_a_node_that_hangs_is_left(cluster: RedisCluster, open_test_queue: OpenQueue, key: str) -> None:
    owner = cluster.owner(key)
    await asyncio.to_thread(cluster.add_replica, owner)
    queue = open_test_queue(url=cluster.url)
    idle = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    await asyncio.to_thread(eventually, lambda: _blocked(owner) == 1, what="a worker that is blocked")
    owner.freeze()
    await submit(queue, "after")
    async with asyncio.timeout(SOON):
        assert payloads([await idle]) == ["after"]


async def test_the_nodes_are_asked_and_used_over_tls(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file, certificate = self_signed(tmp_path)
    port = free_cluster_port()
    tls = (f"tls-cert-file {certificate}", f"tls-key-file {key_file}", f"tls-ca-cert-file {certificate}")
    settings = ("cluster-enabled yes", "tls-cluster yes", f"tls-port {port}", "tls-auth-clients no", *tls)
    node = RedisServer(redis_binary, tmp_path, pick_port=free_cluster_port, settings=settings)
    try:
        node.start()
    except RuntimeError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip(f"{redis_binary.name} was built without TLS")
    try:
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        queue = open_test_queue(url=f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={certificate}")
        await submit(queue, "secret")
        assert payloads([await claim_one(queue)]) == ["secret"]
        monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 0.1)
        distrustful = open_test_queue(url=f"rediss+cluster://127.0.0.1:{port}")
        with pytest.raises(QueueUnavailableError, match="certificate"):
            await distrustful.stats()
    finally:
        node.kill()


async def test_who_is_idle_or_waits_follows_the_slot(
    cluster: RedisCluster, open_test_queue: OpenQueue, key: str
) -> None:
    queue = open_test_queue(url=cluster.url)
    (task_id,) = await submit(queue, "before")
    claim = await claim_one(queue)
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    idle = asyncio.create_task(claim_one(queue, BOB, wait_seconds=FOREVER))
    former = cluster.owner(key)
    await asyncio.to_thread(eventually, lambda: _blocked(former) == 1, what="a worker that is blocked")
    await asyncio.to_thread(cluster.move_slot, key, to=_another(cluster, key))

    other = open_test_queue(url=cluster.url)
    await submit(other, "after")
    async with asyncio.timeout(SOON):
        assert payloads([await idle]) == ["after"]
    assert await other.settle(succeeded([claim], "done")) == [True]
    assert (await told(waiting))[0].result == "done"


async def test_the_url_of_one_node_is_refused_with_the_right_one(
    cluster: RedisCluster, open_test_queue: OpenQueue, key: str
) -> None:
    wrong = next(node for node in cluster.nodes if node is not cluster.owner(key))
    with pytest.raises(QueueUnavailableError, match=r"write redis\+cluster:// instead"):
        await open_test_queue(url=wrong.url).claim(ALICE, limit=1, wait_seconds=0)


def _another(cluster: RedisCluster, key: str) -> RedisServer:
    owner = cluster.owner(key)
    return next(node for node in cluster.nodes if node is not owner)


def _blocked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def _refusals(cluster: RedisCluster) -> int:
    """How often a node has sent somebody elsewhere or told them to come back."""
    total = 0
    for node in cluster.nodes:
        with node.client() as client:
            stats = client.info("errorstats")
        assert isinstance(stats, dict)
        total += sum(
            int(entry["count"]) for name, entry in stats.items() if name in ("errorstat_ASK", "errorstat_TRYAGAIN")
        )
    return total
