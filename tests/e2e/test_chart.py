# SPDX-License-Identifier: Apache-2.0
"""The charts over their life: install for one namespace, test, upgrade, roll back, uninstall; agents go on meanwhile.

Each test has a release of its own that serves namespaces of its own. The operator for all namespaces rests.
"""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kubeagents_api import crdgen
from tests.cluster import chart
from tests.e2e import workload
from tests.support.cluster import ROOT, Cluster, KubectlError
from tests.support.eventually import eventually

pytestmark = pytest.mark.alone

CHART = ROOT / "helm/kubeagents"
CRD_CHART = ROOT / "helm/kubeagents-crds"

RESTRICTED = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/enforce-version=latest")


@dataclass(frozen=True)
class Tenant:
    """A release in a namespace of its own, and the one namespace that it serves."""

    cluster: Cluster
    system: str
    namespace: str

    def helm(self, *arguments: str | Path) -> str:
        return self.cluster.helm(*arguments, "--namespace", self.system)

    def upgrade(self, *values: str) -> None:
        """`helm upgrade --install` with some values besides those that the test needs."""
        given = ",".join((f"operator.watchNamespaces={{{self.namespace}}}", chart.images(self.cluster.handle), *values))
        self.helm("upgrade", "--install", "tenant", CHART, "--set", given, "--wait", "--timeout", "120s")

    def deployment(self) -> dict[str, object]:
        spec: dict[str, object] = self.cluster.get(self.system, "deployment", "kubeagents-operator")["spec"]
        return spec

    def lives(self) -> dict[str, tuple[str, int]]:
        """Pod -> uid and restarts, of the workload's pods."""
        return {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
            for pod in self.cluster.objects(self.namespace, "pods")
        }

    def deploy(self) -> None:
        """A queue, an agent and a central agent, all Ready."""
        workload.deploy(
            self.cluster,
            self.namespace,
            workload.queue(),
            workload.code(),
            workload.agent(replicas=2),
            workload.central_agent(),
        )

    def scale_agent(self, replicas: int) -> None:
        """Somebody must be in charge for this to show in the status."""
        self.cluster.kubectl("-n", self.namespace, "scale", "agent/worker", f"--replicas={replicas}")
        self.cluster.wait(self.namespace, "agent/worker", f"jsonpath={{.status.ready}}={replicas}/{replicas}")


@pytest.fixture(scope="module")
def resting(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster while the operator for all namespaces is stopped."""
    cluster.stop_operator()
    yield cluster
    chart.install(cluster.handle)
    cluster.start_operator()


@pytest.fixture
def tenant(resting: Cluster) -> Iterator[Tenant]:
    """A release with one replica. Both of its namespaces admit pods of the `restricted` standard only."""
    suffix = uuid.uuid4().hex[:6]
    made = Tenant(resting, f"tenant-system-{suffix}", f"tenant-{suffix}")
    for namespace in (made.system, made.namespace):
        resting.kubectl("create", "namespace", namespace)
        resting.kubectl("label", "namespace", namespace, *RESTRICTED)
    made.upgrade("operator.replicas=1")
    yield made
    print(
        resting.kubectl(
            "-n", made.system, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=100", "--ignore-errors"
        )
    )
    for namespace in (made.namespace, made.system):
        resting.kubectl("delete", "namespace", namespace, "--wait=false")


def may(cluster: Cluster, user: str, verb: str, resource: str, namespace: str, *options: str) -> bool:
    """Whether the API server would let somebody do it."""
    try:
        cluster.kubectl("auth", "can-i", verb, resource, "-n", namespace, f"--as={user}", "-q", *options)
    except KubectlError:
        return False
    return True


def test_an_install_for_one_namespace_has_no_rights_in_others_and_serves_its_own(tenant: Tenant) -> None:
    cluster, account = tenant.cluster, f"system:serviceaccount:{tenant.system}:kubeagents-operator"
    own, others = tenant.namespace, "default"

    assert may(cluster, account, "patch", "deployments.apps", own)
    assert may(cluster, account, "patch", "agents.kubeagents.dev", own, "--subresource=status")
    assert not may(cluster, account, "patch", "agents.kubeagents.dev", own)
    assert not may(cluster, account, "list", "secrets", others)
    assert not may(cluster, account, "list", "secrets", tenant.system)
    assert not may(cluster, account, "list", "agents.kubeagents.dev", others)

    tenant.deploy()
    cluster.apply("default", workload.queue("elsewhere"))
    try:
        tenant.scale_agent(3)
        assert cluster.get("default", "taskqueue", "elsewhere")["status"] == {"observedGeneration": -1}
    finally:
        cluster.kubectl("-n", "default", "delete", "taskqueue/elsewhere")


def test_helm_test_says_what_works_and_what_does_not(tenant: Tenant) -> None:
    printed = tenant.helm("test", "tenant", "--logs")
    assert "the API server serves agents, centralagents and taskqueues" in printed
    assert "is in charge" in printed

    tenant.cluster.kubectl("-n", tenant.system, "scale", "deployment/kubeagents-operator", "--replicas=0")
    eventually(
        lambda: not tenant.cluster.objects(tenant.system, "pods", "app.kubernetes.io/component=operator"),
        what="the operator's pods are gone",
        timeout=60,
    )
    with pytest.raises(KubectlError):
        tenant.helm("test", "tenant", "--timeout", "120s")
    said = tenant.cluster.kubectl("-n", tenant.system, "logs", "kubeagents-test")
    assert "ok: the API server serves" in said
    assert "FAILED: A replica that is ready answers" in said
    assert "nobody holds the Lease" in said


def test_an_upgrade_and_its_rollback_restart_the_operator_and_no_agent(tenant: Tenant) -> None:
    tenant.deploy()
    before, lives = tenant.deployment(), tenant.lives()

    tenant.upgrade(
        "operator.replicas=2", "operator.concurrency=3", "commonLabels.team=core", "networkPolicy.enabled=true"
    )
    assert tenant.deployment()["replicas"] == 2
    budget = tenant.cluster.get(tenant.system, "pdb", "kubeagents-operator")
    assert budget["spec"]["maxUnavailable"] == 1
    assert (
        tenant.cluster.get(tenant.system, "networkpolicy", "kubeagents-operator")["metadata"]["labels"]["team"]
        == "core"
    )
    assert tenant.lives() == lives
    tenant.scale_agent(3)
    lives = tenant.lives()

    tenant.helm("rollback", "tenant", "--wait", "--timeout", "120s")
    assert tenant.deployment() == before
    assert not tenant.cluster.objects(tenant.system, "pdb,networkpolicies")
    assert tenant.lives() == lives
    tenant.scale_agent(2)


def test_an_upgrade_that_cannot_start_leaves_the_old_operator_in_charge(tenant: Tenant) -> None:
    tenant.deploy()

    values = "operator.image=nowhere.invalid/operator:1"
    with pytest.raises(KubectlError):
        tenant.helm("upgrade", "tenant", CHART, "--reuse-values", "--set", values, "--wait", "--timeout", "10s")

    tenant.scale_agent(3)
    tenant.helm("rollback", "tenant", "--wait", "--timeout", "120s")
    tenant.scale_agent(2)


def test_uninstalling_leaves_custom_resources_and_agents_alone(tenant: Tenant) -> None:
    tenant.deploy()
    lives = tenant.lives()

    tenant.helm("uninstall", "tenant", "--wait")
    assert not tenant.cluster.objects(tenant.system, "deployments,services,roles,rolebindings,pdb")
    with tenant.cluster.central_agent(tenant.namespace, "front") as http:
        work = workload.Workload(tenant.cluster, tenant.namespace, http)
        work.check(work.submit(20))
    assert tenant.lives() == lives

    tenant.upgrade("operator.replicas=1")
    tenant.scale_agent(3)
    assert lives.items() <= tenant.lives().items()


def test_new_definitions_come_and_go_under_running_agents(tenant: Tenant, tmp_path: Path) -> None:
    cluster = tenant.cluster
    tenant.deploy()
    lives = tenant.lives()
    newer = shutil.copytree(CRD_CHART, tmp_path / "kubeagents-crds")
    definition = newer / "files/agents.kubeagents.dev.yaml"
    crd = yaml.safe_load(definition.read_text(encoding="utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["mood"] = {"type": "string", "description": "Has {{ braces }}."}
    definition.write_text(crdgen.to_yaml(crd), encoding="utf-8")
    spec = '{"spec": {"mood": "good"}}'
    patch = ("-n", tenant.namespace, "patch", "agent/worker", "--type=merge", "--warnings-as-errors", "-p", spec)

    def upgrade(folder: Path) -> str:
        return cluster.helm("upgrade", "kubeagents-crds", folder, "--namespace", chart.NAMESPACE, "--force-conflicts")

    with pytest.raises(KubectlError, match="unknown field"):
        cluster.kubectl(*patch)
    try:
        upgrade(newer)
        eventually(lambda: cluster.kubectl(*patch), what="the new field is known")
        eventually(
            lambda: "Has {{ braces }}." in cluster.kubectl("explain", "agent.spec.mood"),
            what="the new field is explained",
        )
        assert cluster.get(tenant.namespace, "agent", "worker")["spec"]["mood"] == "good"
        tenant.scale_agent(3)
    finally:
        cluster.helm("rollback", "kubeagents-crds", "--namespace", chart.NAMESPACE, "--force-conflicts")
    schema = cluster.get(chart.NAMESPACE, "crd", "agents.kubeagents.dev")["spec"]["versions"][0]["schema"]
    assert "mood" not in schema["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert lives.items() <= tenant.lives().items()


def test_uninstalling_the_definitions_keeps_them_and_all_custom_resources(tenant: Tenant) -> None:
    cluster = tenant.cluster
    tenant.deploy()
    lives = tenant.lives()

    cluster.helm("uninstall", "kubeagents-crds", "--namespace", chart.NAMESPACE)
    try:
        assert cluster.get(tenant.namespace, "agent", "worker")["spec"]["replicas"] == 2
    finally:
        chart_arguments = ("kubeagents-crds", CRD_CHART, "--namespace", chart.NAMESPACE, *chart.ADOPT)
        cluster.helm("upgrade", "--install", *chart_arguments)
    assert tenant.lives() == lives
    tenant.scale_agent(3)


def test_users_with_the_clusters_roles_may_use_the_custom_resources(tenant: Tenant) -> None:
    cluster, namespace = tenant.cluster, tenant.namespace
    for role in ("view", "edit"):
        cluster.kubectl("-n", namespace, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er")

    agents = "agents.kubeagents.dev"
    eventually(lambda: may(cluster, "editer", "create", agents, namespace), what="the roles are aggregated")
    assert may(cluster, "viewer", "watch", "taskqueues.kubeagents.dev", namespace)
    assert not may(cluster, "viewer", "update", agents, namespace)
    assert may(cluster, "editer", "patch", agents, namespace, "--subresource=scale")
    assert not may(cluster, "editer", "patch", agents, namespace, "--subresource=status")
