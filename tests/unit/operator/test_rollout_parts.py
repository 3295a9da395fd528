# SPDX-License-Identifier: Apache-2.0
"""The parts of a rollout beside its state machine: figures, old templates, the two Deployments, conditions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeagents_api.agent import AgentSpec, RolloutStrategy
from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_api.labels import FIELD_MANAGER, RESTART_HASH, REVISION, TEMPLATE_HASH, TRACK
from kubeagents_api.task import InstanceInfo
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired.agent import AgentInputs, children
from kubeagents_operator.desired.metadata import Manifest
from kubeagents_operator.desired.pods import template_hash
from kubeagents_operator.fingerprint import fingerprint
from kubeagents_operator.rollout import code
from kubeagents_operator.rollout.deployments import arrange, deployment
from kubeagents_operator.rollout.machine import Plan
from kubeagents_operator.rollout.state import State
from kubeagents_operator.rollout.tally import Tally
from kubeagents_operator.rollout.templates import read_back, version_of
from kubeagents_operator.rollout.view import CanaryView, view
from kubeagents_operator.status.conditions import Phase
from tests.unit.operator.objects import DEFAULTS, access, agent_spec, applied, owner

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STRATEGY = RolloutStrategy.model_validate({"steps": [{"percent": 25, "pauseSeconds": 60}, {"percent": 50}]})


def process(name: str, succeeded: int = 0, failed: int = 0, *, revision: str = "new", started: int = 0) -> InstanceInfo:
    return InstanceInfo(
        agent="echo",
        instance=name,
        queue="work",
        version="1",
        concurrency=16,
        running=0,
        succeeded=succeeded,
        failed=failed,
        revision=revision,
        started_at=NOW + timedelta(seconds=started),
        last_beat_at=NOW,
        healthy=True,
    )


def test_attempts_of_all_processes_of_the_version_count() -> None:
    tally = Tally("new")
    tally.take([process("a", 3, 1), process("b", 4), process("s", 90, 9, revision="old")], pods={"a", "b"})

    assert tally.total() == (7, 1)


def test_what_a_process_had_done_still_counts_when_its_pod_starts_again_or_goes() -> None:
    tally = Tally("new")
    tally.take([process("a", 3, 1), process("b", 4)], pods={"a", "b"})
    tally.take([process("a", 1, 0, started=60)], pods={"a"})

    assert tally.total() == (8, 1)
    tally.take([process("b", 5), process("a", 2, 0, started=60)], pods={"a"})  # it was only silent
    assert tally.total() == (10, 1)


def test_an_earlier_try_with_the_same_version_does_not_count() -> None:
    tally = Tally("new")
    tally.take([process("before", 0, 50), process("a", 1)], pods={"a"})

    assert tally.total() == (1, 0)


def test_a_process_that_does_not_say_its_version_has_that_of_its_pod() -> None:
    tally = Tally("new")
    tally.take([process("a", 3, revision=""), process("s", 90, revision="")], pods={"a"})

    assert tally.total() == (3, 0)


def test_figures_go_on_after_a_restart_of_the_operator() -> None:
    tally = Tally("new", succeeded=10, failed=2)  # of which 6 and 1 are of a process that is gone
    assert tally.total() == (10, 2), "there is no sample yet"
    tally.take([process("a", 4, 1)], pods={"a"})
    assert tally.total() == (10, 2)
    tally.take([process("a", 9, 1)], pods={"a"})
    assert tally.total() == (15, 2)


def manifests(**spec: Any) -> list[Manifest]:
    made: AgentSpec = agent_spec(replicas=8, **spec)
    return children(
        AgentInputs(owner(), made, TaskQueueSpec(), access(), replicas=8, code_digest="abcdef0123456789"), DEFAULTS
    )


def stable_of(made: list[Manifest]) -> Manifest:
    found = deployment(made, "echo-agent")
    assert found is not None
    return found


def test_an_old_template_is_read_back_as_it_was_applied() -> None:
    old = stable_of(manifests(image="old:1", env=[{"name": "B", "value": "1"}, {"name": "A", "value": "2"}]))
    template = read_back(applied(old))

    assert fingerprint(template) == fingerprint(old["spec"]["template"])
    assert [one["name"] for one in template["spec"]["containers"][0]["env"]][-2:] == ["B", "A"], "the order matters"
    assert version_of(template) == version_of(old["spec"]["template"])


def test_of_lists_that_are_merged_the_order_and_the_items_of_others_stay_as_they_are() -> None:
    env = [{"name": "B", "value": "1"}, {"name": "INJECTED", "value": "x"}, {"name": "A", "value": "2"}]
    container = {"name": "runtime", "image": "old:1", "env": env, "imagePullPolicy": "Always"}
    sidecar = {"name": "proxy", "image": "proxy:1"}
    template = {"metadata": {"annotations": {REVISION: "old"}}, "spec": {"containers": [sidecar, container]}}
    named: dict[str, Any] = {".": {}, "f:name": {}, "f:value": {}}
    first = {"f:name": {}, "f:image": {}, "f:env": {'k:{"name":"A"}': named}}
    second = {"f:env": {".": {}, 'k:{"name":"B"}': named}}
    entries = [_entry(first, how="Apply"), _entry(second), {**_entry({"f:imagePullPolicy": {}}), "manager": "kubectl"}]

    read = read_back({"metadata": {"managedFields": entries}, "spec": {"template": template}})

    expected = {"name": "runtime", "image": "old:1", "env": [env[0], env[2]]}
    assert read["spec"]["containers"] == [expected]


def _entry(container: dict[str, Any], how: str = "Update") -> dict[str, Any]:
    fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"runtime"}': {".": {}, **container}}}}}}
    return {"manager": FIELD_MANAGER, "operation": how, "fieldsV1": fields}


def test_without_managed_fields_the_whole_template_stays() -> None:
    live = {**stable_of(manifests()), "status": {}}
    live["spec"]["template"]["metadata"]["creationTimestamp"] = None
    live["spec"]["template"]["spec"]["restartPolicy"] = "Always"

    template = read_back(live)

    assert template["spec"]["restartPolicy"] == "Always"
    assert "creationTimestamp" not in template["metadata"]


def test_the_old_version_stays_in_one_deployment_and_the_new_one_is_in_the_other() -> None:
    old = stable_of(manifests(image="old:1"))["spec"]["template"]
    made = arrange(manifests(image="new:1"), Plan(None, keeps="x", stable=6, canary=2), owner=owner(), kept=old)
    stable, canary = stable_of(made), deployment(made, "echo-agent-canary")

    assert canary is not None
    assert made.index(canary) < made.index(stable)
    assert (stable["spec"]["replicas"], stable["spec"]["template"]) == (6, old)
    assert canary["spec"]["replicas"] == 2
    assert canary["spec"]["template"]["spec"]["containers"][0]["image"] == "new:1"
    everybody, new = stable["spec"]["selector"]["matchLabels"], canary["spec"]["selector"]["matchLabels"]
    labels = canary["spec"]["template"]["metadata"]["labels"]
    assert everybody.items() <= labels.items(), "the Service and the scale subresource select both"
    assert new.items() <= labels.items()
    assert not new.items() <= old["metadata"]["labels"].items()
    assert TRACK in new
    assert template_hash(canary) != template_hash(stable_of(manifests(image="new:1"))), "their pods are told apart"


def test_without_a_canary_the_children_are_the_same() -> None:
    made = manifests()

    assert arrange(made, Plan(None, keeps=None, stable=8), owner=owner(), kept=None) == made


def test_a_restart_replaces_the_pods_of_the_old_version_too() -> None:
    old = stable_of(manifests(image="old:1"))["spec"]["template"]
    fresh = stable_of(manifests(image="new:1"))
    fresh["spec"]["template"]["metadata"]["annotations"][RESTART_HASH] = "restarted"
    plan = Plan(None, keeps="x", stable=6, canary=2)

    kept = stable_of(arrange([fresh], plan, owner=owner(), kept=old))["spec"]["template"]

    before, after = old["metadata"]["annotations"], kept["metadata"]["annotations"]
    assert after[RESTART_HASH] == "restarted"
    assert after[TEMPLATE_HASH] != before[TEMPLATE_HASH]
    assert after[REVISION] == before[REVISION]
    again = stable_of(arrange([fresh], plan, owner=owner(), kept=kept))["spec"]["template"]
    assert again == kept, "once"


def revision(made: list[Manifest]) -> str:
    return version_of(stable_of(made)["spec"]["template"])


@pytest.mark.parametrize(
    "spec",
    [
        {"image": "other:1"},
        {"handler": "echo:other"},
        {"concurrency": 2},
        {"env": [{"name": "A", "value": "1"}]},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"queueRef": {"name": "other"}},
    ],
)
def test_what_makes_another_version(spec: dict[str, Any]) -> None:
    assert revision(manifests(**spec)) != revision(manifests())


def test_what_makes_no_other_version() -> None:
    inputs = AgentInputs(owner(), agent_spec(), TaskQueueSpec(), access(), replicas=1)
    plain = children(inputs, DEFAULTS)
    others = [
        replace(inputs, replicas=5),
        replace(inputs, restarted_at="noon"),
        replace(inputs, env_digest="rotated"),
        replace(inputs, access=access(of="another-secret", digest="rotated")),
        replace(inputs, queue=TaskQueueSpec.model_validate({"leaseSeconds": 99})),
        replace(inputs, spec=agent_spec(rollout={"steps": [{"percent": 10}]})),
        replace(inputs, spec=agent_spec(suspend=True, replicas=3)),
    ]

    assert {revision(children(one, DEFAULTS)) for one in others} == {revision(plain)}


def test_each_version_has_its_own_copy_of_the_code() -> None:
    source = {"code": {"configMapRef": {"name": "files"}}}
    strategy = {"rollout": {"steps": [{"percent": 10}]}}

    assert code.mounted(manifests(**source)) == {"files"}
    assert code.mounted(manifests(**source, **strategy)) == {"echo-agent-code-abcdef0123"}
    assert revision(manifests(**source)) == revision(manifests(**source, **strategy))


TRYING = State(stable="old", canary="new", step=1)
STARTED = replace(TRYING, step_started_at=NOW)


def seen_as(state: State | None, *, strategy: RolloutStrategy | None = STRATEGY, replicas: int = 8) -> CanaryView:
    return view(Plan(state, keeps=None, stable=8), strategy, replicas=replicas)


@pytest.mark.parametrize(
    ("state", "holds", "reason", "phase"),
    [
        (State(stable="new"), "True", Reason.NO_CANARY, None),
        (TRYING, "True", Reason.CANARY_RUNNING, Phase.PROGRESSING),
        (STARTED, "True", Reason.CANARY_RUNNING, Phase.PROGRESSING),
        (replace(STARTED, step=2), "True", Reason.CANARY_RUNNING, Phase.PROGRESSING),
        (replace(STARTED, step=2, succeeded=20), "True", Reason.CANARY_WAITING, Phase.PROGRESSING),
        (State(stable="new", canary="new"), "True", Reason.CANARY_RUNNING, Phase.PROGRESSING),
        (State(stable="old", failed="new", failure="3 of 9 failed"), "False", Reason.CANARY_FAILED, Phase.STALLED),
    ],
)
def test_what_the_conditions_say(state: State, holds: str, reason: Reason, phase: Phase | None) -> None:
    seen = seen_as(state)

    assert seen.fact is not None
    assert (seen.fact.type, seen.fact.status, seen.fact.reason) == (ConditionType.CANARY_HEALTHY, holds, reason)
    assert (seen.verdict.phase if seen.verdict else None) == phase


def test_nobody_waits_for_a_canary_without_replicas_but_a_failure_stays_one() -> None:
    assert seen_as(TRYING, replicas=0).verdict is None
    failed = seen_as(State(stable="old", failed="new", failure="it crashes"), replicas=0)
    assert failed.verdict is not None
    assert "it crashes" in failed.verdict.message


def test_without_a_strategy_there_is_no_condition() -> None:
    seen = seen_as(None, strategy=None)

    assert (seen.verdict, seen.fact, seen.fields) == (None, None, {"rollout": None})
