# SPDX-License-Identifier: Apache-2.0
"""The task queue: where tasks wait, who works on them, and what became of them. All of it lives in Redis or Valkey;
`MemoryTaskQueue` keeps the same promises in memory, for tests.

What is guaranteed
    A task that `submit` has returned an id for is in the queue, and stays until it is final. It is begun at least
    once, unless it is cancelled, expires, or a task that it depends on fails. It becomes final exactly once. As durable
    as the server is: with an append-only file a crash of the server loses next to nothing that was acknowledged, a
    crash of its machine at most the last second (`appendfsync everysec`). A server that evicts keys breaks all
    promises; `storage` tells. docs/explanation/guarantees.md says how this is shown.
    Priority is strict and first in, first out inside a priority, over all tasks that a worker may take. A task gets its
    place when it is submitted and keeps it, through delays, parents, retries and lost workers. Only tenants change
    that: inside a priority they take turns.

The life of a task

       submit ──► blocked ──parents end──► scheduled ◄─┐                 claim                 settle
          │                       │           │ due    │ backoff  ┌─────────────────► running ─────────► succeeded
          ├───────────────────────┼──────────►│        │          │                     │ │              failed
          │                       ▼           ▼        └──────────┼──── failed try ─────┘ │              dead ─┐
          └─────────────────────────► queued ─────────────────────┘                       │                    │
                                        ▲  ◄───── released, or lease over ────────────────┘                    │
                                        └─────────────────────── replayed ─────────────────────────────────────┘
       from blocked, scheduled, queued and running: cancelled, expired; from blocked also failed, for its parents

    Every arrow is one Lua script (`lua/`), so a task is never in two places or in none. Whoever claims moves what is
    due first: scheduled tasks, deadlines, and tasks whose lease is over (their attempt counts, as failure
    LEASE_EXPIRED). No leader is needed; where nobody claims, `stats` does it.

Leases and tokens
    A claim leases tasks for `leaseSeconds`, by the server's clock, and gets a token. Workers renew with `extend`. The
    token fences: once the lease is over and another worker has the task, or once it was cancelled, what the first one
    sends changes nothing and is told so. A lease that is over but that nobody has taken back yet still counts. Whoever
    loses a task in the middle of it hears so at once (`revoked`), or at the latest with the next `extend`.

Cordons
    A process can be cordoned, by an operator that wants to remove it or by a person. The claim script refuses it from
    the moment on at which the order is in Redis, so no claim that races with the order gets anything; it wakes to find
    that out, and wakes others for what it was woken for. The order is part of the queue's data, so it is as durable.

When the connection breaks
    A call is repeated for some seconds before it raises, and each may be repeated safely: a submission carries a
    nonce that is kept in the records, so its repeat is not a duplicate; an outcome carries its token, so its repeat is
    accepted again without being applied again; the repeat of a claim gets what the lost reply would have brought. A
    claim that is cancelled gives back what it had taken. What a task says while it runs (`emit`) may be there twice.

Sleeping and waking
    An idle worker blocks on the bells of its lanes, until the next due time, five seconds at most. Submitting rings a
    bell once, by one token in a list, and whoever wakes and leaves work behind rings again: as many wake as there is
    work for, and no wake-up is lost. A worker that is killed between hearing the bell and claiming delays the others
    by those five seconds at most. Who waits for results, streams or revocations shares one subscription for each.

What it looks like in Redis
    `keys` lists the keys. One string holds all of a task; while it waits, its id is in the sorted set of its lane, by
    place: (9 - priority) * 2^43 + order of arrival. Lanes, one for any Agent and one for each Agent, capability or
    process that tasks name, are merged when claiming. What most tasks do not have (tenant, deadline, parents, large
    payload) is flagged at a fixed position of the record, so that a plain task pays one comparison for it.
    Events are written once for each call and up to 100 tasks. Large jobs are cut: 10,000 tasks in a submission, 128 MiB
    in any call.
"""

from agent_runtime.queue.base import (
    Beat,
    Claim,
    Failed,
    Gate,
    Orders,
    Outcome,
    Partial,
    Progress,
    StorageInfo,
    Succeeded,
    TaskQueue,
    Worker,
)
from agent_runtime.queue.redis import RedisTaskQueue
from agent_runtime.queue.sharded import ShardedTaskQueue
from agent_runtime.queue.sharding import shard_config
from kubeagents_api.errors import CordonedError
from kubeagents_api.runtime_config import QueueConfig

__all__ = [
    "Beat",
    "Claim",
    "CordonedError",
    "Failed",
    "Gate",
    "Orders",
    "Outcome",
    "Partial",
    "Progress",
    "StorageInfo",
    "Succeeded",
    "TaskQueue",
    "Worker",
    "open_queue",
]


def open_queue(config: QueueConfig, *, url: str) -> TaskQueue:
    """The queue that the configuration names, at the server that the URL names.

    Connects when it is first used. Raises RedisUrlError if the URL is malformed.
    """
    if config.shards > 1:
        shards = [RedisTaskQueue(shard_config(config, number), url=url) for number in range(config.shards)]
        return ShardedTaskQueue(config, shards)
    return RedisTaskQueue(config, url=url)
