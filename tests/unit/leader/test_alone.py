# SPDX-License-Identifier: Apache-2.0
import asyncio
import subprocess
import sys

from agent_runtime.leader.alone import AloneElector


async def test_who_is_alone_leads_from_start_to_stop() -> None:
    elector = AloneElector(identity="only")
    assert not elector.is_leader
    await elector.wait_until_lost()

    await elector.start()
    assert await elector.wait_until_leading() == elector.fencing
    assert (elector.is_leader, elector.holder) == (True, "only")
    lost = asyncio.ensure_future(elector.wait_until_lost())

    await elector.stop()
    await lost
    assert (elector.is_leader, elector.holder) == (False, None)


async def test_each_term_has_a_greater_number() -> None:
    elector = AloneElector(identity="only")
    terms = []
    for _ in range(3):
        await elector.start()
        terms.append(elector.fencing)
        await elector.stop()

    assert terms == sorted(set(terms))


def test_who_is_alone_needs_no_kubernetes_client() -> None:
    program = "import sys, agent_runtime.leader; sys.exit('kubernetes' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
