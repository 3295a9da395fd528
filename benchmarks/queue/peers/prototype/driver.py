# SPDX-License-Identifier: Apache-2.0
"""What Python and Redis can carry at best: the bare prototype that the guarantees are measured against.

One hash for each task, submitted, claimed and acknowledged in batches by three short scripts, through the same client
library. It has leases that nobody looks at, and no priorities, retries, timeouts, routing, cancelling, fencing, events
or registry: do not use it, compare with it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import redis.asyncio

from benchmarks.queue.peers.contract import AsyncProducer, begun, loop_factory, main, processes

CLAIMED = 100
LEASE_SECONDS = 30
RESULT_SECONDS = 3600
SUBMIT = """
local last = redis.call('INCRBY', 'ids', #ARGV)
local ids = {}
for number, body in ipairs(ARGV) do
  local id = last - #ARGV + number
  redis.call('HSET', 'task:' .. id, 'body', body)
  ids[number] = id
end
redis.call('RPUSH', 'queue', unpack(ids))
redis.call('LPUSH', 'bell', 1)
redis.call('LTRIM', 'bell', 0, 0)
return last
"""
CLAIM = """
local ids = redis.call('LPOP', 'queue', ARGV[1])
if not ids then return {} end
local found, leases = {}, {}
for number, id in ipairs(ids) do
  found[number] = {id, redis.call('HGET', 'task:' .. id, 'body')}
  leases[2 * number - 1] = ARGV[2]
  leases[2 * number] = id
end
redis.call('ZADD', 'leases', unpack(leases))
return found
"""
SETTLE = """
local ids = {}
for number = 2, #ARGV, 2 do
  ids[number / 2] = ARGV[number]
  local key = 'task:' .. ARGV[number]
  redis.call('HSET', key, 'state', 'succeeded', 'result', ARGV[number + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
return redis.call('ZREM', 'leases', unpack(ids))
"""


class Producer(AsyncProducer):
    """Submits batches."""

    def __init__(self, url: str) -> None:
        self._submit: Any = redis.asyncio.from_url(url).register_script(SUBMIT)

    async def one(self, payload: str) -> object:
        return await self.many([payload])

    async def many(self, payloads: Sequence[str]) -> object:
        return await self._submit(args=[json.dumps({"type": "noop", "payload": payload}) for payload in payloads])


async def _serve(url: str) -> None:
    client: Any = redis.asyncio.from_url(url)
    claim, settle = client.register_script(CLAIM), client.register_script(SETTLE)
    while True:
        found = await claim(args=[CLAIMED, int((time.time() + LEASE_SECONDS) * 1000)])
        outcomes: list[Any] = [RESULT_SECONDS]
        for task_id, body in found:
            outcomes += [task_id, json.dumps(await _handle(json.loads(body)["payload"]))]
        if found:
            await settle(args=outcomes)
        else:
            await client.blpop(["bell"], 4)  # less than the socket may be silent


async def _handle(payload: str) -> int:
    return begun(payload)


def work(url: str, workers: int) -> None:
    """Be so many worker processes."""

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(url))

    processes(workers, run)


if __name__ == "__main__":
    main(["redis"], work=work, asynchronous=Producer)
