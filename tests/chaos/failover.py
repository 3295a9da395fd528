# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a master that has replicas and Sentinels. Each fault ends when all servers are well again."""

import asyncio

from tests.chaos.stage import Stage
from tests.chaos.storage import Replicated
from tests.support.redis_sentinels import MASTER_NAME


async def master_killed(stage: Stage) -> bool:
    """SIGKILL; a replica becomes the master, and the killed one comes back as its replica."""

    def happen() -> None:
        storage = _storage(stage)
        master = storage.server
        master.kill()
        storage.replaced(master)
        storage.heal()

    await asyncio.to_thread(happen)
    return True


async def master_frozen(stage: Stage) -> bool:
    """SIGSTOP until another one is the master, then SIGCONT: for a while two believe that they are."""

    def happen() -> None:
        storage = _storage(stage)
        master = storage.server
        master.freeze()
        storage.replaced(master)
        master.thaw()
        storage.heal()

    await asyncio.to_thread(happen)
    return True


async def failover_asked(stage: Stage) -> bool:
    """SENTINEL FAILOVER, as before maintenance: the former master goes on for a moment and takes what will be lost."""

    def happen() -> None:
        storage = _storage(stage)
        master = storage.server
        with storage.trio.client(storage.trio.ports[0]) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
        storage.replaced(master)
        storage.heal()

    await asyncio.to_thread(happen)
    return True


def _storage(stage: Stage) -> Replicated:
    assert isinstance(stage.storage, Replicated)
    return stage.storage
