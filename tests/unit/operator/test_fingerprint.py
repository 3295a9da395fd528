# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.labels import TEMPLATE_HASH
from kubeagents_operator.fingerprint import digest, of_desired, quantity


def test_names_are_no_part_of_what_is_wanted() -> None:
    desired = {"metadata": {"name": "x", "namespace": "n"}, "spec": {"selector": {"a": "b"}}}

    assert of_desired(desired) == of_desired({**desired, "metadata": {"name": "y", "namespace": "m"}})
    assert of_desired(desired) != of_desired({**desired, "spec": {"selector": {"a": "c"}}})


def test_a_template_counts_by_its_digest_whatever_form_it_has() -> None:
    def of(word: str, replicas: int, **rest: Any) -> bytes:
        template = {"metadata": {"annotations": {TEMPLATE_HASH: word}}, "spec": {"containers": [], **rest}}
        return of_desired({"metadata": {}, "spec": {"replicas": replicas, "template": template}})

    assert of("a", 1) == of("a", 1, restartPolicy="Always")
    assert of("a", 1) != of("a", 2)
    assert of("a", 1) != of("b", 1)


def test_the_order_of_merged_lists_is_irrelevant_that_of_plain_ones_is_not() -> None:
    def of(items: list[Any]) -> bytes:
        return of_desired({"metadata": {}, "items": items})

    assert of([{"name": "a"}, {"name": "b"}]) == of([{"name": "b"}, {"name": "a"}])
    assert of(["a", "b"]) != of(["b", "a"])


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
