# SPDX-License-Identifier: Apache-2.0
"""Statuses of real objects in every state, as kstatus (Flux, Helm) and Argo CD read them; kept as test data of the Lua.

`make record-statuses` writes what the tests of the states see into `testdata/` beside the Lua scripts, in the layout of
Argo CD's own repository. Without it, the tests hold what they see against what is expected, and against what is
recorded: a change of the operator or of the API that makes a recording out of date fails them.
"""

import os
import re
from typing import Any, Final

import yaml

from kubeagents_api.crdgen import to_yaml
from tests.support import argocd
from tests.support.cluster import Object
from tests.support.kstatus import Status, kstatus

RECORD: Final = "KUBEAGENTS_RECORD_STATUSES"
"""Environment variable: set, statuses are written."""

AGREEMENT: Final[dict[Status, tuple[str, ...]]] = {
    "Terminating": ("Progressing",),
    "InProgress": ("Progressing", "Suspended"),
    "Failed": ("Degraded", "Suspended"),
    "Current": ("Healthy", "Suspended"),
}
"""What Argo CD may say of an object, by what kstatus says. kstatus has no word for what somebody has suspended."""

_HEAD = "# Recorded from a real API server by `make record-statuses`. Do not edit.\n"
_RANDOM = ("uid", "resourceVersion", "managedFields", "ownerReferences", "selfLink")

_PINNED = (
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "2026-01-01T00:00:00Z"),
    (re.compile(r"\b(worker-agent|front-central)-[a-z0-9]{8,10}-[a-z0-9]{5}\b"), r"\1-5d8f7c9b64-x2x4q"),
    (re.compile(r"\bstableRevision: [0-9a-f]{20}\b"), "stableRevision: 57ab1e57ab1e57ab1e57"),
    (re.compile(r"\b(canary|failed)Revision: [0-9a-f]{20}\b"), r"\1Revision: ca4a2fca4a2fca4a2fca"),
)
"""What differs from run to run and says nothing, so that a new recording shows what the operator says otherwise."""


def check(obj: Object, state: str, expected: str) -> None:
    """See that kstatus and Argo CD agree on an object, and that it is what is expected; record it if asked to.

    `expected` is `<kstatus>/<health of Argo CD>`, for example `Current/Healthy`.
    """
    kind = obj["kind"]
    seen = kstatus(obj)
    health, message = argocd.health(kind, obj)
    shown = f"{kind} {state}: {message}\n{yaml.safe_dump(obj.get('status'))}"
    assert f"{seen}/{health}" == expected, shown
    assert health in AGREEMENT[seen], shown
    if os.environ.get(RECORD):
        _write(obj, state)
        return
    before = recorded(kind).get(state)
    assert before is not None, f"{kind} {state} is not recorded: run `make record-statuses`"
    now, then = _outline(obj), _outline(before)
    assert now == then, f"{kind} {state} is recorded otherwise; if that is how it should be, run `make record-statuses`"


def recorded(kind: str) -> dict[str, Object]:
    """State -> object, of a kind."""
    files = sorted((argocd.CUSTOMIZATIONS / kind / "testdata").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


def health_tests(kind: str) -> str:
    """The `health_test.yaml` that Argo CD's own repository would want for what is recorded of a kind."""
    tests = []
    for state, obj in recorded(kind).items():
        if obj["metadata"].get("deletionTimestamp"):
            continue  # Argo CD does not ask the script
        health, message = argocd.health(kind, obj)
        tests.append(
            {"healthStatus": {"status": health, "message": message}, "inputPath": f"testdata/{state}.yaml"},
        )
    return _HEAD + to_yaml({"tests": tests})


def discovery_tests(kind: str) -> str:
    """The `action_test.yaml` of the same: which actions are enabled in which state. What they do, unit tests say."""
    tests = []
    for state, obj in recorded(kind).items():
        actions = sorted(argocd.discover(kind, obj).items())
        result = [{"name": name, "disabled": not enabled} for name, enabled in actions]
        tests.append({"inputPath": f"../testdata/{state}.yaml", "result": result})
    return _HEAD + to_yaml({"discoveryTests": tests})


def _outline(obj: Object) -> dict[str, Any]:
    """What is the same whenever an object gets into a state: its spec with all defaults, which conditions it has in
    which order, and what those say that tools read. Counters and further conditions depend on when one looks."""
    conditions = obj["status"].get("conditions", [])
    read = ("Ready", "Reconciling", "Stalled", "Suspended")
    return {
        "spec": obj["spec"],
        "types": [one["type"] for one in conditions],
        "said": [(one["type"], one["status"], one["reason"]) for one in conditions if one["type"] in read],
        "echoes": sorted(obj["status"].get("handled", {})),
    }


def _write(obj: Object, state: str) -> None:
    kind = obj["kind"]
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _RANDOM}
    metadata["namespace"] = "default"
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if not k.startswith("kubectl.")}
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    text = to_yaml({**obj, "metadata": metadata}).replace(obj["metadata"]["namespace"], "default")
    for pattern, constant in _PINNED:
        text = pattern.sub(constant, text)
    folder = argocd.CUSTOMIZATIONS / kind
    (folder / "testdata").mkdir(parents=True, exist_ok=True)
    (folder / "testdata" / f"{state}.yaml").write_text(_HEAD + text, encoding="utf-8")
    (folder / "health_test.yaml").write_text(health_tests(kind), encoding="utf-8")
    (folder / "actions/action_test.yaml").write_text(discovery_tests(kind), encoding="utf-8")
