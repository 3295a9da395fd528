# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found, untyped-decorator"
"""dramatiq with its Redis broker and Redis results: 8 threads in each worker process, which hold 16 messages.

These are its defaults. To hold more (`dramatiq_queue_prefetch`) made it slower.
"""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.queue.peers.contract import URL, SyncProducer, become, begun, main

broker = RedisBroker(url=os.environ[URL])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ[URL]), store_results=True, result_ttl=3600_000))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop")
def noop(payload: str) -> int:
    return begun(payload)


class Producer(SyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    def one(self, payload: str) -> object:
        return noop.send(payload)


def work(_url: str, workers: int) -> None:
    threads = ["--threads", "8", "--skip-logging"]
    become("dramatiq", "benchmarks.queue.peers.dramatiq.driver:broker", "--processes", str(workers), *threads)


if __name__ == "__main__":
    main(["dramatiq", "redis"], work=work, sync=Producer)
