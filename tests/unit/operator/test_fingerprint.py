# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.labels import FIELD_MANAGER
from kubeagents_operator.fingerprint import cut_out, digest, of_desired, of_live, quantity


def live(fields: dict[str, Any], **content: Any) -> dict[str, Any]:
    entry = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}
    return {"metadata": {"name": "x", "namespace": "n", "managedFields": [entry]}, **content}


SERVICE_FIELDS: dict[str, Any] = {
    "f:spec": {
        "f:selector": {},
        "f:ports": {
            'k:{"port":8080,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}},
        },
    }
}
PORT = {"name": "http", "port": 8080, "protocol": "TCP"}


def test_what_nobody_touched_has_the_fingerprint_of_what_was_applied() -> None:
    desired = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "n"},
        "spec": {"selector": {"a": "b"}, "ports": [PORT]},
    }
    stored = live(SERVICE_FIELDS, spec={"selector": {"a": "b"}, "ports": [PORT]})

    assert of_live({**stored, "status": {}}) == of_live(stored)
    assert cut_out(stored) == {"spec": {"selector": {"a": "b"}, "ports": [PORT]}}
    assert of_desired(desired) == of_desired({**desired, "metadata": {"name": "y", "namespace": "m"}})


def test_defaults_and_fields_of_others_do_not_count() -> None:
    untouched = live(SERVICE_FIELDS, spec={"selector": {"a": "b"}, "ports": [PORT]})
    port = {**PORT, "targetPort": 8080, "nodePort": 30000}
    filled_in = live(
        SERVICE_FIELDS,
        spec={"selector": {"a": "b"}, "ports": [port, {"port": 9, "protocol": "UDP"}], "clusterIP": "10.0.0.1"},
    )

    assert of_live(filled_in) == of_live(untouched)


def test_a_field_that_was_taken_from_us_changes_the_fingerprint() -> None:
    untouched = live({"f:spec": {"f:replicas": {}, "f:paused": {}}}, spec={"replicas": 1, "paused": False})
    # Somebody scaled: the API server moves the ownership of the field to him.
    scaled = live({"f:spec": {"f:paused": {}}}, spec={"replicas": 5, "paused": False})

    assert of_live(scaled) != of_live(untouched)


def test_a_field_that_was_removed_changes_the_fingerprint() -> None:
    fields: dict[str, Any] = {"f:data": {"f:a": {}, "f:b": {}}}

    assert of_live(live(fields, data={"a": "1"})) != of_live(live(fields, data={"a": "1", "b": "2"}))


def test_an_atomic_structure_counts_as_a_whole() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:selector": {}}}

    assert of_live(live(fields, spec={"selector": {"a": "b"}})) != of_live(
        live(fields, spec={"selector": {"a": "b", "c": "d"}})
    )


def test_an_empty_structure_of_ours_stays_empty_whatever_others_put_into_it() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:emptyDir": {".": {}}}}

    assert cut_out(live(fields, spec={"emptyDir": {"medium": "Memory"}})) == {"spec": {"emptyDir": {}}}


def test_the_order_of_merged_lists_is_irrelevant_that_of_plain_ones_is_not() -> None:
    def of(items: list[Any]) -> bytes:
        return of_desired({"metadata": {}, "items": items})

    assert of([{"name": "a"}, {"name": "b"}]) == of([{"name": "b"}, {"name": "a"}])
    assert of(["a", "b"]) != of(["b", "a"])


def test_an_object_that_we_never_applied_has_nothing_of_ours() -> None:
    assert cut_out({"metadata": {"name": "x"}, "data": {"a": "b"}}) == {}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("0.5Gi", "512Mi"),
        ("1024Mi", "1Gi"),
        ("1500Mi", "1500Mi"),
        ("2000M", "2G"),
        ("0.0001", "100u"),
        ("0", "0"),
        ("128", "128"),
    ],
)
def test_a_quantity_is_written_as_the_api_server_stores_it(written: str, stored: str) -> None:
    assert quantity(written) == stored


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity("much")


def test_a_digest_tells_texts_apart_that_only_differ_in_their_borders() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
