# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found, untyped-decorator"
"""taskiq on Redis streams: acknowledged when the result is saved (its default)."""

import os

from taskiq import AsyncBroker
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.queue.peers.contract import IN_FLIGHT, URL, AsyncProducer, become, begun, main

broker: AsyncBroker = (
    # From the first entry on, not only what comes after the start of the first worker.
    RedisStreamBroker(os.environ[URL], consumer_id="0", max_connection_pool_size=IN_FLIGHT)
    .with_result_backend(RedisAsyncResultBackend(os.environ[URL], result_ex_time=3600))
    .with_serializer(ORJSONSerializer())
)


@broker.task(task_name="noop")
async def noop(payload: str) -> int:
    return begun(payload)


class Producer(AsyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self) -> None:
        await broker.startup()

    async def one(self, payload: str) -> object:
        return await noop.kiq(payload)


def work(_url: str, workers: int) -> None:
    # uvloop is taken by itself. Without --no-parse every call is checked by pydantic.
    settings = ["--max-async-tasks", "100", "--max-prefetch", "100", "--no-parse", "--log-level", "ERROR"]
    become("taskiq", "worker", "benchmarks.queue.peers.taskiq.driver:broker", "--workers", str(workers), *settings)


if __name__ == "__main__":
    main(["taskiq", "taskiq-redis", "redis"], work=work, asynchronous=Producer)
