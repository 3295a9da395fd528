# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between the operator and the API server: the end state is right, and nothing is done twice."""

import random
import time
from collections import Counter
from functools import partial

import pytest

from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.api_fault_proxy import Fault, Request
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.timeout(400)

PATIENT = {"KUBEAGENTS_LEASE_DURATION_SECONDS": "60"}
"""The only replica keeps its Lease, however busy the machine is."""

ONCE: dict[str, Fault] = {
    "conflict": Fault(status=409),
    "throttled": Fault(status=429, retry_after=1),
    "broken": Fault(status=500),
    "unavailable": Fault(status=503),
    "gateway": Fault(status=502, page="<html>Bad Gateway</html>"),
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
        return next((fault for name, fault in ONCE.items() if f"/{name}" in request.target), None)

    proxy = start_proxy()
    proxy.fault = fail_once
    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    setup(cluster, namespace, redis_server, *(manifests.agent(name) for name in ONCE))

    for name in ONCE:
        eventually(partial(available, cluster, namespace, name), what=f"Agent {name} is available", timeout=60)
    assert operator.leads(), "no fault of the API server is a reason to end"
    # The answer to the first try of `lost` was lost: its second one found what the first had made.
    assert set(proxy.created().values()) == {1}
    assert len(proxy.created()) >= len(ONCE) * 3
    assert not [line for line in operator.lines if "traceback" in line]


STORM = [*ONCE.values(), Fault(status=429), Fault(status=504), Fault(status=401, page="<html>Log in</html>")]
"""What becomes of requests in a storm."""
IN_A_ROW = 2
"""How often at most the same request is struck. The delay of an object doubles with each failure until all of it has
succeeded once: with four requests struck so often each, eight times, that is up to two minutes and a half."""
PATIENCE = 300.0


@pytest.mark.timeout(900)
def test_in_a_storm_of_refusals_every_change_arrives_and_nothing_is_done_twice(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    """Each second request fails, reads and watches included, in one way or another; those for the Lease do not."""
    names = [f"agent-{number}" for number in range(6)]
    dice = random.Random(5)
    proxy = start_proxy()
    struck: Counter[tuple[str, str]] = Counter()

    def strike(request: Request) -> Fault | None:
        if f"/namespaces/{namespace}/" not in request.path or request.plural == "leases":
            return None
        what = request.method, request.target
        if struck[what] == IN_A_ROW or dice.random() >= 0.62:  # that makes half of them
            struck[what] = 0
            return None
        struck[what] += 1
        return dice.choice(STORM)

    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    proxy.fault = strike
    setup(cluster, namespace, redis_server, *(manifests.agent(name) for name in names))
    for name in names:
        eventually(partial(available, cluster, namespace, name), what=f"{name} is available", timeout=PATIENCE)
    before = {one["metadata"]["uid"] for one in cluster.objects(namespace, "pods")}

    for name in names:
        cluster.kubectl("-n", namespace, "scale", f"agent/{name}", "--replicas=2")
    proxy.end_watches(code=410)

    def scaled() -> bool:
        found = cluster.objects(namespace, "deployments")
        return [one["status"].get("readyReplicas") for one in found] == [2] * len(names)

    eventually(scaled, what="each has two replicas", timeout=PATIENCE)
    assert {one["metadata"]["generation"] for one in cluster.objects(namespace, "deployments")} == {2}, "scaled once"
    assert before <= {one["metadata"]["uid"] for one in cluster.objects(namespace, "pods")}, "no pod was replaced"
    assert set(proxy.created().values()) == {1}
    assert operator.leads()
    assert not [line for line in operator.lines if "traceback" in line]


def test_an_object_is_left_alone_for_as_long_as_the_api_server_says(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()
    tries: list[float] = []

    def throttle(request: Request) -> Fault | None:
        if request.plural != "deployments" or not request.of_work:
            return None
        tries.append(time.monotonic())
        return Fault(status=429, retry_after=6) if len(tries) == 1 else None

    proxy.fault = throttle
    start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    setup(cluster, namespace, redis_server, manifests.agent())
    eventually(lambda: tries, what="the first try")
    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")  # a reason to look again at once

    eventually(lambda: len(tries) > 1, what="the second try")
    assert tries[1] - tries[0] >= 6
    eventually(lambda: available(cluster, namespace, "worker"), what="the Agent is available")


AT_THE_START: dict[str, Fault] = {
    "agents": Fault(status=504),
    "taskqueues": Fault(status=500),
    "centralagents": Fault(delay=2),
    "deployments": Fault(status=403),
    "services": Fault(status=503, retry_after=1),
    "secrets": Fault(status=429, retry_after=1),
    "configmaps": Fault(drop=True),
    "pods": Fault(status=401),
    "statefulsets": Fault(status=410),
    "serviceaccounts": Fault(status=200, page="<html>This is fine</html>"),
    "roles": Fault(status=200, page="[]\n"),
    "rolebindings": Fault(status=400),
    "poddisruptionbudgets": Fault(status=200, page="null"),
}
"""Plural of a resource -> what becomes of the first LISTs and watches of it."""


def test_each_list_and_each_watch_may_fail_in_its_own_way(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()

    def fail_twice(request: Request) -> Fault | None:
        if request.method != "GET" or not request.path.endswith(f"/namespaces/{namespace}/{request.plural}"):
            return None
        # The first LIST, and the first watch of those that are listed then.
        return AT_THE_START.get(request.plural) if request.tries in (1, 3) else None

    proxy.fault = fail_twice
    setup(cluster, namespace, redis_server, manifests.agent())
    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()

    eventually(lambda: available(cluster, namespace, "worker"), what="the Agent is available", timeout=60)
    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")
    eventually(lambda: ready(cluster, namespace) == 2, what="two replicas, and the status says so", timeout=60)
    assert operator.leads()
    assert set(proxy.created().values()) == {1}


def ready(cluster: Cluster, namespace: str) -> int:
    return int(cluster.get(namespace, "agent", "worker").get("status", {}).get("readyReplicas") or 0)


@pytest.mark.parametrize("code", [410, 500])
def test_what_happened_while_the_watches_were_broken_is_found_by_listing_again(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_proxy: StartProxy,
    code: int,
) -> None:
    """They end with an error in the stream: too old a resourceVersion, or a storage that has lost its leader."""
    proxy = start_proxy()
    setup(cluster, namespace, redis_server, manifests.agent(), manifests.agent("other"))
    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    for name in ("worker", "other"):
        eventually(partial(available, cluster, namespace, name), what=f"{name} is available")

    proxy.stall()
    cluster.kubectl("-n", namespace, "delete", "service/worker-agent")
    cluster.kubectl("-n", namespace, "delete", "agent/other")
    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")
    proxy.flow()
    proxy.end_watches(code=code)

    eventually(lambda: ready(cluster, namespace) == 2, what="two replicas, and the status says so", timeout=60)
    eventually(lambda: "service/worker-agent" in services(cluster, namespace), what="the Service is there again")
    eventually(
        lambda: operator.metric("kubeagents_operator_custom_resources") == 2, what="the other Agent is forgotten"
    )
    assert operator.leads()


def services(cluster: Cluster, namespace: str) -> str:
    return cluster.kubectl("-n", namespace, "get", "services", "-o", "name")


def test_a_watch_that_stalls_without_an_end_is_noticed(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    """Its connection is up and nothing comes through, as behind a load balancer that has forgotten it. The API server
    sends a bookmark each minute; a stream without any for longer is opened anew, from where it was."""
    proxy = start_proxy()
    setup(cluster, namespace, redis_server, manifests.agent())
    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    eventually(lambda: available(cluster, namespace, "worker"), what="the Agent is available")

    proxy.stall()
    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")
    eventually(lambda: len(proxy.stalled) > 0, what="an event is swallowed")
    proxy.flow()

    eventually(lambda: ready(cluster, namespace) == 2, what="two replicas, and the status says so", timeout=120)
    assert operator.leads()
    assert operator.metric("kubeagents_operator_api_writes_total", kind="Deployment") == 2, "made, and scaled once"


def test_a_child_that_is_forbidden_for_a_moment_is_made_later(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()
    proxy.fault = lambda request: Fault(status=403) if request.plural == "deployments" and request.of_work else None
    setup(cluster, namespace, redis_server, manifests.agent())
    start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()
    cluster.wait(namespace, "agent/worker", "condition=Stalled")
    assert "the proxy of the test answers 403" in cluster.kubectl("-n", namespace, "get", "agent/worker", "-o", "yaml")

    proxy.fault = lambda request: None
    eventually(lambda: available(cluster, namespace, "worker"), what="the Agent is available", timeout=60)


def test_a_status_that_is_forbidden_for_a_moment_is_written_later(
    cluster: Cluster, namespace: str, redis_server: RedisServer, start_operator: StartOperator, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()
    proxy.fault = lambda request: Fault(status=403) if request.path.endswith("/status") and request.tries < 4 else None
    setup(cluster, namespace, redis_server, manifests.agent())
    operator = start_operator(kubeconfig=proxy.kubeconfig, **PATIENT).leading()

    eventually(lambda: available(cluster, namespace, "worker"), what="the Agent is available", timeout=60)
    assert not [line for line in operator.lines if "traceback" in line], "that is no defect"
