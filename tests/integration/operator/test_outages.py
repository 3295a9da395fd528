# SPDX-License-Identifier: Apache-2.0
"""The API server goes away and comes back. These tests break it, so they have one of their own."""

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.api_fault_proxy import Fault
from tests.support.cluster import Cluster
from tests.support.control_plane import running_control_plane
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.xdist_group("outages"), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def control_plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for this module, if there can be any."""
    with running_control_plane(tmp_path_factory.mktemp("outages"), nodes=1) as plane:
        yield plane


@pytest.fixture
def applied(cluster: Cluster, namespace: str, redis_server: RedisServer) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), manifests.agent())


def scale(cluster: Cluster, namespace: str, replicas: int) -> None:
    cluster.kubectl("-n", namespace, "scale", "agent/worker", f"--replicas={replicas}")


def settled(cluster: Cluster, namespace: str, *, replicas: int) -> None:
    """The operator has done its part. Whether pods come is up to controllers that the outage has hit as well."""

    def there() -> bool:
        agent = cluster.get(namespace, "agent", "worker")
        return bool(
            cluster.get(namespace, "deployment", "worker-agent")["spec"]["replicas"] == replicas
            and agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
            and agent["status"]["desiredReplicas"] == replicas
        )

    eventually(lambda: cluster.objects(namespace, "deployments"), what="a Deployment")
    eventually(there, what=f"{replicas} replicas are wanted, and the status says so", timeout=60)


@pytest.mark.usefixtures("applied")
def test_a_restart_of_the_api_server_is_survived_by_the_leader(
    cluster: Cluster, namespace: str, control_plane: ControlPlane, start_operator: StartOperator
) -> None:
    operator = start_operator(KUBEAGENTS_LEASE_DURATION_SECONDS="60").leading()
    settled(cluster, namespace, replicas=1)
    written = operator.metric("kubeagents_operator_api_writes_total", kind="Deployment")

    control_plane.stop_api_server()
    control_plane.start_api_server()
    scale(cluster, namespace, 2)

    settled(cluster, namespace, replicas=2)
    assert operator.leads()
    assert operator.metric("kubeagents_operator_api_writes_total", kind="Deployment") == written + 1, "scaled once"


@pytest.mark.usefixtures("applied")
def test_an_operator_whose_lease_ran_out_while_the_api_server_was_away_begins_anew_and_writes_nothing_twice(
    cluster: Cluster, namespace: str, control_plane: ControlPlane, start_operator: StartOperator
) -> None:
    operator = start_operator(KUBEAGENTS_LEASE_DURATION_SECONDS="3").leading()
    settled(cluster, namespace, replicas=1)
    control_plane.stop_api_server()
    try:
        assert operator.exit_code() == 1
        assert operator.logged("the Lease is lost")
        operator.start()  # as the kubelet does, whether the API server is there or not
        eventually(lambda: operator.logged("cannot be reached"), what="it waits for the API server")
        assert operator.get("/healthz").status_code == 200, "that the API server is away is no reason to restart"
    finally:
        control_plane.start_api_server()

    operator.ready().leading()
    scale(cluster, namespace, 2)
    settled(cluster, namespace, replicas=2)
    assert operator.metric("kubeagents_operator_api_writes_total", kind="Deployment") == 1, "scaled once"
    assert operator.metric("kubeagents_operator_api_writes_total", kind="Service") == 0


@pytest.mark.usefixtures("applied")
def test_what_happened_while_the_watches_were_away_for_too_long_is_found_by_listing_again(
    cluster: Cluster,
    namespace: str,
    control_plane: ControlPlane,
    start_operator: StartOperator,
    start_proxy: StartProxy,
    redis_server: RedisServer,
) -> None:
    """Nobody can tell them any more: etcd is compacted, and the API server has just been started. It says 410 Gone."""
    proxy = start_proxy()
    operator = start_operator(kubeconfig=proxy.kubeconfig, KUBEAGENTS_LEASE_DURATION_SECONDS="300").leading()
    cluster.apply(namespace, manifests.agent("other"))
    settled(cluster, namespace, replicas=1)
    eventually(lambda: len(cluster.objects(namespace, "deployments")) == 2, what="both Agents have a Deployment")

    proxy.fault = lambda request: Fault(drop=True) if request.method == "GET" else None
    proxy.cut()
    cluster.kubectl("-n", namespace, "delete", "service/worker-agent")
    cluster.kubectl("-n", namespace, "delete", "agent/other")
    scale(cluster, namespace, 2)
    _compact(control_plane)
    control_plane.stop_api_server()
    control_plane.start_api_server()
    before = len(proxy.requests)
    proxy.fault = lambda request: None

    settled(cluster, namespace, replicas=2)
    eventually(
        lambda: [one for one in cluster.objects(namespace, "services") if one["metadata"]["name"] == "worker-agent"],
        what="the Service is there again",
    )
    eventually(
        lambda: operator.metric("kubeagents_operator_custom_resources") == 2, what="the other Agent is forgotten"
    )
    eventually(
        lambda: not cluster.objects(namespace, "deployments,services", "kubeagents.dev/name=other"),
        what="nothing is left of the other Agent",
        timeout=60,
    )
    listed = [one for one in proxy.requests[before:] if one.method == "GET" and not one.is_watch]
    assert any(one.plural == "agents" for one in listed), "a watch could not be resumed"
    assert operator.leads()


def _compact(plane: ControlPlane) -> None:
    """Let etcd forget the past, by way of its HTTP gateway."""

    def post(path: str, body: dict[str, object]) -> dict[str, object]:
        request = urllib.request.Request(f"{plane.places.etcd_url}{path}", data=json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, object] = json.load(answer)
            return found

    header = post("/v3/kv/range", {"key": "AA=="})["header"]
    assert isinstance(header, dict)
    post("/v3/kv/compaction", {"revision": header["revision"], "physical": True})
