# SPDX-License-Identifier: Apache-2.0
"""Which waiting tasks have nobody: what the queue says, held against the Agents."""

from typing import Any

import pytest

from kubeagents_api.task import QueueStats
from kubeagents_operator.cache import Cache
from kubeagents_operator.keys import Key
from kubeagents_operator.reconcile.queues import has_central_agent, takers
from kubeagents_operator.status.routing import Takers, described
from kubeagents_operator.watched import BY_KIND, POD
from tests.unit.operator.objects import NAMESPACE, body, child_labels

AGENT, CENTRAL_AGENT = BY_KIND["Agent"], BY_KIND["CentralAgent"]


def stats(**targets: int) -> QueueStats:
    named = {target.replace("__", "/"): count for target, count in targets.items()}
    return QueueStats(
        queue="work",
        queued=sum(named.values()),
        running=0,
        scheduled=0,
        dead=0,
        succeeded_total=0,
        failed_total=0,
        unroutable=sum(named.values()),
        unroutable_targets=named,
    )


def test_an_agent_that_is_scaled_to_zero_will_take_its_tasks() -> None:
    takers = Takers(agents=frozenset({"echo"}), capabilities=frozenset({"ocr"}), instances=frozenset({"pod"}))

    assert takers.unroutable(stats(agent__echo=2, capability__ocr=1, instance__pod=1)) == {}


def test_what_no_agent_is_or_has_stays() -> None:
    takers = Takers(agents=frozenset({"ocr"}), capabilities=frozenset({"echo"}))

    assert takers.unroutable(stats(agent__echo=2, capability__ocr=1)) == {"agent/echo": 2, "capability/ocr": 1}


def test_a_long_list_is_cut() -> None:
    assert described({f"agent/a{n}": 1 for n in range(7)}).endswith('Agent "a4" and 2 more')


async def test_an_agent_takes_what_names_it_its_capabilities_or_its_pods() -> None:
    cache = Cache(changed=lambda key: None)
    cache.seen(AGENT, body("echo", spec={"queueRef": {"name": "work"}, "replicas": 0, "capabilities": ["ocr"]}))
    cache.seen(AGENT, body("elsewhere", spec={"queueRef": {"name": "other"}}))
    cache.seen(POD, body("echo-1", labels=child_labels("Agent", "echo"), status={"conditions": []}))

    found = takers(cache, Key("TaskQueue", NAMESPACE, "work"))

    assert found == Takers(frozenset({"echo"}), frozenset({"ocr"}), frozenset({"echo-1"}))


async def test_an_agent_that_is_being_deleted_takes_nothing_more() -> None:
    cache = Cache(changed=lambda key: None)
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    cache.seen(AGENT, body("echo", spec={"queueRef": {"name": "work"}}, metadata=metadata))

    assert takers(cache, Key("TaskQueue", NAMESPACE, "work")) == Takers()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"queueRefs": [{"name": "work"}]}, True),
        ({"queueRefs": [{"name": "work"}], "replicas": 0}, False),
        ({"queueRefs": [{"name": "other"}]}, False),
    ],
)
async def test_whether_a_central_agent_fires_the_schedules(spec: dict[str, Any], expected: bool) -> None:
    cache = Cache(changed=lambda key: None)
    cache.seen(CENTRAL_AGENT, body("front", spec=spec))

    assert has_central_agent(cache, Key("TaskQueue", NAMESPACE, "work")) is expected
