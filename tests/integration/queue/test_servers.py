# SPDX-License-Identifier: Apache-2.0
"""Servers that restart, forget scripts, refuse, or are not there."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime.queue import Outcome, TaskQueue, open_queue
from kubeagents_api.errors import QueueAuthError, QueueUnavailableError, RedisUrlError
from kubeagents_api.task import QueueStats, TaskState
from tests.integration.conftest import queue_config
from tests.integration.queue.actors import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    NOW,
    SOON,
    calls,
    claim_one,
    failed,
    payloads,
    submit,
    succeeded,
    tasks,
    told,
)
from tests.integration.queue.conftest import OpenQueue
from tests.support.eventually import eventually, eventually_async
from tests.support.redis_server import RedisServer, free_port


@pytest.fixture
def own_server(redis_binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A server with an append-only file that the test may treat as it likes.

    It writes before it answers: on a busy disk, `everysec` may put that off for up to two seconds.
    """
    with RedisServer(redis_binary, tmp_path, append_only=True, settings=("appendfsync always",)) as server:
        yield server


async def figures_of(queue: TaskQueue) -> QueueStats:
    """All figures that do not change by themselves."""
    return (await queue.stats()).model_copy(update={"oldest_seconds": 0.0})


async def test_a_killed_server_with_an_append_only_file_keeps_all_it_acknowledged(
    own_server: RedisServer, open_test_queue: OpenQueue
) -> None:
    queue = open_test_queue(url=own_server.url)
    ids = await submit(queue, *range(10), max_attempts=2)
    claims = await queue.claim(ALICE, limit=4, wait_seconds=NOW)
    outcomes: list[Outcome] = [
        *succeeded(claims[:1], "kept"),
        *failed(claims[1], delay_seconds=500),
        *failed(claims[2], permanent=True),
    ]
    assert await queue.settle(outcomes) == [True] * 3
    before = {task_id: await queue.get(task_id) for task_id in ids}
    figures = await figures_of(queue)

    own_server.kill()
    own_server.start()
    assert {task_id: await queue.get(task_id) for task_id in ids} == before
    assert await figures_of(queue) == figures
    assert (await queue.storage()).append_only
    assert await queue.settle(succeeded([claims[3]], "after")) == [True]
    assert (await queue.get(ids[3])).result == "after"
    assert payloads(await queue.claim(BOB, limit=10, wait_seconds=NOW)) == list(range(4, 10))


async def test_calls_outlast_a_restart(
    own_server: RedisServer, open_test_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 60)
    queue = open_test_queue(url=own_server.url, lease_seconds=600)
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
    idle = asyncio.create_task(claim_one(queue, BOB))
    own_server.kill()
    settling = asyncio.create_task(queue.settle(succeeded([claim], "done")))
    await asyncio.to_thread(own_server.start)

    assert await settling == [True]
    (record,) = await told(waiting)
    assert record.state is TaskState.SUCCEEDED
    await submit(queue, "next")
    assert payloads([await idle]) == ["next"]


async def test_a_subscription_that_has_gone_dead_is_noticed(
    own_server: RedisServer,
    open_test_queue: OpenQueue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("agent_runtime.queue.subscription.SILENCE_SECONDS", 0.2)
    queue = open_test_queue(url=own_server.url)
    (task_id,) = await submit(queue, "work")
    claim = await claim_one(queue)
    before = calls(own_server, "ping")
    waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))

    async def silent_but_alive() -> bool:
        return calls(own_server, "ping") - before >= 3

    await eventually_async(silent_but_alive, what="signs of life")
    assert calls(own_server, "subscribe") == 1

    own_server.freeze()

    async def noticed() -> bool:
        return "no sign of life" in caplog.text

    await eventually_async(noticed, what="the subscription is given up")
    own_server.thaw()
    assert await queue.settle(succeeded([claim], "done")) == [True]
    (record,) = await told(waiting)
    assert record.result == "done"


async def test_scripts_that_the_server_has_forgotten_are_sent_again(
    queue: TaskQueue, redis_server: RedisServer
) -> None:
    def forget() -> None:
        with redis_server.client() as client:
            client.script_flush()

    forget()
    ids = await submit(queue, "a", "b")
    forget()
    claims = await queue.claim(ALICE, limit=2, wait_seconds=NOW)
    forget()
    assert await queue.extend(claims) == []
    forget()
    await queue.release(claims[1:])
    forget()
    assert await queue.settle(succeeded(claims[:1], 1)) == [True]
    forget()
    assert [record.state for record in await queue.wait(ids, timeout_seconds=0.1)] == ["succeeded", "queued"]


async def test_a_server_that_is_not_there_is_named(open_test_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 0.1)
    port = free_port()
    queue = open_test_queue(url=f"redis://user:s3cret@127.0.0.1:{port}/0")
    with pytest.raises(QueueUnavailableError, match=rf"127\.0\.0\.1:{port} does not answer") as refused:
        await queue.stats()
    assert "s3cret" not in str(refused.value)
    with pytest.raises(QueueUnavailableError):
        await queue.wait(["some-task"], timeout_seconds=SOON)


async def test_a_server_that_hangs_is_given_up(
    own_server: RedisServer, open_test_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.queue.exchange.SOCKET_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("agent_runtime.queue.connection.PATIENCE_SECONDS", 0.1)
    queue = open_test_queue(url=own_server.url)
    await queue.stats()
    own_server.freeze()
    with pytest.raises(QueueUnavailableError, match="does not answer: Timeout"):
        await queue.stats()
    own_server.thaw()
    assert (await queue.stats()).queued == 0


@pytest.mark.parametrize("user", ["", ":wrong@", "nobody:s3cret@"], ids=["no password", "wrong password", "wrong user"])
async def test_a_refused_login_is_an_auth_error(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue, user: str
) -> None:
    with RedisServer(redis_binary, tmp_path, password="s3cret") as server:  # noqa: S106 - of this server only
        right = open_test_queue(url=server.url)
        assert (await right.stats()).queued == 0
        wrong = open_test_queue(url=f"redis://{user}127.0.0.1:{server.port}/0")
        with pytest.raises(QueueAuthError, match=rf"127\.0\.0\.1:{server.port} refuses us.*password") as refused:
            await wrong.stats()
        assert "s3cret" not in str(refused.value)
        assert "wrong@" not in str(refused.value)


async def test_a_user_with_the_least_rights_can_do_everything(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue
) -> None:
    commands = "+@connection +@read +@write +@scripting +@pubsub +time +info -@dangerous +info"
    acl = f"user agents on >pw ~ka:* resetchannels &ka:* {commands}"
    with RedisServer(redis_binary, tmp_path, settings=(acl,)) as server:
        queue = open_test_queue(url=f"redis://agents:pw@127.0.0.1:{server.port}/0")
        (task_id,) = await submit(queue, "work")
        waiting = asyncio.create_task(queue.wait([task_id], timeout_seconds=FOREVER))
        claim = await claim_one(queue)
        assert await queue.extend([claim]) == []
        assert await queue.settle(succeeded([claim], 1)) == [True]
        assert (await told(waiting))[0].result == 1
        assert await queue.claim(ALICE, limit=1, wait_seconds=0.05) == []
        assert (await queue.storage()).eviction_policy == "noeviction"


async def test_a_user_that_may_not_subscribe_is_told_so(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue
) -> None:
    with RedisServer(redis_binary, tmp_path, settings=("user agents on >pw ~* resetchannels +@all",)) as server:
        queue = open_test_queue(url=f"redis://agents:pw@127.0.0.1:{server.port}/0")
        (task_id,) = await submit(queue, "work")
        with pytest.raises(QueueAuthError, match="channel"):
            await queue.wait([task_id], timeout_seconds=SOON)


async def test_a_user_that_may_not_write_is_told_so(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue
) -> None:
    acl = "user agents on >pw ~* resetchannels &* +@all -mset"
    with RedisServer(redis_binary, tmp_path, settings=(acl,)) as server:
        queue = open_test_queue(url=f"redis://agents:pw@127.0.0.1:{server.port}/0")
        with pytest.raises(QueueAuthError, match=r"refuses us.*ACL"):
            await submit(queue, "work")


async def test_a_failover_is_outlasted(own_server: RedisServer, open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(url=own_server.url)
    await submit(queue, "before")
    idle = asyncio.create_task(claim_one(queue, CAROL))
    with own_server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        submitting = asyncio.create_task(submit(queue, "during"))

        before = calls(own_server, "evalsha")

        async def refused() -> bool:
            return calls(own_server, "evalsha") - before >= 4

        await eventually_async(refused, what="calls that the replica refuses")
        client.execute_command("REPLICAOF", "NO", "ONE")
    await submitting
    claims = [await idle, *await queue.claim(ALICE, limit=2, wait_seconds=NOW)]
    assert payloads(claims) == ["before", "during"]


@pytest.fixture
def tls_server(redis_binary: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a server that speaks TLS, and the certificate that it shows."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(
        [*new, "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    port = free_port()
    tls = (f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}", "tls-auth-clients no")
    server = RedisServer(redis_binary, tmp_path, settings=tls)
    try:
        server.start()
    except RuntimeError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip(f"{redis_binary.name} was built without TLS")
    yield port, Path(certificate)
    server.kill()


async def test_an_encrypted_connection_is_made_and_checked(
    tls_server: tuple[int, Path], open_test_queue: OpenQueue
) -> None:
    port, certificate = tls_server
    good = open_test_queue(url=f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
    await submit(good, "secret")
    assert payloads([await claim_one(good)]) == ["secret"]
    distrustful = open_test_queue(url=f"rediss://127.0.0.1:{port}/0")
    with pytest.raises(QueueUnavailableError, match="certificate"):
        await distrustful.stats()


async def test_a_queue_fits_into_one_slot_of_a_cluster(
    redis_binary: Path, tmp_path: Path, open_test_queue: OpenQueue
) -> None:
    # The port of the cluster's own bus is 10,000 higher.
    port = next(port for port in iter(free_port, None) if port < 55536)
    with RedisServer(redis_binary, tmp_path, port=port, settings=("cluster-enabled yes",)) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))

            def serving() -> bool:
                return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))

            await asyncio.to_thread(eventually, serving, what="a cluster of one")
        queue = open_test_queue(url=server.url)
        ids = await queue.submit([*tasks("a", agent="echo"), *tasks("b", "c", max_attempts=1)])
        waiting = asyncio.create_task(queue.wait(ids, timeout_seconds=FOREVER))
        a, b, c = await queue.claim(ALICE, limit=3, wait_seconds=NOW)
        assert await queue.settle([*failed(a, delay_seconds=0.01), *failed(b)]) == [True, True]
        await queue.release([c])
        assert await queue.settle(succeeded([await claim_one(queue), await claim_one(queue)])) == [True, True]
        assert [record.state for record in await told(waiting)] == ["succeeded", "dead", "succeeded"]
        assert (await queue.stats()).succeeded_total == 2


async def test_a_full_server_is_unavailable_and_says_why(own_server: RedisServer, open_test_queue: OpenQueue) -> None:
    queue = open_test_queue(url=own_server.url)
    await submit(queue, "work")
    with own_server.client() as client:
        client.config_set("maxmemory", "1mb")
    with pytest.raises(QueueUnavailableError, match="maxmemory"):
        await submit(queue, "x" * 500_000)


async def test_the_storage_describes_itself(queue: TaskQueue, redis_binary: Path) -> None:
    storage = await queue.storage()
    assert storage.server.split()[0] in redis_binary.name
    assert storage.server.split()[1][0].isdigit()
    assert storage.eviction_policy == "noeviction"
    assert not storage.append_only
    assert storage.latency_ms > 0


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "wrong scheme"),
        ("http://host:6379", "wrong scheme"),
        ("redis://", "no host"),
        ("redis://:s3cret@", "no host"),
        ("redis://:s3cret#1@host:6379", "malformed|no host"),
        ("redis://:s3cret/1@host:6379", "malformed"),
        ("redis://host:port", "malformed"),
        ("redis://host:70000", "malformed"),
        ("redis://host/zero", "not a number"),
        ("redis://host/0?socket_timeout=1", "socket_timeout"),
        ("rediss://host/0?decode_responses=true", "decode_responses"),
        ("redis://host#s3cret", "after #"),
        ("unix://", "no path"),
    ],
)
def test_a_malformed_url_is_refused_without_being_shown(url: str, complaint: str) -> None:
    with pytest.raises(RedisUrlError, match=complaint) as refused:
        open_queue(queue_config("q"), url=url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://:p%40ss%2Fword@host:6380/3",
        "redis://user:password@host",
        "rediss://host:6380/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=2",
    ],
)
async def test_a_good_url_is_taken_without_connecting(url: str) -> None:
    await open_queue(queue_config("q"), url=url).aclose()
