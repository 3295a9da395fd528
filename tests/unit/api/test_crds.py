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
        assert {"type", crdgen.INT_OR_STRING, crdgen.ANY_JSON} & set(node), f"{path} has no type"
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
        assert (ROOT / "helm/kubeagents-crds/files" / name).read_text() == text
    for name, text in docgen.generate().items():
        assert (ROOT / "docs/reference" / name).read_text() == text


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as kubectl validates against it: unknown fields are errors."""
    for _, node in list(nodes(schema)):
        if "properties" in node and crdgen.ANY_JSON not in node:
            node["additionalProperties"] = False
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


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
    ("TaskQueue", "{retry: {factor: 0.5}}", "factor"),
    ("TaskQueue", "{retry: {nonRetryableErrors: ['']}}", "nonRetryableErrors"),
    ("TaskQueue", "{taskTtlSeconds: 0}", "taskTtlSeconds"),
    ("TaskQueue", "{limits: {maxDepth: -1}}", "maxDepth"),
    ("TaskQueue", "{limits: {whenFull: Explode, maxDepth: 1}}", "whenFull"),
    ("TaskQueue", "{limits: {rate: {perSeconds: 1}}}", "tasks"),
    ("TaskQueue", "{limits: {perTenant: {rate: {tasks: 0}}}}", "tasks"),
    ("TaskQueue", "{shards: 0}", "shards"),
    ("TaskQueue", "{paused: maybe}", "paused"),
    ("TaskQueue", "{schedules: [{everySeconds: 60}]}", "name"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: -5}]}", "everySeconds"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: 5, timeZone: ../etc/passwd}]}", "timeZone"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: 5, task: {priority: 10}}]}", "priority"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: 5, task: {delaySeconds: 1}}]}", "delaySeconds"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', capabilities: [Not_A_Name]}", "capabilities"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', batch: {maxTasks: 0}}", "maxTasks"),
]


@pytest.mark.parametrize(("kind", "text", "field"), BAD)
def test_schema_and_model_refuse_the_same_specs(kind: str, text: str, field: str) -> None:
    body = {"metadata": {"name": "x"}, "spec": spec(text)}
    with pytest.raises(InvalidManifestError, match=field):
        parse_spec(BY_KIND[kind], body)
    if field != "cpu":  # a quantity is checked by the API server's own code, not by the schema
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft4Validator(closed(schema_of(BY_KIND[kind]))).validate(body)


GOOD = [
    ("Agent", "{queueRef: {name: q}, handler: 'pkg.mod:handle'}"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', replicas: 0, resources: {limits: {cpu: 2, memory: 1Gi}}}"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}"),
    ("CentralAgent", "{queueRefs: [{name: a}, {name: b}], service: {type: NodePort, port: 8080}}"),
    ("TaskQueue", ""),
    ("TaskQueue", "{redis: {external: {secretRef: {name: s}}}, retry: {initialSeconds: 0, maxSeconds: 0}}"),
    ("TaskQueue", "{redis: {managed: {storage: {type: EmptyDir}}}}"),
    ("TaskQueue", "{limits: {maxDepth: 10, whenFull: Shed, rate: {tasks: 5, perSeconds: 60, burst: 1}}}"),
    ("TaskQueue", "{limits: {perTenant: {concurrency: 2, rate: {tasks: 1}}}, paused: true, closed: true, shards: 4}"),
    ("TaskQueue", "{schedules: [{name: a, cron: '*/5 0-6 1,L * MON#1'}, {name: b, everySeconds: 1}]}"),
    ("TaskQueue", "{schedules: [{name: a, cron: '0 6 * * 1', timeZone: America/Argentina/Buenos_Aires}]}"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: 1, task: {payload: {any: [1, null, {deep: true}]}}}]}"),
    ("TaskQueue", "{schedules: [{name: a, everySeconds: 1, task: {payload: text, capability: ocr}}]}"),
    ("TaskQueue", "{retry: {nonRetryableErrors: [TIMEOUT, ValueError], factor: 1, jitter: 0}}"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', capabilities: [ocr, translate], batch: {}}"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_schema_and_model_accept_the_same_specs(kind: str, text: str) -> None:
    body = {"metadata": {"name": "x"}, "spec": spec(text)}
    parse_spec(BY_KIND[kind], body)
    jsonschema.Draft4Validator(schema_of(BY_KIND[kind])).validate(body)


RULE_BREAKERS = [
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: A}]}", "exactly one of value and valueFrom"),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', env: [{name: KUBEAGENTS_X, value: y}]}", "set by the operator"),
    ("CentralAgent", "{queueRefs: [{name: a}, {name: a}]}", "list each name once"),
    ("TaskQueue", "{redis: {}}", "exactly one of managed and external"),
    ("TaskQueue", "{redis: {managed: {}, external: {secretRef: {name: s}}}}", "exactly one of managed and external"),
    ("TaskQueue", "{retry: {initialSeconds: 600}}", "must not be greater than"),
    (
        "TaskQueue",
        "{redis: {managed: {storage: {type: EmptyDir, storageClassName: fast}}}}",
        "storageClassName needs type PersistentVolumeClaim",
    ),
    ("TaskQueue", "{limits: {whenFull: Block}}", "whenFull needs limits.maxDepth"),
    ("TaskQueue", "{schedules: [{name: a}]}", "exactly one of cron and everySeconds"),
    (
        "TaskQueue",
        "{schedules: [{name: a, cron: '* * * * *', everySeconds: 5}]}",
        "exactly one of cron and everySeconds",
    ),
    ("TaskQueue", "{schedules: [{name: a, cron: '@hourly'}]}", "cron needs five fields"),
    ("TaskQueue", "{schedules: [{name: a, cron: '* * * *'}]}", "cron needs five fields"),
    ("TaskQueue", "{schedules: [{name: a, cron: '0 * * * * *'}]}", "cron needs five fields"),
    ("TaskQueue", "{schedules: [{name: a, cron: '* * * * ?'}]}", "cron needs five fields"),
    (
        "TaskQueue",
        "{schedules: [{name: a, everySeconds: 5}, {name: a, everySeconds: 6}]}",
        "give each schedule a name of its own",
    ),
    (
        "TaskQueue",
        "{schedules: [{name: a, everySeconds: 5, task: {agent: x, capability: y}}]}",
        "at most one of agent and capability",
    ),
    ("Agent", "{queueRef: {name: q}, handler: 'a:b', capabilities: [ocr, ocr]}", "list each once"),
]


@pytest.mark.parametrize(("kind", "text", "message"), RULE_BREAKERS)
def test_rules_across_fields_hold_in_dev_mode_too(kind: str, text: str, message: str) -> None:
    with pytest.raises(InvalidManifestError, match=message):
        parse_spec(BY_KIND[kind], {"metadata": {"name": "x"}, "spec": spec(text)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_what_a_rule_reads_is_bounded_so_that_the_api_server_can_bound_its_cost(kind: Kind) -> None:
    for path, node in nodes(schema_of(kind)["properties"]["spec"], "spec"):
        if node.get("type") == "array":
            assert "maxItems" in node, f"{path} may have any number of items"


def test_lists_of_things_with_names_are_maps_so_that_several_writers_may_each_own_some() -> None:
    schedules = schema_of(BY_KIND["TaskQueue"])["properties"]["spec"]["properties"]["schedules"]
    assert schedules["x-kubernetes-list-type"] == "map"
    assert schedules["x-kubernetes-list-map-keys"] == ["name"]
    assert schema_of(BY_KIND["Agent"])["properties"]["spec"]["properties"]["capabilities"][
        "x-kubernetes-list-type"
    ] == ("set")


def test_the_payload_of_a_schedule_is_kept_as_it_is() -> None:
    schedules = schema_of(BY_KIND["TaskQueue"])["properties"]["spec"]["properties"]["schedules"]
    payload = schedules["items"]["properties"]["task"]["properties"]["payload"]
    assert payload[crdgen.ANY_JSON] is True
    assert "type" not in payload


def test_the_reference_pages_name_every_field() -> None:
    page = docgen.api_page()
    for kind in KINDS:
        for path, _ in nodes(schema_of(kind)["properties"]["spec"]):
            if path and not path.endswith("[]"):
                assert f"`{path.strip('.')}" in page
