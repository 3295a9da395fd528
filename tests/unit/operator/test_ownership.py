# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.labels import FIELD_MANAGER
from kubeagents_operator import ownership

MANIFEST: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "x", "namespace": "n", "labels": {"a": "b"}, "ownerReferences": [{"uid": "1"}]},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [{"name": "main", "image": "i", "command": ["run"]}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }
        },
    },
}
CONTAINER: dict[str, Any] = {".": {}, "f:name": {}, "f:image": {}, "f:command": {}, "f:terminationMessagePath": {}}
FIELDS: dict[str, Any] = {
    "f:metadata": {
        "f:labels": {".": {}, "f:a": {}},
        "f:annotations": {".": {}, "f:kubeagents.dev/applied": {}},
        "f:ownerReferences": {".": {}, 'k:{"uid":"1"}': {}},
    },
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:containers": {'k:{"name":"main"}': CONTAINER},
                "f:volumes": {".": {}, 'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
            }
        },
    },
}
"""As the API server records a POST: a default of its own is among them."""


def live(fields: dict[str, Any], **entry: Any) -> dict[str, Any]:
    entries = [{"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": fields, **entry}]
    return {"metadata": {"name": "x", "namespace": "n", "managedFields": entries}}


def less(*path: str) -> dict[str, Any]:
    """FIELDS without one of them."""

    def cut(tree: dict[str, Any], steps: tuple[str, ...]) -> dict[str, Any]:
        if len(steps) == 1:
            return {name: below for name, below in tree.items() if name != steps[0]}
        return {**tree, steps[0]: cut(tree[steps[0]], steps[1:])}

    return cut(FIELDS, path)


def test_an_object_that_nobody_touched_is_covered() -> None:
    wanted, _ = ownership.stamped(MANIFEST)

    assert ownership.covers(ownership.owned(live(FIELDS)), wanted)


@pytest.mark.parametrize(
    "path",
    [
        ("f:spec", "f:replicas"),
        ("f:metadata", "f:labels", "f:a"),
        ("f:metadata", "f:annotations", "f:kubeagents.dev/applied"),
        ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"main"}', "f:image"),
        ("f:spec", "f:template", "f:spec", "f:containers"),
        ("f:spec", "f:template", "f:spec", "f:volumes", 'k:{"name":"tmp"}', "f:emptyDir"),
    ],
    ids=lambda path: path[-1],
)
def test_a_field_that_was_taken_from_us_is_missed(path: tuple[str, ...]) -> None:
    wanted, _ = ownership.stamped(MANIFEST)

    assert not ownership.covers(ownership.owned(live(less(*path))), wanted)


def test_what_others_own_or_what_is_a_status_is_not_ours() -> None:
    wanted, _ = ownership.stamped(MANIFEST)

    assert not ownership.covers(ownership.owned(live(FIELDS, manager="kubectl")), wanted)
    assert not ownership.covers(ownership.owned(live(FIELDS, subresource="status")), wanted)


def test_objects_of_the_same_shape_share_what_is_known_of_it() -> None:
    other = {**FIELDS, "f:metadata": {**FIELDS["f:metadata"], "f:ownerReferences": {'k:{"uid":"2"}': {}}}}

    assert ownership.owned(live(FIELDS)) is ownership.owned(live(other))


def test_the_digest_changes_with_the_manifest_and_is_not_part_of_itself() -> None:
    wanted, word = ownership.stamped(MANIFEST)

    assert wanted["metadata"]["annotations"] == {"kubeagents.dev/applied": word}
    assert ownership.applied(wanted) == word
    assert ownership.stamped({**MANIFEST, "spec": {}})[1] != word


def test_a_patch_takes_away_what_is_not_wanted_any_more() -> None:
    fields: dict[str, Any] = {
        **FIELDS,
        "f:spec": {
            **FIELDS["f:spec"],
            "f:paused": {},
            "f:template": {
                "f:spec": {
                    "f:nodeSelector": {},
                    "f:containers": {'k:{"name":"main"}': CONTAINER, 'k:{"name":"old"}': {".": {}, "f:name": {}}},
                    "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:configMap": {"f:name": {}}}},
                }
            },
        },
    }

    made = ownership.patch(ownership.owned(live(fields)), MANIFEST)

    assert made["spec"]["paused"] is None
    pod = made["spec"]["template"]["spec"]
    assert pod["nodeSelector"] is None
    assert pod["containers"] == [
        {"name": "main", "image": "i", "command": ["run"], "terminationMessagePath": None},
        {"$patch": "delete", "name": "old"},
    ]
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {}, "configMap": None}]
    assert made["metadata"]["name"] == "x"
    assert made["metadata"]["ownerReferences"] == [{"uid": "1"}]
