# SPDX-License-Identifier: Apache-2.0
"""The commands that steer a queue and watch what happens in it, against a running session."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cli.conftest import CLI, Dev, Finished, own_environment, run_command
from tests.integration.cli.manifest_files import write_system
from tests.support.eventually import eventually

CODE = """
async def handle(task, ctx):
    match task.payload:
        case {"raise": str(why)}:
            raise ValueError(why)
        case {"talk": int(count)}:
            for number in range(count):
                await ctx.progress(number / count, f"part {number}")
                await ctx.partial(f"part [b]{number}[/b]")
                await ctx.partial({"number": number})
    return task.payload
"""
SCHEDULES = """\
spec:
  schedules:
  - {name: often, everySeconds: 1, task: {agent: nobody}}
  - {name: nightly, cron: 30 2 * * *, timeZone: Europe/Berlin}
  - {name: asleep, cron: 0 0 * * *, suspend: true}
"""

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, dict[str, str], Path]]:
    """One session for all tests here; each uses tasks of its own."""
    folder = tmp_path_factory.mktemp("world")
    environment = own_environment(folder)
    manifests = write_system(folder, code=CODE)
    manifests.write_text(manifests.read_text().replace("spec:\n", SCHEDULES, 1))
    session = Dev(["--port", "0", str(manifests)], environment=environment, folder=folder)
    try:
        session.ready()
        yield lambda *a, **more: run_command(a, environment=environment, folder=folder, **more), environment, folder
    finally:
        session.close()


@pytest.fixture(name="cli")
def _cli(world: tuple[Run, dict[str, str], Path]) -> Run:
    return world[0]


def task(cli: Run, task_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cli("get", "task", task_id, "-o", "json").out)
    return found


def test_every_flag_of_submit_reaches_the_task(cli: Run) -> None:
    cli("submit", "0", "--id", "parent", "--agent", "nobody")
    done = cli(
        "submit", "1", "--id", "flags", "--capability", "ocr", "--tenant", "acme", "--key", "once", "--delay", "2h",
        "--deadline", "1d", "--depends-on", "parent", "--on-parent-failure", "run",
    )  # fmt: skip
    assert (done.code, done.out, done.err) == (0, "flags\n", "1 task is on queue tasks, blocked\n")
    found = task(cli, "flags")
    assert (found["capability"], found["tenant"], found["idempotencyKey"]) == ("ocr", "acme", "once")
    assert (found["dependsOn"], found["waitsFor"], found["onParentFailure"]) == (["parent"], 1, "Run")
    assert "deadline" in found
    shown = cli("get", "task", "flags").out
    assert re.search(r"^depends on +parent \(1 not ended yet\)$", shown, re.MULTILINE)
    assert re.search(r"^deadline +\S+ \(in \d+h\)$", shown, re.MULTILINE)
    again = cli("submit", "2", "--key", "once")
    assert (again.out, again.err) == ("flags\n", "merged with an earlier task of the same key on queue tasks\n")
    later = cli("submit", "1", "--id", "later", "--not-before", "2h", "--instance", "worker-x")
    assert later.err == "1 task is on queue tasks, scheduled\n"
    assert re.search(r"^next attempt +\S+ \(in 119m\)$", cli("get", "task", "later").out, re.MULTILINE)


def test_tasks_are_cancelled_by_their_ids(cli: Run) -> None:
    for name in ("c1", "c2"):
        cli("submit", "1", "--id", name, "--agent", "nobody")
    done = cli("cancel", "c1", "c2", "--reason", "wrong month", "--by", "maria")
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()[1:]] == [["c1", "cancelled"], ["c2", "cancelled"]]
    assert "CANCELLED" in cli("result", "c1").out
    assert "wrong month" in cli("result", "c1").out
    cli("submit", "1", "--id", "c3", "--wait")
    ended = cli("cancel", "c3", "-o", "json")
    assert (ended.code, json.loads(ended.out)) == (1, [{"id": "c3", "state": "succeeded"}])
    assert ended.err == "1 of 1 had ended before\n"
    unknown = cli("cancel", "c1", "nope")
    assert unknown.code == 1
    assert "'nope'" in unknown.err


def test_dead_tasks_are_listed_shown_replayed_and_purged(cli: Run) -> None:
    for name, tenant in (("x1", "acme"), ("x2", "acme"), ("x3", "umbrella")):
        assert cli("submit", '{"raise": "broken"}', "--id", name, "--tenant", tenant, "--wait").code == 1
    table = cli("dead", "list", "--tenant", "acme").out.splitlines()
    assert table[0].split()[:3] == ["ID", "AGENT", "TENANT"]
    assert [line.split()[0] for line in table[1:]] == ["x2", "x1"]
    assert cli("dead", "list", "--before", "1h").err == "there are no such dead tasks\n"
    assert cli("dead", "list", "--limit", "1", "--code", "FAILED").out.splitlines()[1].startswith("x3")
    assert "failure 2  FAILED: ValueError: broken" in cli("dead", "show", "x1").out
    refused = cli("dead", "purge", "x1")
    assert refused.code == 2
    assert "there is nobody to ask: say --yes if it is meant" in refused.err
    assert cli("dead", "replay", "--all").code == 2
    purged = cli("dead", "purge", "x1", "--yes")
    assert (purged.code, purged.out, purged.err) == (0, "x1\n", "1 dead task removed\n")
    assert cli("dead", "show", "x1").code == 1
    replayed = cli("dead", "replay", "--tenant", "acme", "-o", "json", "--by", "maria")
    assert json.loads(replayed.out) == {"queue": "tasks", "ids": ["x2"]}
    assert cli("result", "x2", "--wait", "30").code == 1, "and died again"
    assert re.search(r"^replayed +once$", cli("dead", "show", "x2").out, re.MULTILINE)
    assert sorted(cli("dead", "purge", "--all", "--yes").out.split()) == ["x2", "x3"]
    assert "is not dead, it is succeeded" in _after(cli, "submit", "1", "--id", "fine", "--wait")(
        "dead", "show", "fine"
    )


def _after(cli: Run, *arguments: str) -> Callable[..., str]:
    """What a command says on stderr after another one has been run."""
    assert cli(*arguments).code == 0
    return lambda *more: cli(*more).err


def test_a_queue_is_paused_and_closed_by_name_and_opened_again(cli: Run) -> None:
    assert cli("queue", "pause", "--by", "maria").out == "queue tasks is paused by maria\n"
    assert cli("get", "queues").out.splitlines()[1].split()[:2] == ["tasks", "paused"]
    mine = cli("queue", "resume", "tasks", "--by", "joe")
    assert (mine.code, mine.out) == (0, "queue tasks is paused by maria\n")
    assert "still paused by others: they must resume it, too, or use --by NAME" in mine.err
    assert cli("queue", "resume", "--by", "maria").out == "queue tasks is not paused\n"
    closed = cli("queue", "close", "--by", "maria", "-o", "json")
    assert json.loads(closed.out)["closedBy"] == ["maria"]
    refused = cli("submit", "1")
    assert refused.code == 1
    assert "is closed to new tasks" in refused.err
    assert cli("queue", "open", "--by", "maria").out == "queue tasks is open\n"


def test_an_instance_is_cordoned_and_takes_tasks_again(cli: Run) -> None:
    (instance,) = (found["instance"] for found in json.loads(cli("get", "agents", "-o", "json").out))
    assert cli("cordon", instance, "--by", "maria").out == f"{instance} is cordoned by maria, 0 running\n"
    assert "cordoned by maria" in cli("get", "agents").out.splitlines()[1]
    cli("submit", "1", "--id", "held")
    mine = cli("uncordon", instance, "--by", "ada", "-o", "json")
    assert json.loads(mine.out)[0]["cordonedBy"] == ["maria"]
    assert task(cli, "held")["state"] == "queued"
    assert cli("uncordon", instance, "--by", "maria").out == f"{instance} is not cordoned\n"
    assert cli("result", "held").code == 0
    unknown = cli("cordon", "nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert 'no instance "nobody" of an agent is known; nothing was changed' in unknown.err


def test_schedules_are_shown(cli: Run) -> None:
    def lines() -> dict[str, str]:
        return {line.split()[1]: line for line in cli("get", "schedules").out.splitlines()}

    often = r"every 1 s +active +in \ds +\d+s +often\.\d{8}T\d{6}Z"
    eventually(lambda: re.search(often, lines()["often"]), what="it has fired")
    shown = lines()
    assert re.search(r"30 2 \* \* \* \(Europe/Berlin\) +active +in \d+[hm]", shown["nightly"])
    assert "suspended" in shown["asleep"]
    assert "UNROUTABLE" in cli("get", "queues").out.splitlines()[0].split(), "its Agent is not there"


def test_a_task_is_watched_to_its_end(cli: Run) -> None:
    cli("submit", '{"talk": 2}', "--id", "talks")
    done = cli("watch", "talks")
    assert done.code == 0
    assert done.out.startswith('part [b]0[/b]\n{"number": 0}\npart [b]1[/b]\n{"number": 1}\n')
    assert "state      succeeded" in done.out
    assert done.err == "0% part 0\n50% part 1\n\n"
    items = [json.loads(line) for line in cli("watch", "talks", "-o", "json").out.splitlines()]
    assert [item["kind"] for item in items] == ["progress", "partial", "partial"] * 2 + ["end"]
    rest = cli("watch", "talks", "--after", items[4]["offset"], "-o", "json").out.splitlines()
    assert [json.loads(line)["kind"] for line in rest] == ["partial", "end"]
    cli("submit", '{"raise": "broken"}', "--id", "breaks")
    assert cli("watch", "breaks").code == 1
    assert cli("watch", "nobody").code == 1


def test_events_are_listed_and_can_be_read_on(cli: Run) -> None:
    cli("submit", "1", "--id", "seen", "--wait")
    table = cli("events", "--task", "seen").out.splitlines()
    assert table[0].split() == ["TIME", "EVENT", "TASK", "ATTEMPT", "TOOK", "BY"]
    assert [line.split()[1:3] for line in table[1:]] == [
        [kind, "seen"] for kind in ("submitted", "started", "succeeded")
    ]
    first, *_ = json.loads(cli("events", "--task", "seen", "-o", "json").out)
    rest = json.loads(cli("events", "--task", "seen", "--after", first["offset"], "-o", "json").out)
    assert [event["kind"] for event in rest] == ["started", "succeeded"]
    assert "is no offset of an event" in cli("events", "--after", "here").err


def test_events_are_followed_until_ctrl_c(world: tuple[Run, dict[str, str], Path]) -> None:
    cli, environment, folder = world
    following = subprocess.Popen(
        [*CLI, "events", "-f", "--limit", "0", "--task", "followed", "-o", "json"],
        env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        cli("submit", "1", "--id", "followed", "--delay", "3")
        assert following.stdout is not None
        seen = [json.loads(following.stdout.readline())["kind"] for _ in range(2)]
        assert seen in (["submitted", "started"], ["started", "succeeded"]), "from when it began to listen"
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=20)
        assert following.returncode == 130
        assert "Traceback" not in out + err
    finally:
        following.kill()
        following.communicate()
