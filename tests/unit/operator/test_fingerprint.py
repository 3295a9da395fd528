# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.labels import FIELD_MANAGER
from kubeagents_operator.fingerprint import cut_out, digest, of_desired, quantity


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


def test_what_is_ours_is_what_was_written() -> None:
    desired = {"metadata": {"name": "x", "namespace": "n"}, "spec": {"selector": {"a": "b"}, "ports": [PORT]}}
    port = {**PORT, "targetPort": 8080, "nodePort": 30000}
    stored = live(
        SERVICE_FIELDS,
        spec={"selector": {"a": "b"}, "ports": [port, {"port": 9, "protocol": "UDP"}], "clusterIP": "10.0.0.1"},
    )

    assert cut_out(stored) == {"spec": {"selector": {"a": "b"}, "ports": [PORT]}}
    assert of_desired(desired) == of_desired({**desired, "metadata": {"name": "y", "namespace": "m"}})


def test_what_was_applied_by_an_older_operator_is_ours_too() -> None:
    stored = live({"f:spec": {"f:replicas": {}}}, spec={"replicas": 1, "paused": True, "other": 1})
    entry = {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    stored["metadata"]["managedFields"].append(entry)

    assert cut_out(stored) == {"spec": {"replicas": 1, "paused": True}}


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
