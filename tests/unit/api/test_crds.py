# SPDX-License-Identifier: Apache-2.0
"""The generated CRDs: structural, complete, and saying the same as the models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kubeagents_api import crdgen, docgen
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.kinds import BY_KIND, KINDS, Kind, parse_spec

ROOT = Path(__file__).parents[3]


def schema_of(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crdgen.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_schema_is_structural(kind: Kind) -> None:
    for path, node in nodes(schema_of(kind)):
        assert "type" in node or crdgen.INT_OR_STRING in node, f"{path} has no type"
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & set(node), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_every_field_of_the_user_has_a_description(kind: Kind) -> None:
    for path, node in nodes(schema_of(kind)["properties"]["spec"], "spec"):
        if path != "spec" and not path.endswith("[]"):
            assert node.get("description"), f"{path} has no description: it is what `kubectl explain` shows"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_an_object_that_no_operator_has_seen_is_in_progress(kind: Kind) -> None:
    assert schema_of(kind)["properties"]["status"]["default"] == {"observedGeneration": -1}


@pytest.mark.parametrize("kind", [k for k in KINDS if k.scalable], ids=lambda k: k.kind)
def test_the_scale_subresource_has_a_selector_and_a_default_for_replicas(kind: Kind) -> None:
    version = crdgen.crd(kind)["spec"]["versions"][0]
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert schema_of(kind)["properties"]["spec"]["properties"]["replicas"]["default"] == 1
    assert {"replicas", "selector"} <= set(schema_of(kind)["properties"]["status"]["properties"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    for column in kind.columns:
        node = {"properties": {**schema_of(kind)["properties"], "metadata": {}}}
        if column.json_path.startswith(".metadata"):
            continue
        for part in column.json_path.split("[")[0].strip(".").split("."):
            assert part in node["properties"], f"{column.name}: {column.json_path}"
            node = node["properties"][part]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_default_columns_fit_a_terminal(kind: Kind) -> None:
    assert sum(1 for column in kind.columns if column.priority == 0) <= 7


def test_committed_files_are_what_the_models_say() -> None:
    for name, text in crdgen.generate().items():
        assert (ROOT / "crds" / name).read_text() == text
        assert (ROOT / "helm/kubeagents/crds" / name).read_text() == text
    for name, text in docgen.generate().items():
        assert (ROOT / "docs/reference" / name).read_text() == text


def spec(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text) or {}
    return loaded


BAD = [
    ("Agent", "{handler: 'a:b'}", "queueRef"),
    ("Agent", "{queueRef: {name: q}}", "handler"),
    ("Agent", "{queueRef: {name: q}, handler: 'no colon'}", "handler"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', replicas: -1}", "replicas"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', concurrency: 0}", "concurrency"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', resources: {limits: {cpu: lots}}}", "cpu"),
    ("CentralAgent", "{}", "queueRefs"),
    ("CentralAgent", "{queueRefs: []}", "queueRefs"),
    ("CentralAgent", "{queueRefs: [{name: q}], service: {type: Magic}}", "type"),
    ("TaskQueue", "{retry: {maxAttempts: 0}}", "maxAttempts"),
    ("TaskQueue", "{redis: {managed: {storage: {size: huge}}}}", "size"),
    ("TaskQueue", "{leaseSeconds: 0}", "leaseSeconds"),
]


@pytest.mark.parametrize(("kind", "text", "field"), BAD)
def test_schema_and_model_refuse_the_same_specs(kind: str, text: str, field: str) -> None:
    body = {"metadata": {"name": "x"}, "spec": spec(text)}
    with pytest.raises(InvalidManifestError, match=field):
        parse_spec(BY_KIND[kind], body)
    if field != "cpu":  # a quantity is checked by the API server's own code, not by the schema
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft4Validator(schema_of(BY_KIND[kind])).validate(body)


GOOD = [
    ("Agent", "{queueRef: {name: q}, handler: 'pkg.mod:handle'}"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', replicas: 0, resources: {limits: {cpu: 2, memory: 1Gi}}}"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}"),
    ("CentralAgent", "{queueRefs: [{name: a}, {name: b}], service: {type: NodePort, port: 8080}}"),
    ("TaskQueue", ""),
    ("TaskQueue", "{redis: {external: {secretRef: {name: s}}}, retry: {initialSeconds: 0, maxSeconds: 0}}"),
    ("TaskQueue", "{redis: {managed: {storage: {type: EmptyDir}}}}"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_schema_and_model_accept_the_same_specs(kind: str, text: str) -> None:
    body = {"metadata": {"name": "x"}, "spec": spec(text)}
    parse_spec(BY_KIND[kind], body)
    jsonschema.Draft4Validator(schema_of(BY_KIND[kind])).validate(body)


RULE_BREAKERS = [
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: A}]}", "exactly one of value and valueFrom"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: KUBEAGENTS_X, value: y}]}", "set by the operator"),
    ("CentralAgent", "{queueRefs: [{name: a}, {name: a}]}", "list each queue once"),
    ("TaskQueue", "{redis: {}}", "exactly one of managed and external"),
    ("TaskQueue", "{redis: {managed: {}, external: {secretRef: {name: s}}}}", "exactly one of managed and external"),
    ("TaskQueue", "{retry: {initialSeconds: 600}}", "must not be greater than"),
    (
        "TaskQueue",
        "{redis: {managed: {storage: {type: EmptyDir, storageClassName: fast}}}}",
        "storageClassName needs type PersistentVolumeClaim",
    ),
]


@pytest.mark.parametrize(("kind", "text", "message"), RULE_BREAKERS)
def test_rules_across_fields_hold_in_dev_mode_too(kind: str, text: str, message: str) -> None:
    with pytest.raises(InvalidManifestError, match=message):
        parse_spec(BY_KIND[kind], {"metadata": {"name": "x"}, "spec": spec(text)})


def test_the_reference_pages_name_every_field() -> None:
    page = docgen.api_page()
    for kind in KINDS:
        for path, _ in nodes(schema_of(kind)["properties"]["spec"]):
            if path and not path.endswith("[]"):
                assert f"`{path.strip('.')}" in page
