# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between the operator and the API server: the end state is right, and nothing is done twice."""

import pytest

from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.api_fault_proxy import Fault, Request
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer

CHILDREN = "deployments,services,serviceaccounts"

ONCE: dict[str, Fault] = {
    "conflict": Fault(status=409),
    "throttled": Fault(status=429, retry_after=1),
    "broken": Fault(status=500),
    "unavailable": Fault(status=503),
    "unauthorized": Fault(status=401),
    "dropped": Fault(drop=True),
    "lost": Fault(lose=True),
    "slow": Fault(delay=2),
}
"""Name of an Agent -> what becomes of the first try of each write for it."""


def setup(cluster: Cluster, namespace: str, redis: RedisServer, *agents: Object) -> None:
    cluster.apply(namespace, manifests.secret(redis.url), manifests.queue(), manifests.code(), *agents)


def available(cluster: Cluster, namespace: str, name: str) -> bool:
    """All children are there, and the status says it."""
    status = cluster.get(namespace, "agent", name).get("status", {})
    return any(c["type"] == "Available" and c["status"] == "True" for c in status.get("conditions", ()))


def test_each_write_may_fail_in_its_own_way(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    def fail_once(request: Request) -> Fault | None:
        if not request.of_work or request.tries > 1:
            return None
        return next((fault for name, fault in ONCE.items() if f"/{name}" in request.path), None)

    proxy = start_proxy()
    proxy.fault = fail_once
    operator = start_operator(kubeconfig=proxy.kubeconfig).leading()
    setup(cluster, namespace, redis_server, *(manifests.agent(name) for name in ONCE))

    for name in ONCE:
        eventually(lambda name=name: available(cluster, namespace, name), what=f"Agent {name} is available", timeout=60)  # type: ignore[misc]
    assert operator.leads(), "no fault of the API server is a reason to end"
    # The answer to the first try of `lost` was lost: its second one found what the first had made.
    assert set(proxy.created().values()) == {1}
    assert len(proxy.created()) == len(ONCE) * 3
    assert not [line for line in operator.lines if "traceback" in line]
