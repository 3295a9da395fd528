# SPDX-License-Identifier: Apache-2.0
"""The page about testing, and the test kit's own example, show what works: their code is run as it stands there."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import testing
from agent_runtime.queue import Worker
from agent_runtime.testing import ManualClock, memory_queue
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import TaskRequest

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "test-your-agents.md"


def page() -> dict[str, Any]:
    """What the blocks of the page define, one after the other."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - that it runs is the test
    return names


@pytest.mark.parametrize("name", sorted(name for name in page() if name.startswith("test_")))
async def test_the_tests_on_the_page_pass(name: str) -> None:
    await page()[name]()


async def test_the_example_of_the_kit_passes() -> None:
    lines = (testing.__doc__ or "").splitlines()
    start, end = (
        lines.index("    import asyncio"),
        next(n for n, line in enumerate(lines) if line.startswith("A handler")),
    )
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(lines[start:end])), names)  # noqa: S102 - that it runs is the test
    await names["test_a_reminder_waits_for_its_time"]()


def test_the_clock_does_not_run_backwards() -> None:
    clock = ManualClock()
    before = clock()
    clock.advance(0.25)
    assert clock() == before + 0.25
    assert clock.now().timestamp() == clock()
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


async def test_without_a_clock_the_queue_has_the_real_time() -> None:
    async with memory_queue() as queue:
        (task_id,) = await queue.submit([TaskRequest(delay_seconds=0.02)])
        (claim,) = await queue.claim(Worker(agent="a", instance="a-1"), limit=1, wait_seconds=20)
        assert claim.id == task_id
        assert await queue.claim(Worker(agent="a", instance="a-1"), limit=1, wait_seconds=0.02) == []


async def test_what_a_manifest_could_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        async with memory_queue(retry={"max_attempts": 0}):
            raise AssertionError("it was accepted")


async def test_a_queue_can_be_cut_into_shards_in_memory_too() -> None:
    worker = Worker(agent="a", instance="a-1")
    async with memory_queue(shards=4) as queue:
        ids = [task_id for n in range(8) for task_id in await queue.submit([TaskRequest(payload=n)])]
        claims = await queue.claim(worker, limit=8, wait_seconds=0)
        assert sorted(claim.id for claim in claims) == sorted(ids)
        with pytest.raises(InvalidTaskError, match="shards"):
            await queue.submit([TaskRequest(depends_on=ids)])
