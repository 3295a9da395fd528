# SPDX-License-Identifier: Apache-2.0
"""Calls and streams over WebSockets."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from agent_runtime.cancellation import end
from kubeagents_api.limits import QueueLimits
from tests.integration.runtime.conftest import System
from tests.integration.runtime.frames import Frames, RefusedError, raw_websocket, websocket
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

WORKER = {"agent": "worker", "instance": "outside-1"}
MEBIBYTE = 1_048_576


@pytest.fixture(scope="module")
def shared_sockets(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    """For tests that leave it as it is."""
    with contextlib.ExitStack() as stack:
        yield start(System(stack, folder=tmp_path_factory.mktemp("sockets"), redis=redis_server))


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return start(system)


def start(system: System, instance: str = "hub-1", **changes: Any) -> RuntimeProcess:
    return system.central(instance=instance, endpoints={"http": 0, "websocket": 0}, **changes).ready()


async def claimed(frames: Frames) -> dict[str, Any]:
    """A task that an agent outside of the cluster has taken."""
    (claim,) = (await frames.call("work.claim", worker=WORKER, waitSeconds=30))["claims"]
    found: dict[str, Any] = claim
    return found


def held(claim: dict[str, Any]) -> dict[str, Any]:
    return {name: claim[name] for name in ("id", "token", "attempt", "maxAttempts", "timeoutSeconds")}


async def say(frames: Frames, claim: dict[str, Any], *parts: Any) -> None:
    items = [{"kind": "partial", "data": part} for part in parts]
    assert await frames.call("work.emit", claim=held(claim), items=items) == {"held": True}


async def settle(frames: Frames, claim: dict[str, Any], result: Any = None) -> None:
    outcome = {"claim": held(claim), "result": result}
    assert await frames.call("work.settle", outcomes=[outcome]) == {"held": [True]}


async def refusal(frames: Frames, call: str, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await frames.call(call, **params)
    return caught.value


async def test_a_task_is_submitted_done_by_an_agent_and_its_result_awaited(
    system: System, central: RuntimeProcess
) -> None:
    system.agent()
    async with websocket(central) as frames:
        task = await frames.call("submit", task={"payload": {"text": "to be"}, "type": "echo"})
        assert (task["queue"], task["state"], task["merged"]) == ("main", "queued", False)
        results = await frames.call("results", ids=[task["id"]], timeoutSeconds=60)
        assert [found["result"] for found in results["tasks"]] == [{"text": "to be"}]
        assert results["pending"] == []
        assert (await frames.call("task", id=task["id"]))["state"] == "succeeded"


async def test_calls_on_one_connection_do_not_wait_for_one_another(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={}))["id"]
        waiting = await frames.begin("results", ids=[task], timeoutSeconds=60)
        assert (await frames.call("stats"))["queued"] == 1
        await frames.call("cancel", ids=[task], reason="not needed")
        (found,) = (await frames.answer(waiting))["tasks"]
        assert (found["state"], found["failures"][0]["code"]) == ("cancelled", "CANCELLED")


async def test_what_is_repeated_with_its_key_is_merged(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        first = await frames.call("submit", task={"idempotencyKey": "once"})
        again = await frames.call("submit", task={"idempotencyKey": "once"})
        assert (again["id"], again["merged"]) == (first["id"], True)
        batch = await frames.call("submitBatch", tasks=[{"idempotencyKey": "once"}, {"id": "two"}])
        assert batch == {"ids": [first["id"], "two"], "queue": "main", "merged": [first["id"]]}
        assert (await refusal(frames, "submit", task={"id": "two"})).code == "DUPLICATE_TASK"


async def test_a_queue_is_looked_at_and_steered(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        assert (await frames.call("pause", by="maria"))["pausedBy"] == ["maria"]
        assert (await frames.call("resume", by="maria"))["pausedBy"] == []
        assert (await frames.call("close"))["closedBy"] == ["127.0.0.1"]
        assert (await refusal(frames, "submit", task={})).code == "QUEUE_CLOSED"
        assert (await frames.call("open"))["closedBy"] == []
        assert [queue["queue"] for queue in await frames.call("queues")] == ["main"]
        assert await frames.call("dead", limit=5) == []
        assert (await frames.call("replay", all=True))["ids"] == []
        assert (await frames.call("purge", filter={"agent": "billing"}))["ids"] == []
        assert await frames.call("agents") == await frames.call("schedules") == []
        error = await refusal(frames, "pause", by="spec")
        assert (error.code, error.details) == ("INVALID_TASK", {"field": "by"})


async def test_a_stream_goes_on_after_the_last_item_on_another_connection(central: RuntimeProcess) -> None:
    async with websocket(central) as agent:
        task = (await agent.call("submit", task={}))["id"]
        claim = await claimed(agent)
        await say(agent, claim, 1, 2)
        async with websocket(central) as frames:
            watching = await frames.begin("watch", id=task)
            first = (await frames.next(watching))["item"]
            second = (await frames.next(watching))["item"]
            assert [first["data"], second["data"]] == [1, 2]
        await say(agent, claim, 3)
        async with websocket(central) as frames:
            watching = await frames.begin("watch", id=task, after=first["offset"])
            assert (await frames.next(watching))["item"] == second
            assert (await frames.next(watching))["item"]["data"] == 3
            await settle(agent, claim)
            assert await frames.next(watching) == {"id": watching, "end": {"state": "succeeded"}}


async def test_a_stream_sends_what_it_has_credit_for(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        await frames.call("submitBatch", tasks=[{}] * 5)
        events = await frames.begin("events", credit=2)
        for _ in range(2):
            assert (await frames.next(events))["item"]["kind"] == "submitted"
        assert (await frames.call("stats"))["queued"] == 5
        assert not frames.unread(events)
        await frames.send({"id": events, "more": 1})
        assert (await frames.next(events))["item"]["kind"] == "submitted"
        await frames.send({"id": events, "stop": True})
        assert (await frames.next(events)) == {"id": events, "end": {"stopped": True}}


async def test_a_call_that_waits_can_be_stopped_and_its_id_used_again(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={}))["id"]
        wait = {"id": "mine", "call": "results", "params": {"ids": [task], "timeoutSeconds": 300}}
        await frames.send(wait)
        await frames.send({"id": "mine", "stop": True})
        assert await frames.next("mine") == {"id": "mine", "end": {"stopped": True}}
        await frames.send({**wait, "params": {"ids": [task], "timeoutSeconds": 0}})
        assert (await frames.answer("mine"))["pending"] == [task]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "INVALID_JSON"),
        ('{"id": "a", "call": "submit", "params": {"task": {"payload": NaN}}}', "INVALID_JSON"),
        ("[" * 100_000, "INVALID_JSON"),
        ("null", "INVALID_REQUEST"),
        ('{"call": "stats"}', "INVALID_REQUEST"),
        ('{"id": 1, "call": "stats"}', "INVALID_REQUEST"),
        ('{"id": "a"}', "INVALID_REQUEST"),
        ('{"id": "a", "call": 7}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "stats", "more": 1}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "stats", "credit": 1.5}', "INVALID_REQUEST"),
        ('{"id": "a", "more": true}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "stats", "params": []}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "submit"}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "submit", "params": {"task": {"priority": "5"}}}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "submit", "params": {"task": {"colour": "red"}}}', "INVALID_REQUEST"),
        ('{"id": "a", "call": "__init__"}', "UNKNOWN_CALL"),
        ('{"id": "a", "call": "stats", "params": {"queue": "other"}}', "QUEUE_NOT_FOUND"),
        ('{"id": "a", "call": "task", "params": {"id": "unknown"}}', "TASK_NOT_FOUND"),
        ('{"id": "a", "call": "watch", "params": {"id": "unknown"}}', "TASK_NOT_FOUND"),
        ('{"id": "a", "call": "events", "params": {"after": "x"}}', "INVALID_TASK"),
    ],
)
async def test_what_is_wrong_is_answered_and_the_connection_stays(
    shared_sockets: RuntimeProcess, frame: str, code: str
) -> None:
    async with raw_websocket(shared_sockets) as connection:
        await connection.send(frame)
        error = json.loads(await connection.recv())["error"]
        assert (error["code"], type(error["error"]), error.keys()) == (
            code,
            str,
            {"error", "code", "timestamp", "details"},
        )
        assert (await Frames(connection).call("stats"))["queue"] == "main"
    assert not [line for line in shared_sockets.lines if "traceback" in line]


async def test_an_invalid_field_is_named(shared_sockets: RuntimeProcess) -> None:
    async with websocket(shared_sockets) as frames:
        error = await refusal(frames, "submitBatch", tasks=[{}, {"priority": 77}])
        assert "tasks.1.priority" in str(error)
        assert [fault["field"] for fault in error.details["errors"]] == ["tasks.1.priority"]


async def test_an_id_that_is_in_use_does_not_disturb_its_call(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={}))["id"]
        waiting = await frames.begin("results", ids=[task], timeoutSeconds=60)
        await frames.send({"id": waiting, "call": "stats"})
        error = (await frames.next(None))["error"]
        assert (error["code"], error["details"]) == ("ID_IN_USE", {"id": waiting})
        await frames.call("cancel", ids=[task])
        assert (await frames.answer(waiting))["pending"] == []


async def test_a_thousand_calls_may_run_at_once_and_no_more(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={}))["id"]
        running = [await frames.begin("results", ids=[task], timeoutSeconds=60) for _ in range(1000)]
        error = await refusal(frames, "stats")
        assert (error.code, error.details) == ("TOO_MANY_CALLS", {"retryAfterSeconds": 2})
        await frames.send({"id": running[0], "stop": True})
        await frames.next(running[0])
        await frames.call("cancel", ids=[task])
        for call in running[1:]:
            assert (await frames.answer(call))["pending"] == []


async def test_binary_messages_and_broken_texts_end_the_connection(shared_sockets: RuntimeProcess) -> None:
    for message, text, code in ((b"{}", False, 1003), (b"\xff\xff", True, 1007)):
        async with raw_websocket(shared_sockets) as connection:
            await connection.send(message, text=text)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == code
    assert not [line for line in shared_sockets.lines if "traceback" in line]


async def test_a_payload_of_the_limit_comes_back_and_a_larger_one_is_refused(
    system: System, central: RuntimeProcess
) -> None:
    system.agent()
    text = "x" * (MEBIBYTE - 2)
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={"payload": text}))["id"]
        (found,) = (await frames.call("results", ids=[task], timeoutSeconds=60))["tasks"]
        assert found["result"] == text
        assert (await refusal(frames, "submit", task={"payload": text + "x"})).code == "PAYLOAD_TOO_LARGE"


async def test_many_large_payloads_fit_into_one_batch(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        tasks = [{"id": f"task-{number}", "payload": "x" * (MEBIBYTE - 2)} for number in range(8)]
        assert len((await frames.call("submitBatch", tasks=tasks))["ids"]) == 8


async def test_who_does_not_read_is_served_no_further(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        await frames.call("submit", task={"id": "large", "payload": "x" * (MEBIBYTE - 2)})
        before = memory_mib(central)
        async with raw_websocket(central, max_queue=1) as lazy:
            asking = asyncio.create_task(ask_for_ever(Frames(lazy), "large"))

            seen = [0.0]

            async def stuck() -> bool:
                seen.append(sum((await asyncio.to_thread(calls, central, "task")).values()))
                return seen[-1] > 0 and seen[-10:] == seen[-1:] * 10

            await eventually_async(stuck, what="the server answers no more", timeout=90)
            assert memory_mib(central) - before < 250
            assert (await frames.call("stats"))["queued"] == 1
            await end(asking)
            lazy.transport.abort()  # a close in good order would read all that


async def ask_for_ever(frames: Frames, task: str) -> None:
    while True:
        await frames.begin("task", id=task)


def memory_mib(process: RuntimeProcess) -> float:
    with open(f"/proc/{process.running.pid}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def calls(central: RuntimeProcess, name: str) -> dict[str, float]:
    """How many have ended, by outcome."""
    head = f'kubeagents_websocket_calls_total{{call="{name}",outcome="'
    lines = [line for line in central.get("/metrics").text.splitlines() if line.startswith(head)]
    return {line.removeprefix(head).partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_a_connection_that_breaks_ends_what_waits_on_it(central: RuntimeProcess) -> None:
    async with websocket(central) as frames:
        task = (await frames.call("submit", task={"agent": "somebody"}))["id"]
        async with raw_websocket(central) as broken:
            lost = Frames(broken)
            await lost.begin("results", ids=[task], timeoutSeconds=300)
            await lost.begin("events", after="$")
            await lost.begin("work.claim", worker=WORKER, waitSeconds=300)
            await lost.begin("work.revoked", worker=WORKER)
            await lost.call("stats")
            broken.transport.abort()

        async def ended() -> bool:
            return "kubeagents_websocket_connections 1.0" in central.get("/metrics").text

        await eventually_async(ended, what="the connection is forgotten")
        await frames.call("submit", task={"id": "for-anybody"})
        assert (await frames.call("stats"))["running"] == 0, "nobody claims for a connection that has gone"
        assert not [line for line in central.lines if "traceback" in line]


async def test_who_is_told_to_stop_says_so_and_ends_its_calls(central: RuntimeProcess) -> None:
    async with raw_websocket(central) as connection:
        frames = Frames(connection)
        task = (await frames.call("submit", task={}))["id"]
        waiting = await frames.begin("results", ids=[task], timeoutSeconds=300)
        watching = await frames.begin("watch", id=task)
        claim = await claimed(frames)
        claiming = await frames.begin("work.claim", worker=WORKER, waitSeconds=300)
        await frames.call("stats")
        central.signal(signal.SIGTERM)
        assert await frames.next(None) == {"notice": "draining"}
        assert (await frames.answer(waiting))["pending"] == [task]
        assert (await frames.answer(claiming)) == {"claims": []}
        assert (await frames.next(watching))["error"]["code"] == "DRAINING"
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
        assert connection.close_code == 1012
    assert await asyncio.to_thread(central.exit_code) == 0
    assert claim["id"] == task


async def test_replicas_serve_the_same_queue(system: System, central: RuntimeProcess) -> None:
    other = start(system, "hub-2")
    async with websocket(central) as here, websocket(other) as there:
        task = (await here.call("submit", task={}))["id"]
        waiting = await here.begin("results", ids=[task], timeoutSeconds=60)
        watching = await here.begin("watch", id=task)
        claim = await claimed(there)
        await say(there, claim, "hello")
        assert (await here.next(watching))["item"]["data"] == "hello"
        await settle(here, claim, "done")
        assert [found["result"] for found in (await here.answer(waiting))["tasks"]] == ["done"]


async def test_a_submission_waits_for_room_and_is_not_queued_if_its_client_goes(system: System) -> None:
    queue = system.queue(limits=QueueLimits(max_depth=1, when_full="Block"))
    central = system.central(queue, endpoints={"http": 0, "websocket": 0}).ready()
    async with websocket(central) as frames:
        await frames.call("submit", task={"id": "first"})
        async with websocket(central) as impatient:
            await impatient.begin("submit", task={"id": "second"})
            await impatient.call("stats")
        await frames.call("cancel", ids=["first"])
        third = await frames.call("submit", task={"id": "third"})
        assert third["state"] == "queued"
        assert (await refusal(frames, "task", id="second")).code == "TASK_NOT_FOUND"


async def test_other_paths_and_plain_requests_are_told_where_to_go(shared_sockets: RuntimeProcess) -> None:
    answer = shared_sockets.get("/v1/ws")
    assert (answer.status_code, answer.headers["upgrade"], answer.json()["code"]) == (
        426,
        "websocket",
        "UPGRADE_REQUIRED",
    )
    assert shared_sockets.get("/v1/ws/more").json()["code"] == "NOT_FOUND"
