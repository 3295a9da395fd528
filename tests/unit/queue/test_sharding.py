# SPDX-License-Identifier: Apache-2.0
"""Which shard a task goes to."""

import pytest

from agent_runtime.queue.sharding import choose_shard, made_up_ids, shard_config, shard_of
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.limits import QueueLimits, RateLimit, TenantLimits
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest

PLAIN = QueueConfig(name="work", namespace="tests", url_env="URL", shards=4)
PER_TENANT = PLAIN.model_copy(update={"limits": QueueLimits(per_tenant=TenantLimits(concurrency=1))})


def test_a_shard_follows_from_the_id_and_never_changes() -> None:
    assert [shard_of("task-1", count) for count in (1, 2, 4, 64)] == [0, 1, 3, 47]


@pytest.mark.parametrize("shards", [2, 3, 64])
def test_made_up_ids_fall_where_they_shall_and_are_unique(shards: int) -> None:
    for shard in range(shards):
        ids = made_up_ids(50, shard=shard, shards=shards)
        assert {shard_of(task_id, shards) for task_id in ids} == {shard}
        assert len(set(ids)) == 50
        assert {len(task_id) for task_id in ids} == {32}


def test_what_decides_the_shard() -> None:
    assert choose_shard([TaskRequest()], PLAIN) is None
    assert choose_shard([TaskRequest(tenant="t")], PLAIN) is None
    assert choose_shard([TaskRequest(tenant="t")], PER_TENANT) == shard_of("t", 4)
    assert choose_shard([TaskRequest(tenant="t", idempotency_key="k")], PER_TENANT) == shard_of("k", 4)
    assert choose_shard([TaskRequest(depends_on=["p"], idempotency_key="k")], PER_TENANT) == shard_of("p", 4)
    assert choose_shard([TaskRequest(id="i", tenant="t")], PER_TENANT) == shard_of("i", 4)
    assert choose_shard([TaskRequest(id="i"), TaskRequest(depends_on=["i"])], PLAIN) == shard_of("i", 4)


def test_an_id_and_a_key_that_fall_apart_are_refused() -> None:
    assert shard_of("task-1", 4) != shard_of("key-1", 4)
    with pytest.raises(InvalidTaskError, match="leave one of the two out") as refused:
        choose_shard([TaskRequest(id="task-1", idempotency_key="key-1")], PLAIN)
    assert refused.value.field == "idempotencyKey"


def test_limits_are_divided_and_rounded_up() -> None:
    limits = QueueLimits(max_depth=10, concurrency=3, rate=RateLimit(tasks=5, burst=9))
    part = shard_config(PLAIN.model_copy(update={"limits": limits}), 2)
    assert (part.name, part.shards, part.keep_events) == ("work#2", 1, 2500)
    assert part.limits == QueueLimits(max_depth=3, concurrency=1, rate=RateLimit(tasks=2, burst=3))
    assert shard_config(PLAIN.model_copy(update={"keep_events": 100}), 0).keep_events == 100
