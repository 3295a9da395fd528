# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found, untyped-decorator"
"""streaq: Redis streams, pipelines for many tasks."""

import logging
import os
from collections.abc import Sequence

from streaq import Worker

from benchmarks.queue.peers.contract import URL, AsyncProducer, begun, main, processes

worker = Worker(redis_url=os.environ[URL], concurrency=100, prefetch=100, anyio_kwargs={"use_uvloop": True})


@worker.task(name="noop", silent=True, ttl=3600)
async def noop(payload: str) -> int:
    return begun(payload)


class Producer(AsyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self) -> None:
        await worker.__aenter__()

    async def close(self) -> None:
        await worker.__aexit__(None, None, None)

    async def one(self, payload: str) -> object:
        return await noop.enqueue(payload)

    async def many(self, payloads: Sequence[str]) -> None:
        await worker.enqueue_many([noop.enqueue(payload) for payload in payloads])


def work(_url: str, workers: int) -> None:
    logging.disable(logging.WARNING)
    processes(workers, worker.run_sync)


if __name__ == "__main__":
    main(["streaq", "coredis"], work=work, asynchronous=Producer)
