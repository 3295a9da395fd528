# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="import-not-found, untyped-decorator"
"""celery with Redis as broker and result backend, late acknowledgement, prefork: a worker is one pool process, which
comes with a process that feeds it."""

import os

from celery import Celery

from benchmarks.queue.peers.contract import URL, SyncProducer, become, begun, main

app = Celery("bench", broker=os.environ[URL], backend=os.environ[URL])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    task_serializer="json",
    result_serializer="json",
    result_expires=3600,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(payload: str) -> int:
    return begun(payload)


class Producer(SyncProducer):
    def __init__(self, url: str) -> None:
        self._url = url

    def one(self, payload: str) -> object:
        return noop.delay(payload)


def work(_url: str, workers: int) -> None:
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    become("celery", "-A", "benchmarks.queue.peers.celery.driver:app", "worker", "-c", str(workers), *quiet)


if __name__ == "__main__":
    main(["celery", "kombu", "redis"], work=work, sync=Producer)
