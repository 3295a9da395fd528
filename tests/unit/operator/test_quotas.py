# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.agent import AgentSpec
from kubeagents_api.conditions import Reason
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.cache import Cache
from kubeagents_operator.keys import Key
from kubeagents_operator.quotas import Allowance, Quota, Quotas
from kubeagents_operator.watched import BY_KIND
from tests.unit.operator import objects


class Namespace:
    """A namespace with Agents and queues, reconciled by hand."""

    def __init__(self, **quota: Any) -> None:
        self.poked: list[str] = []
        self.cache = Cache(changed=lambda key: None)
        self.quotas = Quotas(
            {objects.NAMESPACE: Quota.model_validate(quota)},
            self.cache,
            changed=lambda key: self.poked.append(key.name),
        )
        self.versions = 0

    def apply(self, kind: str, name: str, *, at: int = 0, uid: str | None = None, **spec: Any) -> Key:
        self.versions += 1
        created = f"2026-01-01T00:00:{at:02}Z"
        body = objects.body(
            name, version=self.versions, uid=uid, metadata={"creationTimestamp": created}, spec=self.spec(kind, spec)
        )
        self.cache.seen(BY_KIND[kind], body)
        return Key(kind, objects.NAMESPACE, name)

    def spec(self, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        if kind == "TaskQueue":
            return {"redis": {"managed": {}}, **spec}
        return {"queueRef": {"name": "work"}, "handler": "echo:handle", "replicas": 1, **spec}

    def child(self, agent: str) -> None:
        """The Agent has been given something by an operator of before."""
        self.versions += 1
        labels = objects.child_labels("Agent", agent)
        reference = {"kind": "Agent", "name": agent, "uid": f"uid-{agent}", "controller": True}
        body = objects.body(
            f"{agent}-agent", version=self.versions, labels=labels, metadata={"ownerReferences": [reference]}
        )
        self.cache.seen(BY_KIND["Service"], body)

    def deployment(self, agent: str, *, uid: str, replicas: int) -> None:
        """What an operator of before has given the Agent."""
        self.versions += 1
        labels = objects.child_labels("Agent", agent)
        reference = {"kind": "Agent", "name": agent, "uid": uid, "controller": True}
        metadata = {"ownerReferences": [reference]}
        spec = {"replicas": replicas}
        body = objects.body(f"{agent}-agent", version=self.versions, labels=labels, metadata=metadata, spec=spec)
        self.cache.seen(BY_KIND["Deployment"], body)

    def allow(self, name: str) -> Allowance:
        custom = self.cache.custom(Key("Agent", objects.NAMESPACE, name))
        assert custom is not None
        return self.quotas.allow(custom, AgentSpec.model_validate(custom.spec))

    def took(self, name: str, replicas: int) -> None:
        self.quotas.took(Key("Agent", objects.NAMESPACE, name), replicas)

    def delete(self, key: Key) -> None:
        self.versions += 1
        self.cache.deleted(BY_KIND[key.kind], objects.body(key.name, version=self.versions))
        self.quotas.forget(key)


def refused(allowance: Allowance) -> bool:
    return allowance.refusal is not None and allowance.refusal.reason is Reason.QUOTA_EXCEEDED


async def test_without_a_quota_everything_is_allowed() -> None:
    here = Namespace()
    here.apply("Agent", "a", replicas=5000)

    allowance = here.allow("a")

    assert (allowance.spec.replicas, allowance.excess, allowance.refusal) == (5000, None, None)


async def test_the_oldest_agents_are_within_the_quota_whatever_the_order_of_reconciles() -> None:
    here = Namespace(agents=2)
    for name, at in (("young", 3), ("old", 1), ("middle", 2)):
        here.apply("Agent", name, at=at)

    assert refused(here.allow("young"))
    assert not refused(here.allow("middle"))
    assert not refused(here.allow("old"))
    assert refused(here.allow("young"))


async def test_agents_of_the_same_second_are_told_apart_by_their_uids() -> None:
    here = Namespace(agents=1)
    here.apply("Agent", "a", uid="2")
    here.apply("Agent", "b", uid="1")

    assert [refused(here.allow(name)) for name in ("a", "b", "a", "b")] == [True, False, True, False]


async def test_an_agent_that_has_something_is_not_displaced() -> None:
    here = Namespace(agents=1)
    here.apply("Agent", "first", uid="2")
    assert not refused(here.allow("first"))
    here.apply("Agent", "second", uid="1")  # in the same second

    assert refused(here.allow("second"))
    assert not refused(here.allow("first"))


async def test_an_agent_that_had_something_before_a_restart_of_the_operator_is_not_displaced() -> None:
    here = Namespace(agents=1)
    here.apply("Agent", "older", at=1)
    here.apply("Agent", "served", at=2)
    here.child("served")

    assert refused(here.allow("older"))
    assert not refused(here.allow("served"))


async def test_when_the_quota_was_lowered_the_youngest_go_down_to_no_replicas_and_keep_their_children() -> None:
    here = Namespace(agents=1)
    for name, at in (("old", 1), ("young", 2)):
        here.apply("Agent", name, at=at, replicas=3)
        here.child(name)

    allowance = here.allow("young")

    assert allowance.refusal is None
    assert allowance.spec.replicas == 0
    assert allowance.excess is not None
    assert allowance.excess.reason is Reason.QUOTA_EXCEEDED
    assert "may have 1 Agent, and others come first" in allowance.excess.message
    assert here.allow("old").excess is None


async def test_when_one_goes_those_behind_it_are_reconciled_again() -> None:
    here = Namespace(agents=1)
    old = here.apply("Agent", "old", at=1)
    here.apply("Agent", "young", at=2)
    here.allow("old")
    assert refused(here.allow("young"))
    here.poked.clear()

    here.delete(old)

    assert here.poked == ["young"]
    assert not refused(here.allow("young"))


async def test_replicas_are_given_out_in_the_order_of_age() -> None:
    here = Namespace(replicas=5)
    for name, at, replicas in (("old", 1, 2), ("middle", 2, 2), ("young", 3, 4)):
        here.apply("Agent", name, at=at, replicas=replicas)

    # The youngest is reconciled first, and gets no more than the others leave.
    allowance = here.allow("young")
    assert allowance.spec.replicas == 1
    assert allowance.excess is not None
    assert "may have 5 replicas together, which leaves 1 for this one" in allowance.excess.message
    assert allowance.refusal is None
    assert [here.allow(name).spec.replicas for name in ("old", "middle", "young")] == [2, 2, 1]


async def test_nobody_is_displaced_by_one_that_was_created_later_in_the_same_second() -> None:
    here = Namespace(replicas=5)
    here.apply("Agent", "first", uid="z", replicas=3)
    here.allow("first")
    here.took("first", 3)
    here.apply("Agent", "second", uid="a", replicas=4)

    assert here.allow("second").spec.replicas == 2
    assert here.allow("first").spec.replicas == 3

    again = Namespace(replicas=5)
    for name, uid, asked, has in (("first", "z", 3, 3), ("second", "a", 4, 2)):
        again.apply("Agent", name, uid=uid, replicas=asked)
        again.deployment(name, uid=uid, replicas=has)
    assert again.allow("second").spec.replicas == 2, "the same after a restart"
    assert again.allow("first").spec.replicas == 3


async def test_those_behind_are_reconciled_again_when_an_older_one_needs_another_amount() -> None:
    here = Namespace(replicas=5)
    here.apply("Agent", "old", at=1, replicas=4)
    here.apply("Agent", "young", at=2, replicas=4)
    here.allow("old")
    assert here.allow("young").spec.replicas == 1
    here.poked.clear()

    here.apply("Agent", "old", at=1, replicas=2)
    here.allow("old")
    here.took("old", 2)
    assert here.poked == ["young"]
    assert here.allow("young").spec.replicas == 3

    here.apply("Agent", "old", at=1, replicas=9)
    assert here.allow("old").spec.replicas == 5
    assert here.poked == ["young", "young"]
    assert here.allow("young").spec.replicas == 0

    here.apply("Agent", "old", at=1, replicas=9, suspend=True)
    here.allow("old")
    here.took("old", 0)
    assert here.allow("young").spec.replicas == 4


async def test_replicas_that_still_finish_their_tasks_are_not_given_to_others() -> None:
    here = Namespace(replicas=5)
    here.apply("Agent", "old", at=1, replicas=4)
    here.apply("Agent", "young", at=2, replicas=4)
    here.allow("old")
    here.took("old", 4)
    assert here.allow("young").spec.replicas == 1

    here.apply("Agent", "old", at=1, replicas=1)
    here.allow("old")
    assert here.allow("young").spec.replicas == 1, "it is not known yet which of them are busy"
    here.took("old", 3)
    assert here.allow("young").spec.replicas == 2
    here.took("old", 1)
    assert here.allow("young").spec.replicas == 4


async def test_nothing_is_kept_of_a_namespace_without_custom_resources() -> None:
    here = Namespace(replicas=5, tasksPerSecond=5)
    agent, queue = here.apply("Agent", "echo"), here.apply("TaskQueue", "work")
    here.allow("echo")
    here.quotas.seen(queue)

    here.delete(agent)
    here.delete(queue)

    assert not here.quotas._orders
    assert not here.quotas._queues


async def test_an_autoscaled_agent_leaves_what_it_has_not_taken() -> None:
    here = Namespace(replicas=10)
    here.apply("Agent", "scaled", at=1, autoscaling={"minReplicas": 0, "maxReplicas": 50})
    here.apply("Agent", "young", at=2, replicas=10)
    scaling = here.allow("scaled").spec.autoscaling
    assert scaling is not None
    assert scaling.max_replicas == 10
    assert here.allow("scaled").excess is None
    assert here.allow("young").spec.replicas == 10
    here.poked.clear()

    here.took("scaled", 6)

    assert here.poked == ["young"]
    assert here.allow("young").spec.replicas == 4


async def test_the_fewest_replicas_of_an_autoscaled_agent_are_cut_too() -> None:
    here = Namespace(replicas=1)
    here.apply("Agent", "scaled", autoscaling={"minReplicas": 3, "maxReplicas": 5})

    allowance = here.allow("scaled")

    assert allowance.spec.autoscaling is not None
    assert (allowance.spec.autoscaling.min_replicas, allowance.spec.autoscaling.max_replicas) == (1, 1)
    assert allowance.excess is not None


async def test_a_namespace_that_is_not_named_has_the_quota_for_all_others() -> None:
    cache = Cache(changed=lambda key: None)
    quotas = Quotas({"*": Quota(agents=0), "shop": Quota()}, cache, changed=lambda key: None)
    here = Namespace()
    custom = here.cache.custom(here.apply("Agent", "a"))
    assert custom is not None

    assert quotas.allow(custom, objects.agent_spec()).excess is None, "shop has a quota of its own, without limits"


async def test_queues_share_what_their_namespace_may_start() -> None:
    here = Namespace(tasksPerSecond=90)
    spec = TaskQueueSpec()
    here.quotas.seen(here.apply("TaskQueue", "a"))
    assert _rate(here, spec) == pytest.approx(90)
    here.poked.clear()

    b = here.apply("TaskQueue", "b")
    here.quotas.seen(b)
    assert sorted(here.poked) == ["a", "b"]
    assert _rate(here, spec) == pytest.approx(45)

    here.delete(b)
    assert _rate(here, spec) == pytest.approx(90)


async def test_a_queue_that_limits_itself_to_less_keeps_its_own_limit() -> None:
    here = Namespace(tasksPerSecond=10)
    here.apply("TaskQueue", "a")
    own = TaskQueueSpec.model_validate({"limits": {"rate": {"tasks": 60, "perSeconds": 60, "burst": 7}, "maxDepth": 3}})
    more = TaskQueueSpec.model_validate({"limits": {"rate": {"tasks": 60}, "maxDepth": 3}})

    assert here.quotas.limited(objects.NAMESPACE, own) == own
    assert _rate(here, more) == pytest.approx(10)
    assert here.quotas.limited(objects.NAMESPACE, more).limits.max_depth == 3


@pytest.mark.parametrize("tasks_per_second", [0.001, 0.3, 1, 2.5, 1000])
async def test_a_rate_may_be_any_number(tasks_per_second: float) -> None:
    here = Namespace(tasksPerSecond=tasks_per_second)
    here.apply("TaskQueue", "a")

    assert _rate(here, TaskQueueSpec()) == pytest.approx(tasks_per_second)


def _rate(here: Namespace, spec: TaskQueueSpec) -> float:
    rate = here.quotas.limited(objects.NAMESPACE, spec).limits.rate
    assert rate is not None
    return rate.tasks / rate.per_seconds
