# SPDX-License-Identifier: Apache-2.0
"""The yardstick: the simplest task queue that one could write, LPUSH and BRPOP, on the same server and machine.

It has no HTTP, keeps no results, no attempts and no leases, and loses what a dying worker holds. Two forms: workers
that take one task at a time, as one would write it first, and workers that take up to BATCH at a time. Ours takes
batches too, so it can be faster than the first form; only the second shows what the guarantees cost.
"""

import multiprocessing
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from agent_runtime.cli.dev.valkey import server_binary

WORKERS = 2
"""As many as the quickstart has echo processes."""
BATCH = 32
"""As many tasks as one of them takes at a time."""
PIPELINE = 1000


def measure(*, tasks: int, batch: int) -> dict[str, Any]:
    """Push so many tasks, have them echoed by worker processes, `batch` at a time, and collect the answers."""
    with _server() as path:
        client: Any = redis.Redis(unix_socket_path=path)
        spawn = multiprocessing.get_context("spawn")
        workers = [spawn.Process(target=_work, args=(path, batch), daemon=True) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for _ in workers:
            client.brpop(["ready"])
        begun = time.perf_counter()
        for start in range(0, tasks, PIPELINE):
            client.lpush("tasks", *range(start, min(start + PIPELINE, tasks)))
        answers: set[int] = set()
        while len(answers) < tasks:
            popped = client.rpop("answers", PIPELINE)
            if popped is None:
                popped = [client.brpop(["answers"])[1]]
            answers.update(map(int, popped))
        seconds = time.perf_counter() - begun
        for worker in workers:
            worker.terminate()  # all answers are here: they only wait
            worker.join()
        client.close()
    return {"tasks": tasks, "seconds": round(seconds, 3), "tasksPerSecond": round(tasks / seconds)}


def _work(path: str, batch: int) -> None:
    client: Any = redis.Redis(unix_socket_path=path)
    client.lpush("ready", os.getpid())
    while True:
        taken = [client.brpop(["tasks"])[1]]
        if batch > 1:
            taken += client.rpop("tasks", batch - 1) or []
        client.lpush("answers", *taken)


@contextmanager
def _server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix=f"bench-{secrets.token_hex(2)}-") as folder:
        path = str(Path(folder) / "socket")
        settings = f'port 0\nunixsocket {path}\nsave ""\nappendonly no\ndir {folder}\n'
        server = subprocess.Popen([server_binary(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert server.stdin is not None
        server.stdin.write(settings)
        server.stdin.close()
        try:
            while not Path(path).exists():
                assert server.poll() is None, "the server does not start"
                time.sleep(0.01)
            yield path
        finally:
            server.terminate()
            server.wait()
