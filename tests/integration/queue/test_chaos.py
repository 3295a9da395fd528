# SPDX-License-Identifier: Apache-2.0
"""A short run of what `make chaos` does at length: every kind of round once, all at the same time."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.findings import Breach
from tests.chaos.round import Result
from tests.chaos.scenes import PARTS, Part
from tests.support.eventually import eventually
from tests.support.redis_server import binaries

SEED = "2026"
TASKS = 400
"""Of each round."""
SUBMIT_SECONDS = 3.0
MOST_ROUNDS = 4
"""In which a mistake must be found. Mostly one is enough; what meets what is a matter of chance."""
ROOT = Path(__file__).parents[3]


async def play(part: Part, folder: Path, *, sabotage: str = "") -> Result:
    """A short round."""
    return await part.play(
        tasks=TASKS,
        seconds=SUBMIT_SECONDS,
        seed=f"{SEED}/{part.name}",
        folder=folder,
        binary=next(iter(binaries().values())),
        say=lambda _: None,
        sabotage=sabotage,
    )


@pytest.mark.timeout(400)
async def test_nothing_is_lost_or_done_twice_or_out_of_order_whatever_happens(tmp_path: Path) -> None:
    folders = [tmp_path / part.name for part in PARTS]
    for folder in folders:
        folder.mkdir()
    results = await asyncio.gather(*map(play, PARTS, folders))
    counts: Counter[str] = Counter()
    for result in results:
        assert result.verdict.findings == [], result.folder
        assert result.faults, f"nothing went wrong in {result.scene}"
        counts += result.verdict.counts
    assert sum(result.verdict.tasks for result in results) > len(PARTS) * TASKS / 2
    # A run in which nobody lost a lease would have shown nothing.
    assert min(counts[what] for what in ("redeliveries", "late_outcomes_refused", "places_checked")) > 0, counts


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("mistake", "part", "breach"),
    [
        ("any token counts", "frozen", Breach.STALE_ACK),
        ("settling leaves the lease", "killed", Breach.RESTARTED),
        ("a lost lease loses the place", "order", Breach.ORDER),
        ("a lost lease loses the task", "killed", Breach.LOST),
        ("leases never end", "takeover", Breach.IDLE),
    ],
)
async def test_a_queue_that_breaks_a_promise_is_caught(
    mistake: str, part: str, breach: Breach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.takeover.SOON_SECONDS", 8.0)
    monkeypatch.setattr("tests.chaos.round.STILL_SECONDS", 4.0)
    (chosen,) = (each for each in PARTS if each.name == part)
    found: set[Breach] = set()
    for number in range(MOST_ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = await play(chosen, folder, sabotage=mistake)
        found |= {finding.breach for finding in result.verdict.findings}
        if breach in found:
            return
    raise AssertionError(f"{mistake}: found {found or 'nothing'} in {MOST_ROUNDS} rounds")


@pytest.mark.timeout(200)
def test_ctrl_c_ends_a_run_in_order_and_leaves_no_process_behind(tmp_path: Path) -> None:
    output = tmp_path / "chaos.json"
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--tasks", "5000", "--part", "everything", "--output", output],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(_members(run.pid)) >= 8, what="the round has all its processes", timeout=60)
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 130
        assert "Cut short" in said
        assert '"interrupted": true' in output.read_text()
        eventually(lambda: not _members(run.pid), what="all processes are gone", timeout=10)
    finally:
        if _members(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def _members(group: int) -> list[int]:
    """The processes of a process group, zombies not counted."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pgid, pid, state in rows if int(pgid) == group and not state.startswith("Z")]
