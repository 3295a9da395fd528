# SPDX-License-Identifier: Apache-2.0
"""A2A by the client of its SDK: cards, messages, streams, errors, replicas, keys."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    Part,
    SubscribeToTaskRequest,
)
from a2a.utils import errors as a2a

from kubeagents_api.access import AccessSettings, Principal, Role
from kubeagents_api.model import LocalRef
from tests.integration.runtime.a2a_clients import (
    BINDINGS,
    STATE,
    card,
    client,
    data,
    headers,
    message,
    outcome,
    plain,
    sent,
    told,
)
from tests.integration.runtime.conftest import System, submit
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

WORKER, PAINTER, VIEWER = "the-key-of-a-worker", "the-key-of-a-painter", "the-key-of-a-viewer"
START_SECONDS = 90.0
"""All of the processes start at once."""

both = pytest.mark.parametrize("binding", BINDINGS)


class Stage:
    """Two replicas of a CentralAgent, one of another that asks for keys, and two Agents in two queues."""

    def __init__(self, stack: contextlib.ExitStack, *, folder: Path, redis: RedisServer) -> None:
        self._system = System(stack, folder=folder, redis=redis)
        self._folder = folder
        self.hub, self.other = self._central("hub-1"), self._central("hub-2")
        self.guarded = self._central("hub-3", access=self._access(), keys_path=str(folder / "keys"))
        orders = self._system.queue("orders")
        agents = [
            self._system.agent("talking:handle", name="worker", capabilities=["reading"], concurrency=8),
            self._system.agent("handlers:about", name="painter", capabilities=["painting"], queue=orders),
        ]
        for process in (self.hub, self.other, self.guarded, *agents):
            _wait(process)

    def fresh(self) -> RuntimeProcess:
        """A replica that the test may end."""
        return _wait(self._central("hub-4"))

    def _central(self, instance: str, **changes: Any) -> RuntimeProcess:
        queues = (self._system.queue(), self._system.queue("orders", index=1))
        return self._system.central(*queues, instance=instance, endpoints={"http": 0, "a2a": 0, "grpc": 0}, **changes)

    def _access(self) -> AccessSettings:
        def principal(name: str, role: Role, key: str, agents: list[str] | None = None) -> Principal:
            (self._folder / "keys" / name).mkdir(parents=True)
            (self._folder / "keys" / name / "key").write_text(key)
            return Principal(name=name, role=role, keys_from=LocalRef(name=name), agents=agents)

        return AccessSettings(
            principals=[
                principal("root", "admin", "the-key-of-the-admin"),
                principal("worker", "developer", WORKER),
                principal("painter", "developer", PAINTER, ["painter"]),
                principal("viewer", "viewer", VIEWER),
            ]
        )


def _wait(process: RuntimeProcess) -> RuntimeProcess:
    def ready() -> bool:
        assert process.running.poll() is None, process.lines
        return process.get("/readyz").status_code == 200

    eventually(ready, what=f"{process.instance} is ready", timeout=START_SECONDS)
    return process


@pytest.fixture(scope="module")
def stage(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with redis_server.client() as redis:
        redis.flushall()
    with contextlib.ExitStack() as stack:
        yield Stage(stack, folder=tmp_path_factory.mktemp("a2a"), redis=redis_server)


@pytest.fixture(autouse=True)
def _no_fault_of_the_server(stage: Stage) -> Iterator[None]:
    processes = (stage.hub, stage.other, stage.guarded)
    before = [len(process.lines) for process in processes]
    yield
    for process, count in zip(processes, before, strict=True):
        assert [line for line in process.lines[count:] if line["level"] in ("error", "unstructured")] == []


def record(stage: Stage, task: str) -> dict[str, Any]:
    """The task as the HTTP API shows it."""
    found: dict[str, Any] = stage.hub.get(f"/v1/queues/main/tasks/{task}").json()
    return found


def get(central: RuntimeProcess, path: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(central.base_url + path, headers=headers, timeout=30, trust_env=False)


def kind(name: str, **more: Any) -> dict[str, Any]:
    """Metadata by which the worker does this."""
    return {"kubeagents.dev/type": name, **{f"kubeagents.dev/{field}": value for field, value in more.items()}}


async def test_a_card_says_who_can_be_spoken_to_and_where(stage: Stage) -> None:
    own = await card(stage.hub)
    assert own.name == "hub"
    assert {"painting", "reading", "worker", "painter"} <= {skill.name for skill in own.skills}
    painter = await card(stage.hub, "painter")
    assert painter.name == "painter"
    assert (painter.capabilities.streaming, painter.capabilities.push_notifications) == (True, True)
    assert [skill.name for skill in painter.skills] == ["painting", "painter"]
    url = f"{stage.hub.base_url}/a2a/painter@orders"
    port = next(line["ports"]["grpc"] for line in stage.hub.lines if "ports" in line)
    assert [(one.protocol_binding, one.url, one.tenant) for one in painter.supported_interfaces] == [
        ("JSONRPC", url, ""), ("HTTP+JSON", url, ""), ("GRPC", f"127.0.0.1:{port}", "painter@orders"),
    ]  # fmt: skip
    worker = await card(stage.hub, "worker@main")
    assert worker.description == "Does what the task's type says.", "what its handler says"
    proxied = {"x-forwarded-proto": "https", "x-forwarded-host": "agents.example"}
    found = get(stage.hub, "/.well-known/agent-card.json", proxied).json()
    assert found["supportedInterfaces"][0]["url"] == "https://agents.example/a2a/@"
    missing = stage.hub.get("/a2a/green@main/.well-known/agent-card.json")
    assert (missing.status_code, missing.json()["code"]) == (404, "AGENT_NOT_FOUND")


@both
async def test_a_message_travels_to_its_agent_and_the_result_comes_back(stage: Stage, binding: str) -> None:
    async with client(stage.hub, "painter", binding=binding) as painter:
        task = await sent(painter, message(data({"n": 1}), metadata=kind("greeting", priority=7)))
        assert outcome(task)["data"] == {
            "type": "greeting", "priority": 7, "attempt": 1, "instance": "painter-1", "agent": "painter",
            "queue": "orders",
        }  # fmt: skip
        assert plain(task)["status"]["state"] == "TASK_STATE_COMPLETED"
        assert plain(task.metadata)[STATE] == "succeeded"
        assert await painter.get_task(GetTaskRequest(id=task.id)) == task
    found = stage.hub.get(f"/v1/queues/orders/tasks/{task.id}").json()
    assert (found["agent"], found["payload"]) == ("painter", {"n": 1})


@both
@pytest.mark.parametrize(
    ("parts", "payload"),
    [
        ([Part(text="hello")], {"text": "hello"}),
        ([data([1, 2.5, {"x": None}, "Grüße, 世界 🌍\n\x00"])], [1, 2.5, {"x": None}, "Grüße, 世界 🌍\n\x00"]),
        (
            [Part(text="see"), Part(raw=b"\x00\xff", filename="a.bin", media_type="image/png"), Part(url="https://x/")],
            {
                "parts": [
                    {"text": "see"},
                    {"raw": "AP8=", "filename": "a.bin", "mediaType": "image/png"},
                    {"url": "https://x/"},
                ]
            },
        ),
    ],
    ids=["text", "data", "files"],
)
async def test_parts_are_payloads_and_results_are_parts(
    stage: Stage, binding: str, parts: list[Part], payload: Any
) -> None:
    async with client(stage.hub, "worker", binding=binding) as worker:
        task = await sent(worker, message(*parts))
    assert record(stage, task.id)["payload"] == payload
    (artifact,) = task.artifacts
    assert list(artifact.parts) == parts, "the echo comes back in the same form"


async def test_integers_that_are_no_doubles_come_back_exactly(stage: Stage) -> None:
    (task,) = submit(stage.hub, {"n": 2**60 + 1}, agent="worker")
    assert stage.hub.get(f"/v1/queues/main/tasks/{task}/result", timeoutSeconds=30).status_code == 200
    async with client(stage.hub, "worker") as worker:
        found = await worker.get_task(GetTaskRequest(id=task))
    assert outcome(found) == {"text": '{"n":1152921504606846977}', "mediaType": "application/json"}


@both
async def test_a_message_that_is_sent_again_is_the_same_task(stage: Stage, binding: str) -> None:
    request = message(data(1), message_id=f"müller/{binding}", context_id="talk 7")
    async with client(stage.hub, "worker", binding=binding) as one:
        first = await sent(one, request)
    async with client(stage.other, "worker", binding=binding) as two:
        second = await sent(two, request)
        third = await sent(two, message(data(1), context_id="talk 7"))
        found = await two.get_task(GetTaskRequest(id=first.id, history_length=1))
    assert first == second
    assert first.context_id == third.context_id == "talk 7"
    assert third.id != first.id
    assert not first.history
    (said,) = found.history
    assert (said.message_id, said.context_id, list(said.parts)) == (f"müller/{binding}", "talk 7", [data(1)])


@both
async def test_a_stream_says_all_that_the_task_says(stage: Stage, binding: str, tmp_path: Path) -> None:
    async with (
        client(stage.hub, "worker", binding=binding, streaming=True) as one,
        client(stage.other, "worker", binding=binding, streaming=True) as two,
    ):
        answers = one.send_message(message(data(str(tmp_path)), metadata=kind("speak")))
        heard = [await anext(answers) for _ in range(5)]
        task = heard[0].task.id
        assert heard[0].WhichOneof("payload") == "task"
        begun = [
            ("status", "TASK_STATE_WORKING"),
            ("partial-1", [{"part": 0}]),
            ("partial-1", [{"part": 1}]),
            ("partial-1", [{"part": 2}]),
        ]
        assert [told(answer) for answer in heard[1:]] == begun
        assert [answer.artifact_update.append for answer in heard[2:]] == [False, True, True]
        again = two.subscribe(SubscribeToTaskRequest(id=task))
        assert told(await anext(again)) == ("task", "TASK_STATE_WORKING")
        assert [told(await anext(again)) for _ in begun] == begun, "from the beginning, at another replica"
        (tmp_path / "open").touch()
        rest = [answer async for answer in answers]
        assert [told(answer) for answer in rest] == [
            ("partial-1", [{"part": 3}]),
            ("partial-1", [{"part": 4}]),
            ("partial-1", [{"part": 5}]),
            ("status", "TASK_STATE_WORKING"),
            ("result", ["said"]),
            ("status", "TASK_STATE_COMPLETED"),
        ]
        assert [told(answer) async for answer in again] == [told(answer) for answer in rest]
        assert plain(rest[-1].status_update.metadata)[STATE] == "succeeded"
        with pytest.raises(a2a.UnsupportedOperationError, match="has ended"):
            await anext(two.subscribe(SubscribeToTaskRequest(id=task)))


@both
async def test_a_running_task_is_cancelled_by_another_replica(stage: Stage, binding: str, tmp_path: Path) -> None:
    async with (
        client(stage.hub, "worker", binding=binding) as one,
        client(stage.other, "worker", binding=binding) as two,
    ):
        task = await sent(one, message(data(str(tmp_path)), metadata=kind("wait"), now=True))
        assert plain(task)["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
        eventually(lambda: list(tmp_path.glob("started-*")), what="it runs")
        running = await two.get_task(GetTaskRequest(id=task.id))
        assert plain(running)["status"]["state"] == "TASK_STATE_WORKING"
        cancelled = await two.cancel_task(CancelTaskRequest(id=task.id))
        assert plain(cancelled)["status"]["state"] == "TASK_STATE_CANCELED"
        assert await one.cancel_task(CancelTaskRequest(id=task.id)) == cancelled, "once more changes nothing"
        eventually(lambda: list(tmp_path.glob("stopped-*")), what="its handler is told")
        done = await sent(one, message(data(1)))
        with pytest.raises(a2a.TaskNotCancelableError, match="has ended"):
            await two.cancel_task(CancelTaskRequest(id=done.id))


@both
async def test_states_are_mapped_and_ours_is_kept(stage: Stage, binding: str) -> None:
    once = {"maxAttempts": 1}
    async with client(stage.hub, "worker", binding=binding) as worker:
        failed = await sent(worker, message(data(1), metadata=kind("refuse")))
        dead = await sent(worker, message(data(1), metadata=kind("speak", **once)))
        scheduled = await sent(worker, message(data(1), metadata=kind("", delaySeconds=3600), now=True))
    for task, state, ours, code in (
        (failed, "FAILED", "failed", "FAILED"),
        (dead, "FAILED", "dead", "FAILED"),
        (scheduled, "SUBMITTED", "scheduled", None),
    ):
        found = plain(task)
        assert found["status"]["state"] == f"TASK_STATE_{state}"
        assert found["metadata"][STATE] == ours
        assert found["metadata"].get("kubeagents.dev/code") == code
    assert "as asked" in plain(failed)["status"]["message"]["parts"][0]["text"]


@both
async def test_a_task_that_does_not_end_in_time_expires(stage: Stage, binding: str, tmp_path: Path) -> None:
    async with client(stage.hub, "worker", binding=binding) as worker:
        soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
        task = plain(await sent(worker, message(data(str(tmp_path)), metadata=kind("wait", deadline=soon))))
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert (task["metadata"][STATE], task["metadata"]["kubeagents.dev/code"]) == ("expired", "DEADLINE_EXCEEDED")


async def test_a_message_to_the_central_agent_reaches_whom_it_names(stage: Stage) -> None:
    async with client(stage.hub) as hub:
        painted = await sent(hub, message(data(1), metadata={"kubeagents.dev/capability": "painting"}))
        assert (outcome(painted)["data"]["agent"], painted.id.partition("@")[2]) == ("painter", "orders")
        assert await hub.get_task(GetTaskRequest(id=painted.id)) == painted
        named = await sent(hub, message(data(1), metadata={"kubeagents.dev/agent": "painter"}))
        assert outcome(named)["data"]["agent"] == "painter"
        anybody = await sent(hub, message(data(1)))
        assert anybody.id.partition("@")[2] == "main"
    async with client(stage.hub, "painter") as painter:
        assert (await painter.get_task(GetTaskRequest(id=named.id.partition("@")[0]))).artifacts == named.artifacts
    async with client(stage.hub, "worker") as worker:
        with pytest.raises(a2a.TaskNotFoundError):
            await worker.get_task(GetTaskRequest(id=anybody.id.partition("@")[0]))


@both
async def test_a_payload_of_a_mebibyte_comes_back_whole(stage: Stage, binding: str) -> None:
    largest = "x" * (1024 * 1024 - 2)
    async with client(stage.hub, "worker", binding=binding) as worker:
        assert outcome(await sent(worker, message(data(largest)))) == {"text": largest}
        for over in (largest + "x", largest * 3):
            with pytest.raises((A2AClientError, a2a.A2AError), match=r"(?i)payload|413"):
                await sent(worker, message(data(over)))
        assert outcome(await sent(worker, message(data(1)))) == {"data": 1}


@both
async def test_what_is_not_there_is_said(stage: Stage, binding: str) -> None:
    async with client(stage.hub, "worker", binding=binding) as worker:
        for task in ("none", "a b", "x@nowhere"):
            with pytest.raises((a2a.TaskNotFoundError, a2a.InvalidParamsError)):
                await worker.get_task(GetTaskRequest(id=task))
        done = await sent(worker, message(data(1)))
        with pytest.raises(a2a.UnsupportedOperationError, match="no further messages"):
            await sent(worker, message(data(1), task_id=done.id))
        with pytest.raises(a2a.InvalidParamsError, match="priority"):
            await sent(worker, message(data(1), metadata=kind("", priority=10)))
        with pytest.raises(a2a.InvalidParamsError, match="surprise"):
            await sent(worker, message(data(1), metadata=kind("", surprise=1)))


_SAID = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": 1}]}
_CALL = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": _SAID}}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"[" * 50_000,
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
        json.dumps({**_CALL, "jsonrpc": "1"}).encode(),
        json.dumps({**_CALL, "method": "Nothing"}).encode(),
        json.dumps({**_CALL, "method": 7}).encode(),
        json.dumps({**_CALL, "params": []}).encode(),
        json.dumps({**_CALL, "params": {"message": {}}}).encode(),
        json.dumps({**_CALL, "params": {"message": {**_SAID, "parts": []}}}).encode(),
        json.dumps({**_CALL, "params": {"message": {**_SAID, "parts": [{}]}}}).encode(),
        json.dumps({**_CALL, "params": {"message": {**_SAID, "parts": [{"raw": 5}]}}}).encode(),
        json.dumps({**_CALL, "params": {"message": {**_SAID, "messageId": "x" * 500}}}).encode(),
        json.dumps({**_CALL, "params": {"message": {**_SAID, "metadata": {"kubeagents.dev/agent": 3}}}}).encode(),
        json.dumps(_CALL).encode().replace(b'"data": 1', b'"data": ' + b"9" * 5000),
    ],
    ids=range(17),
)
def test_malformed_input_is_refused_by_its_name(stage: Stage, body: bytes) -> None:
    version = {"a2a-version": "1.0", "content-type": "application/json"}
    for path in ("/a2a/worker@main", "/a2a/worker@main/message:send", "/a2a/worker@main/message:stream"):
        answer = httpx.post(stage.hub.base_url + path, content=body, headers=version, timeout=30, trust_env=False)
        assert answer.status_code in (200, 400, 404), answer.text
        found = answer.json()
        assert "error" in found, found
        assert found["error"]["code"] not in (-32603, 500), found
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/a2a/worker@main/tasks/x?historyLength=-1", 400, "INVALID_PARAMS"),
        ("/a2a/worker@main/tasks/x?historyLength=many", 400, "INVALID_REQUEST"),
        ("/a2a/worker@main/tasks/x", 404, "TASK_NOT_FOUND"),
        ("/a2a/UPPER/tasks/x", 404, "AGENT_NOT_FOUND"),
        ("/a2a/worker@nowhere/tasks/x", 404, "AGENT_NOT_FOUND"),
        ("/a2a/worker@main/nothing", 404, "NOT_FOUND"),
        ("/a2a/worker@main", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_a_bad_path_is_refused_by_its_name(stage: Stage, path: str, status: int, code: str) -> None:
    answer = get(stage.hub, path, {"a2a-version": "1.0"})
    assert answer.status_code == status, answer.text
    assert f'"{code}"' in answer.text


async def test_replicas_are_one_and_one_may_be_killed(stage: Stage, tmp_path: Path) -> None:
    dying = stage.fresh()
    async with client(dying, "worker") as one:
        task = await sent(one, message(data(str(tmp_path)), metadata=kind("speak"), now=True))
    dying.signal(signal.SIGKILL)
    async with client(stage.other, "worker", streaming=True) as two:
        answers = two.subscribe(SubscribeToTaskRequest(id=task.id))
        heard = [told(await anext(answers)) for _ in range(5)]
        (tmp_path / "open").touch()
        heard += [told(answer) async for answer in answers]
    assert [parts for name, parts in heard if name == "partial-1"] == [[{"part": number}] for number in range(6)]
    assert heard[-2:] == [("result", ["said"]), ("status", "TASK_STATE_COMPLETED")]


def started(folder: Path) -> list[str]:
    """The tasks that run."""
    return [path.name.removeprefix("started-") for path in folder.glob("started-*")]


def waits(central: RuntimeProcess) -> float:
    """How many calls wait in the server."""
    metrics = central.get("/metrics").text.splitlines()
    return float(next(line for line in metrics if line.startswith("kubeagents_central_waits ")).split()[1])


@both
async def test_nobody_waits_for_a_client_that_has_gone(stage: Stage, binding: str, tmp_path: Path) -> None:
    async with client(stage.other, "worker", binding=binding) as worker:
        waiting = asyncio.create_task(sent(worker, message(data(str(tmp_path)), metadata=kind("wait"))))
        await asyncio.to_thread(eventually, lambda: started(tmp_path), what="it runs")
        await asyncio.to_thread(eventually, lambda: waits(stage.other), what="it waits in the server")
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.to_thread(eventually, lambda: waits(stage.other) == 0, what="nothing waits any more")
    (task,) = started(tmp_path)
    assert record(stage, task)["state"] == "running", "the task goes on"
    assert stage.hub.delete(f"/v1/queues/main/tasks/{task}").json()["state"] == "cancelled"


async def test_who_waits_is_answered_when_the_server_stops(stage: Stage, tmp_path: Path) -> None:
    stopping = await asyncio.to_thread(stage.fresh)

    async with client(stopping, "worker") as worker:
        waiting = asyncio.create_task(sent(worker, message(data(str(tmp_path)), metadata=kind("wait"))))
        await asyncio.to_thread(eventually, lambda: started(tmp_path), what="it runs")
        await asyncio.to_thread(eventually, lambda: waits(stopping), what="it waits in the server")
        stopping.signal(signal.SIGTERM)
        task = await waiting
    assert plain(task)["status"]["state"] == "TASK_STATE_WORKING"
    assert await asyncio.to_thread(stopping.exit_code) == 0
    async with client(stage.hub, "worker") as worker:
        assert (await worker.cancel_task(CancelTaskRequest(id=task.id))).id == task.id


@both
async def test_a_key_opens_what_its_role_allows(stage: Stage, binding: str) -> None:
    async with client(stage.guarded, "worker@main", binding=binding) as nobody:
        with pytest.raises(A2AClientError, match=r"401|UNAUTHENTICATED"):
            await sent(nobody, message(data(1)))
    async with client(stage.guarded, "worker@main", binding=binding, key=WORKER) as worker:
        task = await sent(worker, message(data({"n": 1})))
        assert outcome(task) == {"data": {"n": 1}}
    async with client(stage.guarded, "worker@main", binding=binding, key=VIEWER) as viewer:
        assert (await viewer.get_task(GetTaskRequest(id=task.id))).id == task.id
        with pytest.raises((A2AClientError, a2a.A2AError), match=r"viewer|403"):
            await sent(viewer, message(data(1)))
    async with client(stage.guarded, "painter@orders", binding=binding, key=PAINTER) as painter:
        assert outcome(await sent(painter, message(data(1))))["data"]["agent"] == "painter"
    async with client(stage.guarded, "worker@main", binding=binding, key=PAINTER) as painter:
        with pytest.raises((A2AClientError, a2a.A2AError), match=r"painter|403"):
            await sent(painter, message(data(1)))
        with pytest.raises(a2a.TaskNotFoundError):
            await painter.get_task(GetTaskRequest(id=task.id))


@both
async def test_two_who_name_their_messages_alike_have_a_task_each(stage: Stage, binding: str) -> None:
    request = message(data(1), message_id=f"alike-{binding}")
    tasks = []
    for key in (WORKER, "the-key-of-the-admin"):
        async with client(stage.guarded, "worker@main", binding=binding, key=key) as one:
            tasks.append((await sent(one, request)).id)
    assert len(set(tasks)) == 2


@both
async def test_the_public_card_tells_how_to_call_and_the_extended_one_the_rest(stage: Stage, binding: str) -> None:
    for address in ("", "painter", "nobody-of-that-name"):
        public = await card(stage.guarded, address)
        assert set(public.security_schemes) == {"bearer", "header"}
        assert public.capabilities.extended_agent_card
        assert not public.skills
    async with client(stage.guarded, "@", binding=binding, key=PAINTER) as hub:
        whole = await hub.get_extended_agent_card(GetExtendedAgentCardRequest())
        assert {skill.name for skill in whole.skills} == {"painting", "painter"}, "what concerns the caller"
    assert get(stage.guarded, "/a2a/painter/extendedAgentCard", {"a2a-version": "1.0"}).status_code == 401


def test_what_is_no_a2a_1_0_is_refused(stage: Stage) -> None:
    answer = get(stage.guarded, "/a2a/worker@main/tasks/x", headers(WORKER))
    assert answer.status_code == 400
    assert "VERSION_NOT_SUPPORTED" in answer.text
