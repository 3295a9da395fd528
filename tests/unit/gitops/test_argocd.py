# SPDX-License-Identifier: Apache-2.0
"""What our Lua tells Argo CD about objects, and what its actions change: on recorded objects, and on what may come."""

import copy
import re
from typing import Any

import pytest
import yaml

from kubeagents_api.kinds import BY_KIND, KINDS
from tests.support import argocd
from tests.support.cluster import Object
from tests.support.kstatus import kstatus
from tests.support.recording import AGREEMENT, discovery_tests, health_tests, recorded

STATES = [(kind.kind, state) for kind in KINDS for state in recorded(kind.kind)]

SPEC_ACTIONS = [
    ("Agent", "pause", "suspend", True),
    ("Agent", "resume", "suspend", False),
    ("CentralAgent", "pause", "suspend", True),
    ("CentralAgent", "resume", "suspend", False),
    ("TaskQueue", "pause", "paused", True),
    ("TaskQueue", "resume", "paused", False),
    ("TaskQueue", "drain", "closed", True),
    ("TaskQueue", "reopen", "closed", False),
]
ANNOTATION_ACTIONS = [
    ("Agent", "restart", "restartedAt"),
    ("Agent", "promote", "promote"),
    ("CentralAgent", "restart", "restartedAt"),
    ("CentralAgent", "step-down", "stepDown"),
    ("TaskQueue", "replay-dead", "replayDead"),
]


def made(*conditions: str, generation: int = 3, observed: int | None = 3, **spec: Any) -> Object:
    """An object with conditions such as `Ready=True`."""
    status: dict[str, Any] = {
        "conditions": [
            {"type": type_, "status": value, "reason": f"{type_}Reason", "message": f"{type_} message"}
            for type_, _, value in (condition.partition("=") for condition in conditions)
        ]
    }
    if observed is not None:
        status["observedGeneration"] = observed
    return {"metadata": {"name": "x", "generation": generation}, "spec": spec, "status": status}


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_argo_cd_and_kstatus_agree_on_every_recorded_object(kind: str, state: str) -> None:
    obj = recorded(kind)[state]
    health, message = argocd.health(kind, obj)

    assert health in AGREEMENT[kstatus(obj)], message
    assert message


@pytest.mark.parametrize("kind", BY_KIND)
def test_the_test_files_for_argo_cds_own_repository_are_what_the_scripts_say(kind: str) -> None:
    folder = argocd.CUSTOMIZATIONS / kind

    assert (folder / "health_test.yaml").read_text(encoding="utf-8") == health_tests(kind)
    assert (folder / "actions/action_test.yaml").read_text(encoding="utf-8") == discovery_tests(kind)


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_health_and_every_status_is_among_the_recorded_objects(kind: str) -> None:
    objects = recorded(kind).values()

    assert {argocd.health(kind, obj)[0] for obj in objects} == {"Progressing", "Healthy", "Suspended", "Degraded"}
    assert {kstatus(obj) for obj in objects} >= {"InProgress", "Current", "Failed"}


@pytest.mark.parametrize("kind", BY_KIND)
def test_recorded_objects_are_such_as_the_api_of_now_allows(kind: str) -> None:
    for obj in recorded(kind).values():
        BY_KIND[kind].spec.model_validate(obj["spec"])
        BY_KIND[kind].status.model_validate(obj["status"])


RULES = [
    (made(observed=None), "Progressing", "has not seen the object yet"),
    (made(observed=-1), "Progressing", "has not seen the object yet"),
    (made("Ready=True", observed=2), "Progressing", "latest change"),
    (made("Stalled=True", "Ready=False", observed=2), "Progressing", "latest change"),
    (made("Ready=True", suspend=True), "Suspended", "Suspended"),
    (made("Ready=True", "Suspended=True"), "Suspended", "Suspended message"),
    (made("Ready=False", "Stalled=True", "Suspended=True"), "Suspended", "also StalledReason: Stalled message"),
    (made("Ready=False", "Stalled=True"), "Degraded", "StalledReason: Stalled message"),
    (made("Ready=True"), "Healthy", "ReadyReason: Ready message"),
    (made("Ready=True", "DeadLettering=True"), "Healthy", "; DeadLetteringReason: DeadLettering message"),
    (made("Ready=True", "CanaryHealthy=False"), "Healthy", "; CanaryHealthyReason"),
    (made("Ready=False", "Reconciling=True"), "Progressing", "ReconcilingReason: Reconciling message"),
    (made("Ready=False", "Reconciling=False", "Stalled=False"), "Degraded", "ReadyReason: Ready message"),
    (made("Ready=Unknown"), "Progressing", "has not said yet"),
    (made(), "Progressing", "has not said yet"),
]


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.parametrize(("obj", "health", "words"), RULES)
def test_the_rules_of_health_are_asked_in_their_order(kind: str, obj: Object, health: str, words: str) -> None:
    said, message = argocd.health(kind, obj)

    assert said == health
    assert words in message


@pytest.mark.parametrize("kind", BY_KIND)
def test_an_object_without_any_status_is_in_progress(kind: str) -> None:
    assert argocd.health(kind, {"metadata": {"name": "x", "generation": 1}})[0] == "Progressing"


def test_all_kinds_have_the_same_health_check() -> None:
    assert len({(argocd.CUSTOMIZATIONS / kind / "health.lua").read_text(encoding="utf-8") for kind in BY_KIND}) == 1


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_action_that_is_offered_has_a_script_and_every_script_is_offered(kind: str) -> None:
    scripts = {path.parent.name for path in (argocd.CUSTOMIZATIONS / kind / "actions").glob("*/action.lua")}

    assert set(argocd.discover(kind, made())) == scripts
    assert scripts == {action for one, action, *_ in (*SPEC_ACTIONS, *ANNOTATION_ACTIONS) if one == kind}


@pytest.mark.parametrize(("kind", "action", "field", "value"), SPEC_ACTIONS)
def test_an_action_on_the_spec_sets_one_field_and_is_offered_until_it_has(
    kind: str, action: str, field: str, value: bool
) -> None:
    obj = recorded(kind)["ready"]
    obj["spec"][field] = not value
    assert argocd.discover(kind, obj)[action]

    after = argocd.act(kind, action, obj)

    assert after == {**obj, "spec": {**obj["spec"], field: value}}
    assert not argocd.discover(kind, after)[action]


@pytest.mark.parametrize(("kind", "action", "annotation"), ANNOTATION_ACTIONS)
@pytest.mark.parametrize("annotated", [True, False])
def test_an_action_by_annotation_sets_the_time_and_nothing_else(
    kind: str, action: str, annotation: str, annotated: bool
) -> None:
    obj = recorded(kind)["ready"]
    obj["metadata"].pop("annotations", None)
    if annotated:
        obj["metadata"]["annotations"] = {"team": "core"}

    after = copy.deepcopy(argocd.act(kind, action, obj))

    time = after["metadata"]["annotations"].pop(f"kubeagents.dev/{annotation}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert after["metadata"].pop("annotations") == ({"team": "core"} if annotated else {})
    obj["metadata"].pop("annotations", None)
    assert after == obj


@pytest.mark.parametrize(("kind", "action", "state"), [
    ("Agent", "restart", "suspended"),
    ("Agent", "promote", "ready"),
    ("CentralAgent", "restart", "suspended"),
    ("CentralAgent", "step-down", "without-leader"),
    ("TaskQueue", "replay-dead", "ready"),
])  # fmt: skip
def test_an_action_that_would_do_nothing_is_not_offered(kind: str, action: str, state: str) -> None:
    assert not argocd.discover(kind, recorded(kind)[state])[action]


def test_scripts_find_no_way_out_of_the_sandbox() -> None:
    forbidden = re.compile(r"\b(io|string|math|debug|loadstring|dofile|loadfile)\b")
    for script in argocd.CUSTOMIZATIONS.rglob("*.lua"):
        assert not forbidden.search(script.read_text(encoding="utf-8")), script


def test_recorded_files_name_nobodys_machine() -> None:
    for kind in BY_KIND:
        for state, obj in recorded(kind).items():
            assert obj["metadata"]["namespace"] == "default", state
            assert "/tmp/" not in yaml.safe_dump(obj), state
