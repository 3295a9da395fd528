# SPDX-License-Identifier: Apache-2.0
"""Which part of a sharded queue a task belongs to. Nothing here talks to Redis.

A task's shard follows from its id alone: `crc32(id) % shards`. Whoever knows an id finds the task. So that a task gets
into a certain shard, an id is made up that falls into it.
"""

import itertools
import math
import random
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from agent_runtime.queue.records import new_ids
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest

_LEAST_EVENTS: Final = 100
_SUFFIXES: Final = 0x10000
"""Of a made-up id the last four hexadecimal digits are chosen so that it falls into its shard."""


def shard_of(text: str, shards: int) -> int:
    """The shard of a task id; also of what else decides where a task goes."""
    return zlib.crc32(text.encode()) % shards


def shard_config(config: QueueConfig, shard: int) -> QueueConfig:
    """The configuration of one shard: the queue's, with its part of the limits.

    Limits of tenants are not divided, because all tasks of a tenant go to one shard.
    """
    limits, shards = config.limits, config.shards
    rate = limits.rate
    if rate is not None:
        rate = rate.model_copy(update={"tasks": _part(rate.tasks, shards), "burst": _part(rate.burst, shards)})
    return config.model_copy(
        update={
            "name": f"{config.name}#{shard}",
            "shards": 1,
            "keep_events": max(_LEAST_EVENTS, _part(config.keep_events, shards) or 0),
            "limits": limits.model_copy(
                update={
                    "max_depth": _part(limits.max_depth, shards),
                    "concurrency": _part(limits.concurrency, shards),
                    "rate": rate,
                }
            ),
        }
    )


def made_up_ids(count: int, *, shard: int, shards: int) -> list[str]:
    """New ids that fall into the shard."""
    return [_with_suffix(task_id[:-4], shard, shards) for task_id in new_ids(count)]


def choose_shard(tasks: Sequence[TaskRequest], config: QueueConfig) -> int | None:
    """The shard of a batch; None if it may go to any.

    Own ids decide, else the tasks that are depended on, else the idempotency keys, else the tenant if tenants have
    limits. Raises InvalidTaskError if no shard suits the whole batch.
    """
    shards = config.shards
    own = {task.id for task in tasks if task.id is not None}
    parents = {parent for task in tasks for parent in task.depends_on if parent not in own}
    by_id = _one_shard(own, shards, field="id", what="ids", advice="submit them one by one, or leave the ids out")
    by_parent = _one_shard(
        parents,
        shards,
        field="dependsOn",
        what="tasks that are depended on",
        advice="submit all of them in one batch, or use a queue with one shard",
    )
    if by_id is not None and by_parent not in (None, by_id):
        raise InvalidTaskError(
            f"the id of a task falls into shard {by_id} of the queue {config.name!r}, but what it depends on is in "
            f"shard {by_parent}: leave the id out, then one is made up that fits",
            field="dependsOn",
        )
    if by_parent is not None:
        return by_parent
    by_key = _one_shard(
        {task.idempotency_key for task in tasks if task.idempotency_key is not None},
        shards,
        field="idempotencyKey",
        what="idempotency keys",
        advice="submit them one by one",
    )
    if by_id is not None:
        if by_key not in (None, by_id):
            raise InvalidTaskError(
                f"the id of a task falls into shard {by_id} of the queue {config.name!r}, its idempotency key into "
                f"shard {by_key}: leave one of the two out, either makes it safe to repeat the submission",
                field="idempotencyKey",
            )
        return by_id
    if by_key is not None:
        return by_key
    limits = config.limits.per_tenant
    if limits.rate is not None or limits.concurrency is not None:
        return next((shard_of(task.tenant, shards) for task in tasks if task.tenant is not None), None)
    return None


def _one_shard(names: Iterable[str], shards: int, *, field: str, what: str, advice: str) -> int | None:
    found = {shard_of(name, shards): name for name in sorted(names)}
    if len(found) > 1:
        (one, name), (other, other_name), *_ = sorted(found.items())
        raise InvalidTaskError(
            f"the {what} of the batch fall into several shards of the queue (for example {name!r} into {one} and "
            f"{other_name!r} into {other}), but a batch must go to one: {advice}",
            field=field,
        )
    return next(iter(found), None)


def _with_suffix(prefix: str, shard: int, shards: int) -> str:
    before = zlib.crc32(prefix.encode())
    start = random.randrange(_SUFFIXES)  # noqa: S311 - the rest of the id is what makes it unique
    for number in itertools.chain(range(start, _SUFFIXES), range(start)):
        suffix = f"{number:04x}"
        if zlib.crc32(suffix.encode(), before) % shards == shard:
            return prefix + suffix
    raise AssertionError(f"no id falls into shard {shard} of {shards}")


def _part(limit: int | None, shards: int) -> int | None:
    return None if limit is None else math.ceil(limit / shards)
