# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found"
"""arq: polls; no bulk call, so that 100 single ones are under way at the same time."""

import asyncio
import logging
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

from benchmarks.queue.peers.contract import AsyncProducer, begun, main, processes

POLL_SECONDS = 0.01
"""Instead of half a second, which would be the latency, and a limit of what one worker can take."""


async def noop(_context: Any, payload: str) -> int:
    return begun(payload)


class Producer(AsyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(self._url))

    async def one(self, payload: str) -> object:
        return await self._pool.enqueue_job("noop", payload)


def work(url: str, workers: int) -> None:
    logging.disable(logging.WARNING)

    def run() -> None:
        asyncio.set_event_loop(uvloop.new_event_loop())  # the worker asks for the current one
        functions = [func(noop, name="noop")]
        settings = RedisSettings.from_dsn(url)
        Worker(functions, redis_settings=settings, max_jobs=100, poll_delay=POLL_SECONDS, log_results=False).run()

    processes(workers, run)


if __name__ == "__main__":
    main(["arq", "redis"], work=work, asynchronous=Producer)
