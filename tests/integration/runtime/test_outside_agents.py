# SPDX-License-Identifier: Apache-2.0
"""Agents outside of the cluster, as real processes: `kubeagents agent run`, over every wire."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import HANDLERS, System, final, submit
from tests.integration.runtime.test_client import WIRES, central_of, port_of, url
from tests.support.eventually import eventually, eventually_async
from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy

AGENT_KEY, VIEWER_KEY = "the-key-of-an-agent", "the-key-of-a-viewer"


class Outside:
    """A process of `kubeagents agent run`. Leaving kills it if it still runs."""

    def __init__(self, target: str, *arguments: str, key: str | None = None) -> None:
        environment = {**os.environ, "KUBEAGENTS_LOG_FORMAT": "text", "KUBEAGENTS_LOG_LEVEL": "info"}
        for name in ("KUBEAGENTS_KEY", "KUBEAGENTS_SERVER"):
            environment.pop(name, None)
        if key is not None:
            environment["KUBEAGENTS_KEY"] = key
        command = [sys.executable, "-m", "agent_runtime.cli.main", "agent", "run", target, *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self) -> Self:
        """Wait until it says that it takes tasks."""
        eventually(lambda: self.said("takes tasks from queue"), what="it takes tasks", timeout=60)
        return self

    def said(self, part: str) -> str | None:
        """The line that has this part; fails if the process has ended without it."""
        found = next((line for line in list(self.lines) if part in line), None)
        if found is None and self.process.poll() is not None:
            self._reader.join(timeout=10)
            found = next((line for line in self.lines if part in line), None)
            if found is None:
                raise RuntimeError(f"it has ended with {self.process.returncode}: {''.join(self.lines)}")
        return found

    def exit_code(self) -> int:
        """Wait for the end; what it has said is complete then."""
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=30)
        self._reader.join(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()


Run = Callable[..., Outside]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts agents, and ends what is left of them."""
    with contextlib.ExitStack() as stack:

        def start(target: str, *arguments: str, key: str | None = None) -> Outside:
            return stack.enter_context(Outside(target, *arguments, key=key))

        yield start


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return central_of(system)


def handler(name: str) -> str:
    """`module:attribute` of a handler of the tests, as the command wants it."""
    module, _, attribute = name.partition(":")
    return f"{HANDLERS / module}.py:{attribute}"


def started(folder: Path, task: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(f"started-{task}*"))


async def once_started(folder: Path, task: str) -> None:
    async def probe() -> bool:
        return started(folder, task)()

    await eventually_async(probe, what="the task runs")


def agents(central: RuntimeProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = central.get("/v1/agents").json()
    return found


def test_an_agent_outside_works_as_those_inside_do(
    central: RuntimeProcess, run: Run, wire: str, tmp_path: Path
) -> None:
    server = ("--server", url(central, wire))
    boss = run(handler("talking:handle"), *server, "--name", "boss")
    clerks = [
        run(handler("talking:handle"), *server, "--name", "clerk", "--instance", name, "--capability", "reading")
        for name in ("clerk-1", "clerk-2")
    ]
    line = boss.ready().said("takes tasks from queue main with talking.py:handle")
    assert line is not None
    assert url(central, wire) in line
    for clerk in clerks:
        clerk.ready()
    shown = {found["instance"]: found for found in agents(central)}
    assert (shown["clerk-1"]["capabilities"], shown["clerk-1"]["healthy"]) == (["reading"], True)

    (job,) = submit(central, None, agent="boss", type="start", id="job")
    (tmp_path / "open").touch()
    (talk,) = submit(central, str(tmp_path), type="speak", agent="clerk")
    did, said = final(central, job, talk)
    assert did["state"] == "succeeded", did
    assert did["result"]["called"]["agent"] == "clerk"
    assert did["result"]["refused"].endswith("PermanentError: as asked")
    sent, capable, total = final(central, did["result"]["sent"], did["result"]["capable"], did["result"]["sum"])
    assert (sent["result"]["instance"], capable["result"]["agent"], total["result"]) == ("clerk-2", "clerk", 3)
    reached = {one["result"]["instance"] for one in final(central, *did["result"]["broadcast"])}
    assert reached == {"clerk-1", "clerk-2"}
    assert said["result"] == "said"
    lines = central.get(f"/v1/queues/main/tasks/{talk}/stream").text
    assert [f'{{"part":{number}}}' in lines for number in range(6)] == [True] * 6


def test_ctrl_c_lets_an_agent_finish_what_runs(central: RuntimeProcess, run: Run, wire: str, tmp_path: Path) -> None:
    agent = run(handler("handlers:gate"), "--server", url(central, wire)).ready()
    (first,) = submit(central, str(tmp_path))
    eventually(started(tmp_path, first), what="the task runs")
    agent.process.send_signal(signal.SIGINT)
    eventually(lambda: agent.said("1 task runs"), what="it says that it waits")
    (second,) = submit(central, str(tmp_path))
    (tmp_path / "open").touch()
    assert agent.exit_code() == 0
    assert final(central, first)[0]["attempts"] == 1
    assert agents(central) == []
    assert central.get(f"/v1/queues/main/tasks/{second}").json()["state"] == "queued"


def test_ctrl_c_twice_gives_back_what_runs(central: RuntimeProcess, run: Run, wire: str, tmp_path: Path) -> None:
    agent = run(handler("handlers:gate"), "--server", url(central, wire), "--drain-seconds", "3600").ready()
    (task,) = submit(central, str(tmp_path))
    eventually(started(tmp_path, task), what="the task runs")
    agent.process.send_signal(signal.SIGINT)
    eventually(lambda: agent.said("once more gives back"), what="it says that it waits")
    agent.process.send_signal(signal.SIGINT)
    assert agent.exit_code() == 0
    found = central.get(f"/v1/queues/main/tasks/{task}").json()
    assert (found["state"], found.get("attempts", 0)) == ("queued", 0)


def test_a_cancelled_task_is_cancelled_outside_at_once(system: System, run: Run, wire: str, tmp_path: Path) -> None:
    central = central_of(system, queues=[system.queue(lease_seconds=3600)])  # so that no renewal tells it
    run(handler("handlers:gate"), "--server", url(central, wire)).ready()
    (task,) = submit(central, str(tmp_path))
    eventually(started(tmp_path, task), what="the task runs")
    assert central.delete(f"/v1/queues/main/tasks/{task}").json()["state"] == "cancelled"
    eventually(lambda: any(tmp_path.glob(f"cancelled-{task}*")), what="the handler is told")


async def test_a_task_goes_on_while_the_connection_is_down_and_is_settled_afterwards(
    central: RuntimeProcess, run: Run, wire: str, tmp_path: Path
) -> None:
    async with TcpProxy(target_port=port_of(central, wire)) as proxy:
        agent = run(handler("handlers:gate"), "--server", url(central, wire, port=proxy.port))

        async def says(part: str) -> bool:
            return agent.said(part) is not None

        await eventually_async(lambda: says("takes tasks"), what="it is ready")
        (task,) = submit(central, str(tmp_path))
        await once_started(tmp_path, task)
        async with proxy.refusing():
            await eventually_async(lambda: says("trying others, and this one again"), what="it has noticed")
            (tmp_path / "open").touch()

        async def done() -> bool:
            return bool(central.get(f"/v1/queues/main/tasks/{task}").json()["state"] == "succeeded")

        await eventually_async(done, what="the task is settled")
    assert final(central, task)[0]["attempts"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_one_central_agent_gave_is_settled_through_another(
    system: System, run: Run, wire: str, tmp_path: Path, number: signal.Signals
) -> None:
    first, second = central_of(system), central_of(system, "hub-2")
    agent = run(handler("handlers:gate"), "--server", f"{url(first, wire)},{url(second, wire)}").ready()
    (task,) = submit(second, str(tmp_path))
    eventually(started(tmp_path, task), what="the task runs")
    first.signal(number)
    first.exit_code()
    (tmp_path / "open").touch()
    assert final(second, task)[0]["attempts"] == 1
    (later,) = submit(second, str(tmp_path))
    assert final(second, later)[0]["state"] == "succeeded"
    assert agent.process.poll() is None


async def test_an_agent_takes_another_wire_while_the_preferred_one_is_down(
    central: RuntimeProcess, run: Run, tmp_path: Path
) -> None:
    async with TcpProxy(target_port=port_of(central, "websocket")) as proxy:
        servers = f"{url(central, 'websocket', port=proxy.port)},{url(central, 'http')}"
        agent = run(handler("handlers:echo"), "--server", servers)

        async def says(part: str) -> bool:
            return agent.said(part) is not None

        def work(payload: str) -> bool:
            (task,) = submit(central, payload)
            return bool(final(central, task)[0]["result"] == payload)

        async def works(payload: str) -> bool:
            return await asyncio.to_thread(work, payload)  # the proxy needs the loop meanwhile

        await eventually_async(lambda: says(f"through ws://127.0.0.1:{proxy.port}"), what="it takes the preferred one")
        assert await works("before")
        async with proxy.refusing():
            assert await works("meanwhile")
        await eventually_async(lambda: says(f":{proxy.port} can be reached again"), what="it is back")
        assert await works("after")


def test_a_task_whose_lease_is_lost_runs_again_elsewhere(system: System, run: Run, wire: str, tmp_path: Path) -> None:
    central = central_of(system, queues=[system.queue(lease_seconds=5)])
    agent = run(handler("handlers:gate"), "--server", url(central, wire), "--name", "outside").ready()
    (task,) = submit(central, str(tmp_path))
    eventually(started(tmp_path, task), what="the task runs")
    system.agent("handlers:gate", instance="inside-1").ready()
    agent.process.send_signal(signal.SIGSTOP)  # a laptop that sleeps
    eventually(lambda: any(tmp_path.glob(f"started-{task}-inside-1")), what="it runs elsewhere")
    agent.process.send_signal(signal.SIGCONT)
    eventually(lambda: any(tmp_path.glob(f"cancelled-{task}-outside*")), what="the first one is told")
    (tmp_path / "open").touch()
    (record,) = final(central, task)
    assert record["result"]["attempt"] == record["attempts"]
    assert record["attempts"] >= 2


def test_a_cordoned_agent_outside_takes_nothing_until_it_may(central: RuntimeProcess, run: Run, wire: str) -> None:
    agent = run(handler("handlers:echo"), "--server", url(central, wire), "--instance", "laptop").ready()
    central.post("/v1/queues/main/cordon", {"instances": ["laptop"], "by": "test"})
    eventually(lambda: agents(central)[0].get("cordoned"), what="it obeys")
    (task,) = submit(central, 1)
    assert agent.said("cordoned: the process takes no new tasks")
    assert central.get(f"/v1/queues/main/tasks/{task}").json()["state"] == "queued"
    central.post("/v1/queues/main/uncordon", {"instances": ["laptop"], "by": "test"})
    assert final(central, task)[0]["result"] == 1


def guarded(system: System, folder: Path) -> RuntimeProcess:
    keys = {"root": "the-key-of-the-admin", "vera": VIEWER_KEY, "outside": AGENT_KEY}
    for name, key in keys.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text(key)
    principals = [
        Principal(name="root", role="admin", keys_from=LocalRef(name="root")),
        Principal(name="vera", role="viewer", keys_from=LocalRef(name="vera")),
        Principal(name="outside", role="agent", agents=["mine"], keys_from=LocalRef(name="outside")),
    ]
    return central_of(system, access=AccessSettings(principals=principals), keys_path=str(folder))


def test_where_keys_are_asked_for_an_agent_needs_the_role(system: System, run: Run, wire: str, tmp_path: Path) -> None:
    central = guarded(system, tmp_path / "keys")
    server = ("--server", url(central, wire))
    (tmp_path / "key").write_text(AGENT_KEY)
    echo = handler("handlers:echo")
    mine = run(echo, *server, "--name", "mine", "--key-file", str(tmp_path / "key"))
    nobody, viewer = run(echo, *server, "--name", "mine"), run(echo, *server, "--name", "mine", key=VIEWER_KEY)
    other = run(echo, *server, "--name", "other", key=AGENT_KEY)
    mine.ready()
    for refused, reason in (
        (nobody, "KUBEAGENTS_KEY"),
        (viewer, "must be of a principal with the role agent"),
        (other, "may not use tasks of Agent 'other'"),
    ):
        assert refused.exit_code() == 1
        assert refused.said("error:") is not None
        assert refused.said(reason) is not None, refused.lines
        assert "Traceback" not in "".join(refused.lines)


def test_what_cannot_work_is_told_at_once(system: System, central: RuntimeProcess, run: Run, tmp_path: Path) -> None:
    here = ("--server", url(central, "http"))
    agent = system.agent().ready()
    for arguments, code, reason in (
        (("nowhere.py", *here), 2, "there is no file 'nowhere.py'"),
        ((f"{HANDLERS / 'handlers.py'}:absent", *here), 2, "has no attribute 'absent'"),
        ((handler("handlers:not_async"), *here), 2, "is not an async function"),
        ((handler("handlers:echo"), "--server", "redis://localhost"), 2, "is not the URL of a CentralAgent"),
        ((handler("handlers:echo"), "--server", agent.base_url), 1, "does not look like a CentralAgent"),
        ((handler("handlers:echo"), *here, "--queue", "elsewhere"), 1, "Name one with --queue"),
        ((handler("handlers:echo"), *here, "--name", "No Name"), 2, "is no name for an Agent"),
    ):
        refused = run(*arguments)
        assert refused.exit_code() == code, refused.lines
        assert refused.said(reason) is not None
        assert "Traceback" not in "".join(refused.lines)


def test_a_server_that_cannot_be_reached_is_named(run: Run) -> None:
    refused = run(handler("handlers:echo"), "--server", "http://127.0.0.1:1")
    assert refused.exit_code() == 1
    assert refused.said("error: cannot reach http://127.0.0.1:1") is not None
