# SPDX-License-Identifier: Apache-2.0
"""Encrypted ports, whose certificates change while they are in use, and Agents that are reached past CentralAgents."""

from base64 import b64encode

import httpx

from tests.e2e import workload
from tests.e2e.nodes import node_ports
from tests.support.certificates import Authority
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually

KEY = "the-key-of-the-root-user"
ACCESS = {"principals": [{"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}]}
PODS = "kubeagents.dev/kind=CentralAgent,kubeagents.dev/name=front"
KUBELET_SECONDS = 240.0
"""Until a kubelet brings the change of a Secret into a pod, at the latest."""


def keys() -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "root-keys"}, "stringData": {"key": KEY}}


def certificate(authority: Authority) -> Object:
    made = authority.server()
    data = {"tls.crt": b64encode(made.certificate).decode(), "tls.key": b64encode(made.key).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "server-certificate"},
        "data": data,
    }


def test_pods_with_tls_are_ready_and_take_a_new_certificate_without_a_restart(cluster: Cluster, namespace: str) -> None:
    old, new = Authority("old"), Authority("new")
    cluster.apply(namespace, keys(), certificate(old))
    central = workload.central_agent(
        replicas=2, service={"type": "NodePort"}, access=ACCESS, tls={"secretRef": {"name": "server-certificate"}}
    )
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), workload.agent(), central)
    pods = set(cluster.ready_pods(namespace, PODS))
    address, ports = node_ports(cluster, namespace, "front-central")

    def queues(authority: Authority) -> httpx.Response:
        """With a new connection, to any of the pods. Raises AssertionError if it shows no certificate of theirs."""
        try:
            with httpx.Client(verify=authority.trusting(), trust_env=False, timeout=30) as client:
                return client.get(
                    f"https://{address}:{ports['http']}/v1/queues",
                    headers={"x-api-key": KEY},
                    extensions={"sni_hostname": "localhost"},
                )
        except httpx.ConnectError as error:
            raise AssertionError(str(error)) from error

    assert queues(old).status_code == 200
    cluster.apply(namespace, certificate(new))
    eventually(
        lambda: all(queues(new).status_code == 200 for _ in range(8)),
        what="both pods show the new certificate",
        timeout=KUBELET_SECONDS,
        every=2,
    )
    assert set(cluster.ready_pods(namespace, PODS)) == pods, "no pod was replaced"


def test_an_agent_with_endpoints_is_reached_through_its_own_service(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, keys(), certificate(Authority()))
    agent = workload.agent(
        replicas=2,
        endpoints=["http", "websocket", "grpc", "mcp", "a2a"],
        access=ACCESS,
        tls={"secretRef": {"name": "server-certificate"}},
    )
    workload.deploy(cluster, namespace, workload.queue(), workload.code(), agent)
    service = f"/api/v1/namespaces/{namespace}/services/https:worker-agent:http/proxy"
    with cluster.api(service) as http:
        assert http.post("/v1/tasks", json={"payload": {"n": 3}}).status_code == 401
        http.headers["x-api-key"] = KEY
        submitted = http.post("/v1/tasks", json={"payload": {"n": 3}})
        assert submitted.status_code == 201, submitted.text
        ended = http.get(f"/v1/queues/work/tasks/{submitted.json()['id']}/result")
        assert (ended.status_code, ended.json()["result"]["square"]) == (200, 9)
    ports = {port["name"]: port["port"] for port in cluster.get(namespace, "service", "worker-agent")["spec"]["ports"]}
    assert ports == {"http": 8080, "grpc": 9090}
