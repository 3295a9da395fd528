# SPDX-License-Identifier: Apache-2.0
"""The same calls over ZeroMQ."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.integration.runtime.frames import Frames, RefusedError, raw_zeromq, zeromq
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

KEYS = {name: f"the-key-of-{name}-0000" for name in ("root", "vera")}
WORKER = {"agent": "worker", "instance": "outside-1"}
MEBIBYTE = 1_048_576


def start(system: System, instance: str = "hub-1", **changes: Any) -> RuntimeProcess:
    return system.central(instance=instance, endpoints={"http": 0, "zeromq": 0}, **changes).ready()


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return start(system)


@pytest.fixture(scope="module")
def guarded(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    folder = tmp_path_factory.mktemp("keys")
    for name, key in KEYS.items():
        (folder / name).mkdir()
        (folder / name / "key").write_text(key)
    access = AccessSettings(
        principals=[
            Principal(name="root", role="admin", keys_from=LocalRef(name="root")),
            Principal(name="vera", role="viewer", keys_from=LocalRef(name="vera")),
        ]
    )
    with contextlib.ExitStack() as stack:
        system = System(stack, folder=tmp_path_factory.mktemp("guarded"), redis=redis_server)
        yield start(system, access=access, keys_path=str(folder))


async def code_of(frames: Frames, call: str, **params: object) -> str:
    with pytest.raises(RefusedError) as caught:
        await frames.call(call, **params)
    return caught.value.code


async def test_a_task_is_submitted_done_and_its_result_awaited(system: System, central: RuntimeProcess) -> None:
    system.agent()
    text = "x" * (MEBIBYTE - 2)
    async with zeromq(central) as frames:
        task = (await frames.call("submit", task={"payload": text}))["id"]
        (found,) = (await frames.call("results", ids=[task], timeoutSeconds=60))["tasks"]
        assert found["result"] == text
        assert await code_of(frames, "submit", task={"payload": text + "x"}) == "PAYLOAD_TOO_LARGE"
        watching = await frames.begin("watch", id=task)
        assert await frames.next(watching) == {"id": watching, "end": {"state": "succeeded"}}


async def test_who_is_not_asked_for_a_key_need_not_say_hello(central: RuntimeProcess) -> None:
    async with raw_zeromq(central) as wire:
        assert (await Frames(wire).call("stats"))["queue"] == "main"


async def test_replicas_serve_the_same_queue_and_streams_are_resumed(system: System, central: RuntimeProcess) -> None:
    other = start(system, "hub-2")
    async with zeromq(central) as agent:
        task = (await agent.call("submit", task={}))["id"]
        (claim,) = (await agent.call("work.claim", worker=WORKER))["claims"]
        held = {name: claim[name] for name in ("id", "token", "attempt", "maxAttempts", "timeoutSeconds")}
        await agent.call("work.emit", claim=held, items=[{"kind": "partial", "data": part} for part in (1, 2)])
        async with zeromq(central) as frames:
            first = (await frames.next(await frames.begin("watch", id=task, credit=1)))["item"]
        async with zeromq(other) as frames:
            watching = await frames.begin("watch", id=task, after=first["offset"])
            assert (await frames.next(watching))["item"]["data"] == 2
            await frames.call("work.settle", outcomes=[{"claim": held, "result": "done"}])
            assert await frames.next(watching) == {"id": watching, "end": {"state": "succeeded"}}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([b"{"], "INVALID_JSON"),
        ([b"\xff\xff"], "INVALID_JSON"),
        ([b""], "INVALID_JSON"),
        ([b"[]"], "INVALID_REQUEST"),
        ([b'{"id": "a", "call": "nothing"}'], "UNKNOWN_CALL"),
        ([b'{"hello": "there"}'], "INVALID_REQUEST"),
        ([b'{"hello": {"key": 1}}'], "INVALID_REQUEST"),
        ([b"", b'{"id": "a", "call": "stats"}'], "INVALID_REQUEST"),
    ],
)
async def test_what_is_wrong_is_answered(guarded: RuntimeProcess, message: list[bytes], code: str) -> None:
    async with zeromq(guarded, key=KEYS["root"]) as frames:
        await frames.wire.socket.send_multipart(message)  # type: ignore[attr-defined]
        answer = json.loads(await frames.wire.recv())
        assert answer["error"]["code"] == code
    assert not [line for line in guarded.lines if "traceback" in line]


async def test_nothing_is_done_before_a_valid_key_is_shown(guarded: RuntimeProcess) -> None:
    async with raw_zeromq(guarded) as wire:
        frames = Frames(wire)
        for frame in ('{"id": "a", "call": "stats"}', '{"hello": {}}', '{"hello": {"key": "a-key-of-nobody-at-all"}}'):
            await frames.send(frame)
            assert (await frames.next(None))["error"]["code"] == "UNAUTHENTICATED"
        await frames.send({"hello": {"key": KEYS["vera"]}})
        assert await frames.next(None) == {"notice": "hello"}
        assert (await frames.call("stats"))["queue"] == "main"
        assert await code_of(frames, "submit", task={}) == "FORBIDDEN"


async def test_nobody_may_choose_a_routing_id_and_so_take_the_place_of_another(guarded: RuntimeProcess) -> None:
    with pytest.raises(RefusedError) as caught:
        async with zeromq(guarded, key=KEYS["root"], ROUTING_ID=b"somebody"):
            pass
    assert caught.value.code == "ROUTING_ID_SET"


async def test_a_key_that_is_revoked_is_not_good_for_another_call(guarded: RuntimeProcess) -> None:
    url, headers = f"{guarded.base_url}/v1/keys", {"authorization": f"Bearer {KEYS['root']}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=30) as root:
        made = (await root.post(url, json={"principal": "short", "role": "viewer"})).json()
        async with zeromq(guarded, key=made["key"]) as frames:
            await frames.call("stats")
            assert (await root.delete(f"{url}/{made['id']}")).status_code == 204
            assert (await frames.next(None))["error"]["code"] == "UNAUTHENTICATED"
            await frames.send({"id": "more", "call": "stats"})
            assert (await frames.next(None))["error"]["code"] == "UNAUTHENTICATED"


async def test_tasks_that_were_claimed_for_a_peer_that_has_gone_are_given_back(central: RuntimeProcess) -> None:
    async with zeromq(central) as frames:
        async with zeromq(central) as lost:
            await lost.begin("work.claim", worker=WORKER, waitSeconds=300)
            await lost.call("stats")
        task = (await frames.call("submit", task={}))["id"]

        async def forgotten() -> bool:
            metrics = await asyncio.to_thread(central.get, "/metrics")
            return "kubeagents_zeromq_connections 1.0" in metrics.text

        await eventually_async(forgotten, what="the peer is forgotten", timeout=60)
        state = (await frames.call("task", id=task))["state"]
        assert state == "queued", "what was claimed for it is given back"


async def test_who_is_told_to_stop_says_so_and_ends_its_calls(central: RuntimeProcess) -> None:
    async with zeromq(central) as frames:
        task = (await frames.call("submit", task={}))["id"]
        waiting = await frames.begin("results", ids=[task], timeoutSeconds=300)
        await frames.call("stats")
        central.signal(signal.SIGTERM)
        assert await frames.next(None) == {"notice": "draining"}
        assert (await frames.answer(waiting))["pending"] == [task]
    assert await asyncio.to_thread(central.exit_code) == 0
    assert not [line for line in central.lines if "traceback" in line]


def test_without_its_library_the_extra_to_install_is_named() -> None:
    code = (
        "import sys; sys.modules['zmq'] = None\n"
        "from agent_runtime.adapters.registry import adapter\n"
        "from kubeagents_api.errors import RuntimeConfigError\n"
        "try:\n    adapter('zeromq')\nexcept RuntimeConfigError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "kubeagents[zeromq]" in ran.stdout
