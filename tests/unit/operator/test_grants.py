# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.cache import Cache
from kubeagents_operator.desired import agent
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile.grants import granted
from kubeagents_operator.reconcile.queues import has_central_agent, takers, thresholds
from kubeagents_operator.reconcile.replicas import sharers
from kubeagents_operator.watched import CUSTOM
from tests.unit.operator.objects import DEFAULTS, NAMESPACE, access, agent_spec, body, owner

QUEUE = Key("TaskQueue", NAMESPACE, "work")


def queue(*, deleting: bool = False, **spec: Any) -> Custom:
    return Custom(QUEUE, "uid", 1, 1, deleting, spec, {}, {}, created="")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (queue(allowedNamespaces=["guests"]), True),
        (queue(allowedNamespaces=["*"]), True),
        (queue(allowedNamespaces=["others"]), False),
        (queue(allowedNamespaces=[]), False),
        (queue(), False),
        (queue(allowedNamespaces="*"), False),
        (queue(allowedNamespaces=["guests"], deleting=True), False),
        (None, False),
    ],
)
def test_only_what_the_queue_itself_names_is_granted(known: Custom | None, expected: bool) -> None:
    assert granted(known, "guests") is expected


@pytest.mark.parametrize("allowed", [[], ["guests"]])
async def test_users_without_a_grant_do_not_count(allowed: list[str]) -> None:
    cache = Cache(changed=lambda key: None)
    kinds = {resource.kind: resource for resource in CUSTOM}
    elsewhere = {"namespace": "guests"}
    ref = {"name": "work", "namespace": NAMESPACE}
    cache.seen(kinds["TaskQueue"], body("work", spec={"allowedNamespaces": allowed}))
    cache.seen(
        kinds["Agent"],
        body("guest", spec={"queueRef": ref, "capabilities": ["ocr"], "heartbeatSeconds": 7}, metadata=elsewhere),
    )
    cache.seen(
        kinds["CentralAgent"],
        body("front", spec={"queueRefs": [ref], "agentTimeoutSeconds": 99}, metadata=elsewhere),
    )

    assert has_central_agent(cache, QUEUE) is bool(allowed)
    assert takers(cache, QUEUE).agents == ({"guest"} if allowed else set())
    assert thresholds(cache, QUEUE) == ({21.0, 99.0} if allowed else {15.0})
    assert [one.name for one in sharers(cache, QUEUE)] == (["guest"] if allowed else []), "none keeps tasks for it"


def test_the_urls_of_foreign_queues_are_a_secret_of_the_user_and_no_part_of_what_is_shown() -> None:
    inputs = agent.AgentInputs(
        owner(), agent_spec(), TaskQueueSpec(), access(of="echo-agent"), replicas=1, urls={"queue-0": "aGlkZGVu"}
    )
    secret = next(one for one in agent.children(inputs, DEFAULTS) if one["kind"] == "Secret")

    assert secret["metadata"]["name"] == "echo-agent"
    assert secret["data"] == {"queue-0": "aGlkZGVu"}
    assert "aGlkZGVu" not in repr(inputs)
