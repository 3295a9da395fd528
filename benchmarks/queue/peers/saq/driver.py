# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found"
"""saq on Redis: no bulk call, so that 100 single ones are under way at the same time."""

import asyncio
import logging
from typing import Any

from saq import Queue, Worker

from benchmarks.queue.peers.contract import IN_FLIGHT, AsyncProducer, begun, loop_factory, main, processes


async def noop(_context: Any, *, payload: str) -> int:
    return begun(payload)


class Producer(AsyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self) -> None:
        logging.disable(logging.WARNING)
        self._queue = Queue.from_url(self._url, max_concurrent_ops=IN_FLIGHT)

    async def one(self, payload: str) -> object:
        return await self._queue.enqueue("noop", payload=payload, ttl=3600)


def work(url: str, workers: int) -> None:
    logging.disable(logging.WARNING)

    async def serve() -> None:
        queue = Queue.from_url(url, max_concurrent_ops=IN_FLIGHT)
        await Worker(queue, [noop], concurrency=IN_FLIGHT).start()

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve())

    processes(workers, run)


if __name__ == "__main__":
    main(["saq", "redis"], work=work, asynchronous=Producer)
