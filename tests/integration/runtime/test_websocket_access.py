# SPDX-License-Identifier: Apache-2.0
"""Who may do what over WebSockets, and agents outside of the cluster that work through them."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from kubeagents_api.access import AccessSettings, Principal, RequestLimit
from kubeagents_api.model import LocalRef
from kubeagents_api.task import ErrorBody
from tests.integration.runtime.conftest import System
from tests.integration.runtime.frames import Frames, RefusedError, raw_websocket, websocket
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

KEYS = {name: f"the-key-of-{name}-0000" for name in ("root", "dora", "vera", "busy", "agnes")}
ACCESS = AccessSettings(
    principals=[
        Principal(name="root", role="admin", keys_from=LocalRef(name="root")),
        Principal(name="dora", role="developer", keys_from=LocalRef(name="dora")),
        Principal(name="vera", role="viewer", keys_from=LocalRef(name="vera")),
        Principal(name="agnes", role="agent", agents=["billing"], keys_from=LocalRef(name="agnes")),
        Principal(
            name="busy",
            role="viewer",
            keys_from=LocalRef(name="busy"),
            rate_limit=RequestLimit(requests=3, per_seconds=3600),
        ),
    ]
)


@pytest.fixture(scope="module")
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, key in KEYS.items():
        (folder / name).mkdir()
        (folder / name / "key").write_text(key)
    return folder


@pytest.fixture(scope="module")
def central(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, keys_folder: Path
) -> Iterator[RuntimeProcess]:
    with redis_server.client() as client:
        client.flushall()
    with contextlib.ExitStack() as stack:
        system = System(stack, folder=tmp_path_factory.mktemp("guarded"), redis=redis_server)
        yield system.central(endpoints={"http": 0, "websocket": 0}, access=ACCESS, keys_path=str(keys_folder)).ready()


async def code_of(frames: Frames, call: str, **params: object) -> str:
    with pytest.raises(RefusedError) as caught:
        await frames.call(call, **params)
    return caught.value.code


@pytest.mark.parametrize("key", [None, "a-key-of-nobody-at-all"])
async def test_without_a_valid_key_there_is_no_handshake(central: RuntimeProcess, key: str | None) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with websocket(central, key=key):
            pass
    response = caught.value.response
    assert response.status_code == 401
    assert ErrorBody.model_validate_json(response.body or b"").code == "UNAUTHENTICATED"


async def test_a_browser_shows_its_key_in_a_subprotocol(central: RuntimeProcess) -> None:
    offered = ["kubeagents.v1", f"key.{KEYS['vera']}"]
    origin = central.base_url
    async with raw_websocket(central, subprotocols=offered, additional_headers={"origin": origin}) as connection:
        assert connection.subprotocol == "kubeagents.v1", "the key is not sent back"
        assert (await Frames(connection).call("stats"))["queue"] == "main"


async def test_the_page_of_somebody_else_is_not_let_in(central: RuntimeProcess) -> None:
    headers = {"origin": "https://somewhere.example", "x-api-key": KEYS["root"]}
    with pytest.raises(InvalidStatus) as caught:
        async with raw_websocket(central, additional_headers=headers):
            pass
    assert caught.value.response.status_code == 403
    assert ErrorBody.model_validate_json(caught.value.response.body or b"").code == "ORIGIN_REFUSED"


async def test_a_key_opens_what_its_role_may(central: RuntimeProcess) -> None:
    async with websocket(central, key=KEYS["vera"]) as viewer, websocket(central, key=KEYS["dora"]) as developer:
        assert await code_of(viewer, "submit", task={}) == "FORBIDDEN"
        await developer.call("submit", task={"id": "one"})
        assert (await viewer.call("task", id="one"))["state"] == "queued"
        assert await code_of(developer, "pause") == "FORBIDDEN"
        assert await code_of(developer, "work.claim", worker={"agent": "billing", "instance": "a"}) == "FORBIDDEN"
        events = await viewer.begin("events")
        await developer.call("cancel", ids=["one"], by="somebody-else")
        cancelled = await anext(event async for event in viewer.items(events) if event["kind"] == "cancelled")
        assert cancelled["by"] == "dora", "only an admin acts in the name of others"


async def test_each_call_counts_for_the_limit_of_calls(central: RuntimeProcess) -> None:
    async with websocket(central, key=KEYS["busy"]) as frames:  # which is a call, too
        for _ in range(2):
            await frames.call("stats")
        with pytest.raises(RefusedError) as caught:
            await frames.call("stats")
    assert caught.value.code == "RATE_LIMITED"
    assert caught.value.details["retryAfterSeconds"] > 1


async def test_a_key_that_is_revoked_ends_its_connections(central: RuntimeProcess) -> None:
    headers = {"authorization": f"Bearer {KEYS['root']}"}
    async with websocket(central, key=KEYS["root"]) as root:
        await root.call("stats")
    made = await asyncio.to_thread(_post, central, "/v1/keys", {"principal": "short", "role": "viewer"}, headers)
    async with raw_websocket(central, additional_headers={"x-api-key": made["key"]}) as connection:
        frames = Frames(connection)
        await frames.begin("events", after="$")
        await frames.call("stats")
        await asyncio.to_thread(_delete, central, f"/v1/keys/{made['id']}", headers)
        assert (await frames.next(None))["error"]["code"] == "UNAUTHENTICATED"
        with pytest.raises(ConnectionClosedError):
            await frames.next("nothing more")
        assert (connection.close_code, connection.close_reason) == (1008, "UNAUTHENTICATED")


async def test_an_agent_outside_works_for_the_agents_that_its_key_names(central: RuntimeProcess) -> None:
    worker = {"agent": "billing", "instance": "laptop-1", "capabilities": ["ocr"]}
    async with websocket(central, key=KEYS["dora"]) as client, websocket(central, key=KEYS["agnes"]) as agent:
        assert await code_of(agent, "work.register", worker={**worker, "agent": "mail"}) == "FORBIDDEN"
        terms = await agent.call("work.register", worker=worker)
        assert (terms["queue"], terms["leaseSeconds"]) == ("main", 30)
        beat = {"worker": worker, "version": "1", "concurrency": 2, "running": 0, "startedAtMs": 1}
        assert await agent.call("work.beat", beat=beat) == {"cordoned": False}
        assert [one["instance"] for one in await client.call("agents", agent="billing")] == ["laptop-1"]
        revoked = await agent.begin("work.revoked", worker=worker)

        await client.call("submitBatch", tasks=[{"id": name, "agent": "billing"} for name in ("a", "b", "c")])
        claims = (await agent.call("work.claim", worker=worker, limit=3, waitSeconds=30))["claims"]
        assert [claim["id"] for claim in claims] == ["a", "b", "c"]
        held = [
            {name: claim[name] for name in ("id", "token", "attempt", "maxAttempts", "timeoutSeconds")}
            for claim in claims
        ]
        await client.call("cancel", ids=["b"])
        await anext(item async for item in agent.items(revoked) if "b" in item["ids"])
        assert [lost["id"] for lost in (await agent.call("work.extend", claims=held))["lost"]] == ["b"]
        assert await agent.call("work.release", claims=[held[2]]) == {}
        outcomes = [{"claim": held[0], "result": {"total": 12}}, {"claim": held[1], "result": None}]
        assert await agent.call("work.settle", outcomes=outcomes) == {"held": [True, False]}
        assert (await client.call("task", id="a"))["result"] == {"total": 12}
        assert (await client.call("task", id="c"))["state"] == "queued"
        assert await agent.call("work.leave", worker=worker) == {}
        assert await client.call("agents", agent="billing") == []
        await client.call("cancel", ids=["c"])


async def test_a_message_reaches_its_agent_and_is_acknowledged(central: RuntimeProcess) -> None:
    async with websocket(central, key=KEYS["dora"]) as client, websocket(central, key=KEYS["agnes"]) as agent:
        receiving = await agent.begin("message.receive", agent="billing", waitSeconds=60)
        sent = await client.call("message.send", to="billing", payload={"say": "hello"}, id="greeting")
        assert sent == {"id": "greeting"}
        (message,) = (await agent.answer(receiving))["claims"]
        assert (message["type"], message["payload"]) == ("message", {"say": "hello"})
        claim = {name: message[name] for name in ("id", "token", "attempt", "maxAttempts", "timeoutSeconds")}
        await agent.call("work.settle", outcomes=[{"claim": claim, "result": "heard"}])
        (found,) = (await client.call("results", ids=["greeting"]))["tasks"]
        assert found["result"] == "heard"
        assert await code_of(agent, "message.receive", agent="mail") == "FORBIDDEN"


def _post(central: RuntimeProcess, path: str, body: object, headers: dict[str, str]) -> dict[str, str]:
    answer = httpx.post(central.base_url + path, json=body, headers=headers, timeout=30, trust_env=False)
    assert answer.is_success, answer.text
    made: dict[str, str] = answer.json()
    return made


def _delete(central: RuntimeProcess, path: str, headers: dict[str, str]) -> None:
    assert httpx.delete(central.base_url + path, headers=headers, timeout=30, trust_env=False).is_success
