# SPDX-License-Identifier: Apache-2.0
"""Push notifications of A2A: what arrives, who may have them made, and what becomes of them when a pod dies."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from a2a.client.errors import A2AClientError
from a2a.types import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    TaskPushNotificationConfig,
)
from a2a.utils import errors as a2a

from kubeagents_api.access import AccessSettings, Principal, Role
from kubeagents_api.model import LocalRef
from tests.integration.runtime.a2a_clients import BINDINGS, client, data, message, sent
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

START_SECONDS = 90.0
ROLES: tuple[Role, ...] = ("developer", "viewer", "admin")
both = pytest.mark.parametrize("binding", BINDINGS)
PARTS = [f"part {number}" for number in range(6)]


class Receiver:
    """An HTTP server that somebody wants to be told at."""

    def __init__(self, *, refuses: int = 0) -> None:
        """`refuses`: how many requests it answers with 503 before it takes any."""
        self.heard: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                refuse = receiver.refused < refuses
                if refuse:
                    receiver.refused += 1
                else:
                    receiver.heard.append(
                        ({name.lower(): value for name, value in self.headers.items()}, json.loads(body))
                    )
                self.send_response(503 if refuse else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook?for=me"

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def said(self) -> list[str]:
        """What has arrived, in short."""
        return [_short(update) for _, update in self.heard]


def _short(update: dict[str, Any]) -> str:
    if "artifactUpdate" in update:
        (part,) = update["artifactUpdate"]["artifact"]["parts"]
        return f"part {part['data']['part']:g}" if "data" in part else str(part["text"])
    return str(update["statusUpdate"]["status"]["state"])


class Stage:
    """A CentralAgent that asks for keys and one that does not, and an Agent."""

    def __init__(self, stack: contextlib.ExitStack, *, folder: Path, redis: RedisServer) -> None:
        self.system = System(stack, folder=folder, redis=redis)
        for role in ROLES:
            (folder / "keys" / role).mkdir(parents=True)
            (folder / "keys" / role / "key").write_text(f"the-key-of-a-{role}")
        access = AccessSettings(
            principals=[Principal(name=role, role=role, keys_from=LocalRef(name=role)) for role in ROLES]
        )
        self.hub = self.central("hub-1")
        self.guarded = self.central("hub-2", name="guarded", access=access, keys_path=str(folder / "keys"))
        agent = self.system.agent("talking:handle", name="worker", concurrency=8)
        for process in (self.hub, self.guarded, agent):
            up(process)

    def central(self, instance: str, **changes: Any) -> RuntimeProcess:
        return self.system.central(instance=instance, endpoints={"http": 0, "a2a": 0, "grpc": 0}, **changes)


def up(process: RuntimeProcess) -> RuntimeProcess:
    eventually(lambda: process.get("/readyz").status_code == 200, what="it is ready", timeout=START_SECONDS)
    return process


@pytest.fixture(scope="module")
def stage(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with redis_server.client() as redis:
        redis.flushall()
    with contextlib.ExitStack() as stack:
        yield Stage(stack, folder=tmp_path_factory.mktemp("push"), redis=redis_server)


def speak(folder: Path, push: TaskPushNotificationConfig | None = None) -> Any:
    request = message(data(str(folder)), metadata={"kubeagents.dev/type": "speak"}, now=True)
    if push is not None:
        request.configuration.task_push_notification_config.CopyFrom(push)
    return request


def kept(stage: Stage) -> int:
    """How many configs there are."""
    with stage.system.redis.client() as redis:
        return sum(redis.hlen(name) for name in redis.scan_iter("ka:*push:configs"))


@both
async def test_every_update_is_posted_in_order_until_it_is_taken(stage: Stage, binding: str, tmp_path: Path) -> None:
    with Receiver(refuses=2) as receiver:
        push = TaskPushNotificationConfig(
            url=receiver.url,
            token="mine",  # noqa: S106 - of nothing
            authentication=AuthenticationInfo(scheme="Bearer", credentials="secret"),
        )
        async with client(stage.hub, "worker", binding=binding) as worker:
            task = await sent(worker, speak(tmp_path, push))
        eventually(lambda: len(receiver.heard) >= 4, what="the first updates arrive")
        (tmp_path / "open").touch()
        eventually(lambda: "TASK_STATE_COMPLETED" in receiver.said(), what="the last one arrives")
        eventually(lambda: kept(stage) == 0, what="the config goes with its task")
    working = "TASK_STATE_WORKING"
    assert receiver.said() == [working, *PARTS, working, "said", "TASK_STATE_COMPLETED"]
    assert receiver.refused == 2
    for headers, update in receiver.heard:
        assert headers["x-a2a-notification-token"] == "mine"
        assert headers["authorization"] == "Bearer secret"
        assert headers["content-type"] == "application/a2a+json"
        assert next(iter(update.values()))["taskId"] == task.id


async def test_another_replica_goes_on_when_one_is_killed(stage: Stage, tmp_path: Path) -> None:
    dying = up(stage.central("twin-1", name="twin"))
    with Receiver() as receiver:
        async with client(dying, "worker") as worker:
            await sent(worker, speak(tmp_path, TaskPushNotificationConfig(url=receiver.url)))
        eventually(lambda: len(receiver.heard) >= 4, what="the first updates arrive")
        up(stage.central("twin-2", name="twin"))
        dying.signal(signal.SIGKILL)
        (tmp_path / "open").touch()
        eventually(lambda: "TASK_STATE_COMPLETED" in receiver.said(), what="the last one arrives", timeout=90)
        said = receiver.said()
    assert sorted(set(said) & set(PARTS)) == PARTS, "none is missing"
    assert said[-2:] == ["said", "TASK_STATE_COMPLETED"]
    appended = {
        _short(update): update["artifactUpdate"].get("append", False)
        for _, update in receiver.heard[4:]
        if "artifactUpdate" in update
    }
    assert all(appended[part] for part in PARTS[3:]), "a part that goes on does not replace those before"


async def test_a_pod_that_stops_hands_over_at_once(stage: Stage, tmp_path: Path) -> None:
    stopping = up(stage.central("pair-1", name="pair"))
    with Receiver() as receiver:
        async with client(stopping, "worker") as worker:
            await sent(worker, speak(tmp_path, TaskPushNotificationConfig(url=receiver.url)))
        eventually(lambda: len(receiver.heard) >= 4, what="the first updates arrive")
        up(stage.central("pair-2", name="pair"))
        stopping.signal(signal.SIGTERM)
        assert stopping.exit_code() == 0
        (tmp_path / "open").touch()
        eventually(lambda: "TASK_STATE_COMPLETED" in receiver.said(), what="the last one arrives")
    working = "TASK_STATE_WORKING"
    assert receiver.said() == [working, *PARTS, working, "said", "TASK_STATE_COMPLETED"], "none is missing or twice"


@both
async def test_configs_are_made_read_and_removed(stage: Stage, binding: str, tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with client(stage.hub, "worker", binding=binding) as worker:
            task = (await sent(worker, speak(tmp_path))).id
            made = await worker.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=task, id="mine", url=receiver.url)
            )
            assert (made.id, made.task_id) == ("mine", task)
            asked = GetTaskPushNotificationConfigRequest(task_id=task, id="mine")
            assert await worker.get_task_push_notification_config(asked) == made
            listed = await worker.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id=task)
            )
            assert list(listed.configs) == [made]
            await worker.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id=task, id="mine")
            )
            with pytest.raises(a2a.TaskNotFoundError, match="no push notification config"):
                await worker.get_task_push_notification_config(asked)
        heard = len(receiver.heard)
        (tmp_path / "open").touch()
        path = f"/v1/queues/main/tasks/{task}/result"
        assert stage.hub.get(path, timeoutSeconds=30).status_code == 200
        assert len(receiver.heard) <= heard + 1, "at most what was on its way"


@both
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://[fd00:ec2::254]/",
        "http://user:password@127.0.0.1/",
        "http://no-such-host.invalid/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
        "nothing",
    ],
)
async def test_nothing_is_sent_where_it_must_not_go(stage: Stage, binding: str, url: str, tmp_path: Path) -> None:
    async with client(stage.hub, "worker", binding=binding) as worker:
        with pytest.raises(a2a.InvalidParamsError, match="url"):
            await sent(worker, speak(tmp_path, TaskPushNotificationConfig(url=url)))


async def test_a_token_that_is_no_header_is_refused(stage: Stage, tmp_path: Path) -> None:
    forged = AuthenticationInfo(scheme="Bearer", credentials="a\r\nx-admin: yes")
    async with client(stage.hub, "worker") as worker:
        with pytest.raises(a2a.InvalidParamsError, match="header"):
            await sent(
                worker, speak(tmp_path, TaskPushNotificationConfig(url="http://127.0.0.1:1/", authentication=forged))
            )


@both
async def test_configs_are_for_those_who_may_submit_and_for_nobody_elses_eyes(
    stage: Stage, binding: str, tmp_path: Path
) -> None:
    (tmp_path / "open").touch()
    key = {role: f"the-key-of-a-{role}" for role in ROLES}
    with Receiver() as receiver:
        push = TaskPushNotificationConfig(url=receiver.url, id="one")
        async with client(stage.guarded, "worker@main", binding=binding, key=key["developer"]) as worker:
            request = message(data(1), metadata={"kubeagents.dev/delaySeconds": 3600}, now=True)
            task = (await sent(worker, request)).id
            push.task_id = task
            await worker.create_task_push_notification_config(push)
        asked = GetTaskPushNotificationConfigRequest(task_id=task, id="one")
        async with client(stage.guarded, "worker@main", binding=binding, key=key["admin"]) as admin:
            with pytest.raises(a2a.TaskNotFoundError):
                await admin.get_task_push_notification_config(asked)
        async with client(stage.guarded, "worker@main", binding=binding, key=key["viewer"]) as viewer:
            with pytest.raises((A2AClientError, a2a.A2AError), match=r"viewer|403"):
                await viewer.create_task_push_notification_config(push)
