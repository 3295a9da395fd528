# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubeagents_api.conditions import Reason
from kubeagents_operator.observed import Pod, Rollout
from kubeagents_operator.status.conditions import Phase, Verdict
from kubeagents_operator.status.rollout import CRASH_LIMIT, Patience, judge
from tests.unit.operator.objects import TEMPLATE, container, ended, pod, rollout

LATE = {"Progressing": ("False", "ProgressDeadlineExceeded", "has timed out")}
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
JUST_NOW, LONG_AGO = "2026-01-01T11:59:00Z", "2026-01-01T11:00:00Z"
TIGHT = 'pods "echo-1" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=3, limited: pods=3'
NO_QUOTA = {"ReplicaFailure": ("True", "FailedCreate", TIGHT)}
NOT_ALLOWED = {"ReplicaFailure": ("True", "FailedCreate", 'pods "echo-1" is forbidden: violates PodSecurity')}


def judged(state: Rollout | None, *pods: Pod, wanted: int = 1, overdue: bool = False) -> Verdict:
    return judge(state, wanted=wanted, template=TEMPLATE, pods=pods, overdue=overdue)


def failing(**fields: Any) -> Pod:
    return pod(containers=(container(**fields),))


def told(reason: str, message: str = "because") -> str:
    return json.dumps({"reason": reason, "message": message})


@pytest.mark.parametrize(
    ("state", "wanted", "phase", "reason"),
    [
        (None, 1, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(), 1, Phase.CURRENT, Reason.AVAILABLE),
        (rollout(wanted=0), 0, Phase.CURRENT, Reason.SCALED_TO_ZERO),
        (rollout(ready=0), 1, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(current=False), 1, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(wanted=3, updated=1), 3, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(wanted=1, replicas=2), 1, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(wanted=1), 3, Phase.PROGRESSING, Reason.ROLLING_OUT),
        (rollout(ready=0, conditions=LATE), 1, Phase.STALLED, Reason.PROGRESS_DEADLINE_EXCEEDED),
        (
            rollout(ready=0, replicas=0, conditions=NO_QUOTA),
            1,
            Phase.PROGRESSING,
            Reason.QUOTA_EXCEEDED,
        ),
        (
            rollout(ready=0, replicas=0, conditions={**NO_QUOTA, **LATE}),
            1,
            Phase.STALLED,
            Reason.QUOTA_EXCEEDED,
        ),
        (rollout(ready=0, replicas=0, conditions=NOT_ALLOWED), 1, Phase.PROGRESSING, Reason.CREATE_FORBIDDEN),
    ],
)
def test_the_verdict_on_a_rollout(state: Rollout | None, wanted: int, phase: Phase, reason: Reason) -> None:
    verdict = judged(state, wanted=wanted)

    assert (verdict.phase, verdict.reason) == (phase, reason)


@pytest.mark.parametrize(
    ("fields", "reason", "at_once"),
    [
        ({"ended": ended(told("HandlerNotFound")), "waiting": "CrashLoopBackOff"}, Reason.HANDLER_NOT_FOUND, True),
        ({"ended": ended(told("HandlerNotFound"))}, Reason.HANDLER_NOT_FOUND, True),
        ({"ended": ended(told("RuntimeConfigInvalid"))}, Reason.RUNTIME_CONFIG_INVALID, True),
        ({"waiting": "ErrImagePull", "message": "no such image"}, Reason.IMAGE_PULL_FAILED, False),
        ({"waiting": "ImagePullBackOff"}, Reason.IMAGE_PULL_FAILED, False),
        ({"waiting": "InvalidImageName"}, Reason.IMAGE_PULL_FAILED, True),
        ({"waiting": "CreateContainerConfigError"}, Reason.CONTAINER_CONFIG_INVALID, False),
        ({"waiting": "CrashLoopBackOff", "restarts": 1, "ended": ended()}, Reason.CRASH_LOOP, False),
        ({"waiting": "CrashLoopBackOff", "restarts": CRASH_LIMIT, "ended": ended()}, Reason.CRASH_LOOP, True),
    ],
)
def test_the_reason_is_in_the_pod(fields: dict[str, Any], reason: Reason, at_once: bool) -> None:
    verdict = judged(rollout(ready=0), failing(**fields))
    late = judged(rollout(ready=0, conditions=LATE), failing(**fields))

    assert (verdict.phase, verdict.reason) == (Phase.STALLED if at_once else Phase.PROGRESSING, reason)
    assert (late.phase, late.reason) == (Phase.STALLED, reason)


def test_a_workload_without_a_deadline_of_its_own_is_told_that_it_is_late() -> None:
    assert judged(rollout(ready=0), overdue=True).phase is Phase.STALLED


def test_a_pod_that_fits_on_no_node_says_so() -> None:
    lonely = pod(unschedulable="0/1 nodes are available: insufficient cpu")

    verdict = judged(rollout(ready=0), lonely)
    late = judged(rollout(ready=0, conditions=LATE), lonely)

    assert (verdict.phase, verdict.reason) == (Phase.PROGRESSING, Reason.UNSCHEDULABLE)
    assert (late.phase, late.reason) == (Phase.STALLED, Reason.UNSCHEDULABLE)
    assert "insufficient cpu" in verdict.message
    assert "insufficient cpu" in late.message


def patience(*, waited: float = 0.0) -> Patience:
    return Patience(limit=300.0, now=NOW, waited=waited)


@pytest.mark.parametrize(
    ("one", "phase"),
    [
        (pod(created=JUST_NOW, unschedulable="no node"), Phase.PROGRESSING),
        (pod(created=LONG_AGO, unschedulable="no node"), Phase.STALLED),
        (replace(failing(waiting="ImagePullBackOff"), created=LONG_AGO), Phase.STALLED),
        (pod(created=JUST_NOW), Phase.PROGRESSING),
        (pod(created=LONG_AGO, unready_since=JUST_NOW), Phase.PROGRESSING),
        (pod(created=LONG_AGO), Phase.STALLED),
        # A pod of long ago whose container has ended once, just now.
        (
            replace(failing(restarts=1, ended=ended()), created=LONG_AGO, unready_since=JUST_NOW),
            Phase.PROGRESSING,
        ),
    ],
)
def test_a_replica_that_is_added_later_has_a_deadline_too(one: Pod, phase: Phase) -> None:
    state = rollout(wanted=3, ready=2)
    verdict = judge(state, wanted=3, template=TEMPLATE, pods=[one], overdue=False, patience=patience())

    assert verdict.phase is phase
    assert verdict.again == (pytest.approx(300 - 60 + 1) if phase is Phase.PROGRESSING else None)


def test_a_pod_that_runs_and_is_not_ready_for_too_long_is_named() -> None:
    pods = [pod("echo-1", created=JUST_NOW), pod("echo-2", created=LONG_AGO), pod("echo-3", ready=True)]
    verdict = judge(
        rollout(wanted=3, ready=1), wanted=3, template=TEMPLATE, pods=pods, overdue=False, patience=patience()
    )

    assert (verdict.phase, verdict.reason) == (Phase.STALLED, Reason.PROGRESS_DEADLINE_EXCEEDED)
    assert "pod echo-2 is not ready" in verdict.message
    assert "go on working" in verdict.message


def test_pods_that_may_not_be_created_have_a_deadline_and_a_message_that_stays() -> None:
    state = rollout(wanted=4, replicas=3, ready=3, conditions=NO_QUOTA)
    early, late = (
        judge(state, wanted=4, template=TEMPLATE, pods=[], overdue=False, patience=patience(waited=waited))
        for waited in (10.0, 301.0)
    )

    assert (early.phase, early.reason) == (Phase.PROGRESSING, Reason.QUOTA_EXCEEDED)
    assert early.again == pytest.approx(291)
    assert (late.phase, late.reason) == (Phase.STALLED, Reason.QUOTA_EXCEEDED)
    assert early.message == late.message
    assert "exceeded quota: tight" in early.message
    assert "echo-1" not in early.message, "another pod with each try"


def test_the_runtimes_own_words_are_the_message() -> None:
    words = "handler 'eco:handle': importing module 'eco' failed: ModuleNotFoundError: No module named 'eco'"

    assert judged(rollout(ready=0), failing(ended=ended(told("HandlerNotFound", words)))).message == words


def test_a_crash_shows_the_last_line_of_the_log() -> None:
    log = "Traceback (most recent call last):\n  File x\nMemoryError: no more\n"
    verdict = judged(rollout(ready=0), failing(waiting="CrashLoopBackOff", restarts=2, ended=ended(log, exit_code=137)))

    assert "exit code 137" in verdict.message
    assert verdict.message.endswith("MemoryError: no more")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        '{"reason": "Mystery", "message": "?"}',
        "[]",
        '"x"',
        '{"a": 1}',
        told("Available"),
        told("Paused"),
    ],
)
def test_a_termination_message_that_is_not_ours_is_a_crash(message: str) -> None:
    verdict = judged(rollout(ready=0), failing(waiting="CrashLoopBackOff", restarts=1, ended=ended(message)))

    assert verdict.reason is Reason.CRASH_LOOP


def test_a_bad_new_version_is_stalled_and_says_that_the_old_one_goes_on() -> None:
    state = rollout(wanted=2, replicas=3, updated=1, ready=2)
    old = [pod(f"old-{number}", ready=True, template="template-0") for number in (1, 2)]

    verdict = judged(state, *old, failing(ended=ended(told("HandlerNotFound"))), wanted=2)

    assert verdict.phase is Phase.STALLED
    assert "go on working" in verdict.message


def test_pods_of_an_older_template_or_on_their_way_out_do_not_count() -> None:
    broken = failing(ended=ended(told("HandlerNotFound")))

    assert judged(rollout(), replace(broken, template="template-0")).phase is Phase.CURRENT
    assert judged(rollout(), replace(broken, deleting=True)).phase is Phase.CURRENT
    assert judged(rollout(), replace(broken, finished=True)).phase is Phase.CURRENT


def test_a_pod_that_recovered_does_not_count() -> None:
    recovered = pod(ready=True, containers=(container(restarts=4, ended=ended(told("HandlerNotFound"))),))

    assert judged(rollout(), recovered).phase is Phase.CURRENT


def test_what_cannot_heal_goes_before_what_may() -> None:
    pods = [
        failing(waiting="ImagePullBackOff"),
        pod("echo-2", containers=(container(ended=ended(told("HandlerNotFound"))),)),
        pod("echo-3", unschedulable="no node"),
    ]

    assert judged(rollout(wanted=3, ready=0), *pods, wanted=3).reason is Reason.HANDLER_NOT_FOUND
    assert judged(rollout(wanted=3, ready=0), pods[0], pods[2], wanted=3).reason is Reason.IMAGE_PULL_FAILED
