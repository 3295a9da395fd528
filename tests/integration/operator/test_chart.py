# SPDX-License-Identifier: Apache-2.0
"""What the charts render, and that a real API server takes it. How they live, with containers, is in tests/e2e."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeagents_api.kinds import KINDS
from kubeagents_api.labels import SCRAPE_SCHEME
from kubeagents_operator.settings import load
from tests.support import argocd
from tests.support.cluster import ROOT, Cluster, KubectlError, Object

CHART, CRD_CHART = ROOT / "helm/kubeagents", ROOT / "helm/kubeagents-crds"

EVERYTHING: dict[str, Any] = {
    "operator": {
        "replicas": 3,
        "concurrency": 4,
        "sampleSeconds": 2.5,
        "logLevel": "debug",
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"cost": "platform"},
        "podAnnotations": {"note": "yes"},
        "serviceAccount": {"annotations": {"role": "none"}},
    },
    "quotas": {"*": {"agents": 100, "tasksPerSecond": 50.5}, "team": {"replicas": 10}},
    "networkPolicy": {
        "enabled": True,
        "metricsFrom": [{"namespaceSelector": {}}],
        "apiServer": {"cidrs": ["10.96.0.1/32"], "ports": [443]},
        "redis": {"cidrs": ["10.1.0.0/16"]},
    },
    "argocd": {"enabled": True},
    "imagePullSecrets": [{"name": "registry"}],
    "commonLabels": {"team": "core"},
    "commonAnnotations": {"contact": "core@example.com"},
}


def render(
    cluster: Cluster, tmp_path: Path, values: dict[str, Any], chart: Path = CHART, *options: str
) -> list[Object]:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    text = cluster.helm("template", "kubeagents", chart, "--namespace", "system", "--values", file, *options)
    return [document for document in yaml.safe_load_all(text) if document]


def one(objects: list[Object], kind: str, name: str = "kubeagents-operator") -> Object:
    return next(obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] == name)


def kinds(objects: list[Object]) -> set[str]:
    return {obj["kind"] for obj in objects}


def environment(objects: list[Object]) -> dict[str, str]:
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_the_api_server_takes_all_that_the_chart_can_render(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(EVERYTHING), encoding="utf-8")
    try:
        cluster.helm("install", "kubeagents", CHART, "--namespace", namespace, "--values", file)
        applied = cluster.get(namespace, "deployment", "kubeagents-operator")
        assert applied["spec"]["replicas"] == 3
        # A second time with the same values: what the API server filled in is no difference.
        cluster.helm("upgrade", "kubeagents", CHART, "--namespace", namespace, "--values", file)
        again = cluster.get(namespace, "deployment", "kubeagents-operator")
        assert again["metadata"]["generation"] == applied["metadata"]["generation"]
    finally:
        cluster.helm("uninstall", "kubeagents", "--namespace", namespace)


def test_the_operator_understands_the_environment_that_the_chart_gives_it(cluster: Cluster, tmp_path: Path) -> None:
    variables = environment(render(cluster, tmp_path, {**EVERYTHING, "operator": {"watchNamespaces": ["a", "b"]}}))
    settings = load({name: value for name, value in variables.items() if name.startswith("KUBEAGENTS_")})

    assert settings.watch_namespaces == ("a", "b")
    assert settings.quotas.keys() == EVERYTHING["quotas"].keys()
    assert settings.quotas["*"].tasks_per_second == 50.5


def test_the_charts_defaults_are_the_operators_own(cluster: Cluster, tmp_path: Path) -> None:
    variables = environment(render(cluster, tmp_path, {}))
    given = {name: value for name, value in variables.items() if name.startswith("KUBEAGENTS_")}
    ours = ("instance", "runtime_image", "redis_image")

    assert load(given).model_dump(exclude=set(ours)) == load({}).model_dump(exclude=set(ours))


@pytest.mark.parametrize("values", [
    {"oprator": {}},
    {"operator": {"replica": 2}},
    {"operator": {"replicas": -1}},
    {"operator": {"watchNamespaces": "team"}},
    {"operator": {"watchNamespaces": ["Team*"]}},
    {"operator": {"serviceAccount": {"nam": "x"}}},
    {"networkPolicy": {"redis": {"ports": [0]}}},
    {"quotas": {"team": {}}},
    {"quotas": {"team": {"agent": 1}}},
    {"quotas": {"te am": {"agents": 1}}},
    {"metrics": {"serviceMonitor": {"interval": "often"}}},
    {"argocd": True},
], ids=str)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused(cluster: Cluster, tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(KubectlError, match="schema"):
        render(cluster, tmp_path, values)


def test_an_install_for_all_namespaces_has_a_cluster_role_and_one_for_some_has_none(
    cluster: Cluster, tmp_path: Path
) -> None:
    everywhere = render(cluster, tmp_path, {})
    somewhere = render(cluster, tmp_path, {"operator": {"watchNamespaces": ["a", "b"]}})

    assert "ClusterRole" in kinds(everywhere)
    assert not {kind for kind in kinds(somewhere) if kind.startswith("Cluster")}
    roles = {(obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in somewhere if obj["kind"] == "Role"}
    assert roles == {("a", "kubeagents-operator"), ("b", "kubeagents-operator"), (None, "kubeagents-operator-lease")}
    assert one(somewhere, "Role")["rules"] == one(everywhere, "ClusterRole")["rules"]
    assert not {"Role", "ClusterRole", "RoleBinding"} & kinds(render(cluster, tmp_path, {"rbac": {"create": False}}))


def test_two_replicas_are_the_default_and_only_several_have_a_disruption_budget(
    cluster: Cluster, tmp_path: Path
) -> None:
    assert one(render(cluster, tmp_path, {}), "Deployment")["spec"]["replicas"] == 2
    assert one(render(cluster, tmp_path, {}), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert "PodDisruptionBudget" not in kinds(render(cluster, tmp_path, {"operator": {"replicas": 1}}))


def test_common_labels_and_annotations_are_on_every_object(cluster: Cluster, tmp_path: Path) -> None:
    monitors = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    objects = render(cluster, tmp_path, {**EVERYTHING, "metrics": monitors})
    objects += render(
        cluster, tmp_path, {key: EVERYTHING[key] for key in ("commonLabels", "commonAnnotations")}, CRD_CHART
    )

    assert {"ServiceMonitor", "PodMonitor", "NetworkPolicy", "CustomResourceDefinition", "ClusterRole"} <= kinds(
        objects
    )
    for obj in objects:
        if obj["kind"] != "ConfigMap":  # its labels are Argo CD's
            assert obj["metadata"]["labels"]["team"] == "core", obj["kind"]
            assert obj["metadata"]["annotations"]["contact"] == "core@example.com", obj["kind"]


def test_a_network_policy_that_names_who_may_ask_for_metrics_lets_the_pod_of_helm_test_in(
    cluster: Cluster, tmp_path: Path
) -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    values = {"networkPolicy": {"enabled": True, "metricsFrom": [prometheus]}}
    objects = render(cluster, tmp_path, values)
    (rule,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    tester, *others = rule["from"]

    assert others == [prometheus]
    labels = one(objects, "Pod", "kubeagents-test")["metadata"]["labels"]
    assert tester["podSelector"]["matchLabels"].items() <= labels.items()
    # It is no operator: neither the policy nor the Service or the disruption budget selects it.
    for selector in (
        one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(objects, "Service")["spec"]["selector"],
        one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert not selector.items() <= labels.items()
    assert (
        "from"
        not in one(render(cluster, tmp_path, {"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]["ingress"][
            0
        ]
    )


def test_monitors_select_what_has_metrics(cluster: Cluster, tmp_path: Path) -> None:
    metrics = {"serviceMonitor": {"enabled": True, "labels": {"release": "prom"}}, "podMonitor": {"enabled": True}}
    objects = render(cluster, tmp_path, {"metrics": metrics, "operator": {"watchNamespaces": ["a"]}})
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")

    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    pods = one(objects, "PodMonitor", "kubeagents-agents")["spec"]
    assert pods["namespaceSelector"] == {"matchNames": ["a"]}
    (relabeling,) = pods["podMetricsEndpoints"][0]["relabelings"]
    label = SCRAPE_SCHEME.replace(".", "_").replace("/", "_")
    assert relabeling["sourceLabels"] == [f"__meta_kubernetes_pod_annotation_{label}"]
    assert relabeling["targetLabel"] == "__scheme__"


def test_the_crd_chart_has_the_definitions_as_they_are_generated(cluster: Cluster, tmp_path: Path) -> None:
    for values, kept in (({}, True), ({"keep": False}, False)):
        rendered = [obj for obj in render(cluster, tmp_path, values, CRD_CHART) if "Definition" in obj["kind"]]
        generated = [yaml.safe_load(_text(path)) for path in sorted((CRD_CHART / "files").glob("*.yaml"))]
        assert [obj["spec"] for obj in rendered] == [obj["spec"] for obj in generated]
        assert len(rendered) == len(KINDS)
        for obj in rendered:
            policy = obj["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
            assert policy == ("keep" if kept else None)


def test_the_operators_chart_has_no_definitions_and_leaves_test_data_out(cluster: Cluster, tmp_path: Path) -> None:
    assert "CustomResourceDefinition" not in kinds(render(cluster, tmp_path, {}, CHART, "--include-crds"))
    cluster.helm("package", CHART, "--destination", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        names = package.getnames()
    assert "kubeagents/files/check_installation.py" in names
    assert not [name for name in names if "testdata" in name or "_test" in name]


def test_argo_cd_gets_the_scripts_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    data = one(render(cluster, tmp_path, {"argocd": {"enabled": True}}), "ConfigMap", "kubeagents-argocd-cm")["data"]

    for kind in (kind.kind for kind in KINDS):
        folder = argocd.CUSTOMIZATIONS / kind
        assert data.pop(f"resource.customizations.health.kubeagents.dev_{kind}") == _text(folder / "health.lua")
        actions = yaml.safe_load(data.pop(f"resource.customizations.actions.kubeagents.dev_{kind}"))
        assert actions["discovery.lua"] == _text(folder / "actions/discovery.lua")
        found = {action["name"]: action["action.lua"] for action in actions["definitions"]}
        scripts = {path.parent.name: _text(path) for path in (folder / "actions").glob("*/action.lua")}
        assert {name: script.rstrip("\n") for name, script in found.items()} == {
            name: script.rstrip("\n") for name, script in scripts.items()
        }
    assert data == {}


def test_the_scripts_go_into_argo_cds_config_map_without_touching_what_is_there(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    labels = {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}
    theirs = {"metadata": {"name": "argocd-cm", "labels": labels}, "data": {"url": "https://argocd.example.com"}}
    cluster.apply(namespace, {"apiVersion": "v1", "kind": "ConfigMap", **theirs})

    values = ("--set", "argocd.enabled=true,argocd.configMap=argocd-cm", "--show-only", "templates/argocd.yaml")
    patch = tmp_path / "argocd-cm.yaml"
    patch.write_text(cluster.helm("template", "kubeagents", CHART, *values), encoding="utf-8")
    cluster.kubectl("-n", namespace, "patch", "configmap", "argocd-cm", "--type=merge", "--patch-file", patch)

    merged = cluster.get(namespace, "configmap", "argocd-cm")
    assert merged["metadata"]["labels"] == labels
    assert merged["data"]["url"] == "https://argocd.example.com"
    assert len(merged["data"]) == 1 + 2 * len(KINDS)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
