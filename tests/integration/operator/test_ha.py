# SPDX-License-Identifier: Apache-2.0
"""Several replicas of the operator: one writes, and another goes on when it ends, in whichever way it ends."""

from collections.abc import Callable

import pytest

from kubeagents_api.labels import STEP_DOWN
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.api_fault_proxy import ApiFaultProxy, Fault, Request
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.timeout(400)

LEASE = "kubeagents-operator"
LONG = {"KUBEAGENTS_LEASE_DURATION_SECONDS": "300"}
"""A Lease that does not run out while a test lasts."""

Replica = tuple[OperatorProcess, ApiFaultProxy]
Replicas = Callable[..., list[Replica]]


@pytest.fixture
def replicas(start_operator: StartOperator, start_proxy: StartProxy) -> Replicas:
    """Starts so many, each behind a proxy of its own; the first one leads."""

    def start(count: int, **environment: str) -> list[Replica]:
        found: list[Replica] = []
        for number in range(1, count + 1):
            proxy = start_proxy()
            process = start_operator(f"operator-{number}", kubeconfig=proxy.kubeconfig, **environment)
            found.append((process.leading() if number == 1 else process, proxy))
        return found

    return start


@pytest.fixture
def applied(cluster: Cluster, namespace: str, redis_server: RedisServer) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), manifests.agent())


def deployed(cluster: Cluster, namespace: str, *, replicas: int = 1) -> bool:
    found = cluster.objects(namespace, "deployments")
    return [one["spec"]["replicas"] for one in found] == [replicas]


def scale(cluster: Cluster, namespace: str, replicas: int) -> None:
    cluster.kubectl("-n", namespace, "scale", "agent/worker", f"--replicas={replicas}")


def settled(cluster: Cluster, namespace: str, *, replicas: int) -> None:
    """The Agent is as it should be, and its status says so."""

    def there() -> bool:
        agent = cluster.get(namespace, "agent", "worker")
        status = agent.get("status", {})
        return (
            deployed(cluster, namespace, replicas=replicas)
            and status.get("observedGeneration") == agent["metadata"]["generation"]
            and status.get("readyReplicas") == replicas
        )

    eventually(there, what=f"the Agent has {replicas} replicas, and its status says so")


def holder(cluster: Cluster, namespace: str) -> str:
    return str(cluster.get(namespace, "lease", LEASE)["spec"].get("holderIdentity") or "")


@pytest.mark.usefixtures("applied")
def test_of_three_replicas_one_writes_and_each_object_is_created_once(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    (_, leader), *standby = replicas(3)
    settled(cluster, namespace, replicas=1)

    assert set(leader.created().values()) == {1}
    assert [proxy.written() for _, proxy in standby] == [[], []]


def test_when_the_leader_is_killed_another_one_goes_on(
    cluster: Cluster, namespace: str, replicas: Replicas, request: pytest.FixtureRequest
) -> None:
    """It is killed in the middle: of the Agent's children, some are there and some are not."""
    (first, before), (second, after) = replicas(2)

    def killed() -> bool:
        return first.running.poll() is not None

    before.fault = lambda request: Fault(before=first.running.kill, drop=True) if _is_deployment(request) else None
    request.getfixturevalue("applied")
    eventually(killed, what="the first replica is killed")
    settled(cluster, namespace, replicas=1)

    assert second.leads()
    assert set((before.created() + after.created()).values()) == {1}


def _is_deployment(request: Request) -> bool:
    return request.of_work and request.plural == "deployments"


@pytest.mark.usefixtures("applied")
def test_a_leader_that_is_stopped_in_order_hands_over_at_once(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    (first, before), (second, after) = replicas(2, **LONG)
    settled(cluster, namespace, replicas=1)

    assert first.stop() == 0
    second.leading()  # long before the Lease would have run out
    scale(cluster, namespace, 2)
    settled(cluster, namespace, replicas=2)
    assert not [one for one in after.created() if one in before.created()]


@pytest.mark.usefixtures("applied")
def test_a_leader_that_is_stopped_in_order_finishes_its_write_before_it_hands_over(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    ((first, proxy),) = replicas(1, **LONG)
    settled(cluster, namespace, replicas=1)
    held: list[Request] = []
    holders: list[str] = []

    def hold(request: Request) -> Fault | None:
        if not _is_deployment(request):
            return None
        held.append(request)
        return Fault(delay=1, after=lambda: holders.append(holder(cluster, namespace)))

    proxy.fault = hold
    scale(cluster, namespace, 2)
    eventually(lambda: held, what="the write is under way")

    assert first.stop() == 0
    assert held[0].status == 200
    assert holders == [first.instance], "it had the Lease still"
    assert holder(cluster, namespace) == ""


@pytest.mark.usefixtures("applied")
def test_a_leader_that_is_asked_to_step_down_lets_another_lead_and_stands_by(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    (first, _), (second, _) = replicas(2, **LONG)
    settled(cluster, namespace, replicas=1)

    term = cluster.get(namespace, "lease", LEASE)["spec"]["leaseTransitions"]
    cluster.kubectl("-n", namespace, "annotate", "lease", LEASE, f"{STEP_DOWN}={term}")
    first.exit_code()
    first.start()  # as the kubelet does
    second.leading()
    first.ready()

    assert not first.leads()
    scale(cluster, namespace, 2)
    settled(cluster, namespace, replicas=2)
    assert holder(cluster, namespace) == second.instance


@pytest.mark.usefixtures("applied")
def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes_up(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    (first, before), (second, _) = replicas(2)
    settled(cluster, namespace, replicas=1)

    first.freeze()
    scale(cluster, namespace, 2)  # the first one has this event in its socket when it wakes up
    second.leading()
    settled(cluster, namespace, replicas=2)
    scale(cluster, namespace, 3)
    settled(cluster, namespace, replicas=3)
    written = len(before.written())
    first.thaw()

    assert first.exit_code() == 1
    assert before.written()[written:] == []
    assert first.logged("another replica leads")
    settled(cluster, namespace, replicas=3)


@pytest.mark.usefixtures("applied")
def test_a_write_of_a_former_leader_that_arrives_late_is_put_right(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    """What no lease can prevent: the request was sent in time, and held up on its way to the API server."""
    (first, before), (second, _) = replicas(2)
    settled(cluster, namespace, replicas=1)
    held: list[Request] = []

    def hold(request: Request) -> Fault | None:
        if not _is_deployment(request):
            return None
        held.append(request)
        return Fault(delay=15)

    before.fault = hold
    scale(cluster, namespace, 2)
    eventually(lambda: held, what="the first replica scales to 2")
    first.freeze()
    second.leading()
    scale(cluster, namespace, 3)
    settled(cluster, namespace, replicas=3)
    eventually(lambda: held[0].status == 200, what="the late write has arrived")

    settled(cluster, namespace, replicas=3)
    first.thaw()
    assert first.exit_code() == 1


@pytest.mark.usefixtures("applied")
def test_a_leader_that_is_cut_off_from_the_api_server_ends_and_another_one_goes_on(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    (first, before), (second, after) = replicas(2)
    settled(cluster, namespace, replicas=1)

    before.fault = lambda request: Fault(drop=True)
    before.cut()
    assert first.exit_code() == 1
    second.leading()
    scale(cluster, namespace, 2)
    settled(cluster, namespace, replicas=2)
    assert not [one for one in after.created() if one in before.created()]


@pytest.mark.usefixtures("applied")
def test_a_leader_that_cannot_renew_its_lease_stops_writing_before_another_one_begins(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    """Only the Lease is out of reach: everything else that it tries would succeed."""
    (first, before), (second, after) = replicas(2)
    settled(cluster, namespace, replicas=1)

    before.fault = lambda request: Fault(status=503) if request.plural == "leases" else None
    for count in (2, 3, 2, 3):
        scale(cluster, namespace, count)
        settled(cluster, namespace, replicas=count)
    assert first.exit_code() == 1
    second.leading()
    scale(cluster, namespace, 2)
    settled(cluster, namespace, replicas=2)
    assert not [one for one in after.created() if one in before.created()]


@pytest.mark.usefixtures("applied")
def test_pages_of_a_load_balancer_in_place_of_answers_do_not_end_a_term_that_can_be_renewed(
    cluster: Cluster, namespace: str, replicas: Replicas
) -> None:
    ((operator, proxy),) = replicas(1, KUBEAGENTS_LEASE_DURATION_SECONDS="15")
    settled(cluster, namespace, replicas=1)
    pages: list[Request] = []

    def page(request: Request) -> Fault | None:
        if request.plural != "leases" or len(pages) == 2:
            return None
        pages.append(request)
        return Fault(status=200 if pages[1:] else 502, page="<html>This is fine</html>")

    proxy.fault = page
    eventually(lambda: len(pages) == 2, what="two renewals met a page")
    before = cluster.get(namespace, "lease", LEASE)["spec"]
    eventually(
        lambda: cluster.get(namespace, "lease", LEASE)["spec"]["renewTime"] > before["renewTime"], what="another"
    )

    assert operator.leads()
    assert cluster.get(namespace, "lease", LEASE)["spec"]["leaseTransitions"] == before["leaseTransitions"]


@pytest.mark.parametrize("renewed", ["1999-12-31T23:59:59.000000Z", "2099-12-31T23:59:59.000000Z"])
def test_the_clock_of_another_replica_does_not_matter(
    cluster: Cluster, namespace: str, start_operator: StartOperator, renewed: str
) -> None:
    """It has died, and its clock was wrong by decades."""
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 3, "leaseTransitions": 4, "renewTime": renewed}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE}, "spec": spec}
    cluster.apply(namespace, body)

    start_operator().leading()

    assert cluster.get(namespace, "lease", LEASE)["spec"]["leaseTransitions"] == 5
