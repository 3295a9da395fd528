# SPDX-License-Identifier: Apache-2.0
"""How a rollout of pods is doing, and if it is not well, what is wrong with which pod.

A Deployment says that it is late, never why. Why is in the pods of the current template: those of an older one may have
any problem, they are on their way out.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.observed import Container, Pod, Rollout, Termination
from kubeagents_operator.status.conditions import (
    Phase,
    Previous,
    Verdict,
    current,
    parse_time,
    progressing,
    stalled,
    with_deadline,
)

TOLD = (Reason.HANDLER_NOT_FOUND, Reason.RUNTIME_CONFIG_INVALID, Reason.REDIS_URL_INVALID)
"""Reasons that a runtime gives for its end. No restart changes them. What else a container writes is not believed."""

CRASH_LIMIT = 3
"""Restarts after which a container that keeps exiting is a matter for people: with the kubelet's backoff, a minute."""

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError"})
_QUOTA = "exceeded quota:"
"""How the API server begins to say which ResourceQuota does not allow more."""
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is wrong with one pod. `final` if it cannot heal."""

    reason: Reason
    message: str
    final: bool
    since: str | None = None
    """Since when the pod has not been ready; None if there is no pod."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pod may have a problem that usually does not heal.

    A Deployment's own deadline is not enough: it holds for rollouts only, so that replicas which are added later and
    fit on no node would be on their way for ever.
    """

    limit: float
    """Seconds."""
    now: datetime
    waited: float
    """Seconds for which the object has not been ready, for problems without a pod."""

    @classmethod
    def of(cls, limit: float, previous: Previous, now: datetime) -> "Patience":
        """As the status of before says."""
        return cls(limit=limit, now=now, waited=previous.lasted(ConditionType.READY, now))

    def with_deadline(self, verdict: Verdict, *, since: str | None) -> Verdict:
        """The verdict on what is the matter since that time; None: for as long as the object has not been ready."""
        lasted = (self.now - parse_time(since)).total_seconds() if since is not None else self.waited
        return with_deadline(verdict, lasted=lasted, limit=self.limit)


def judge(
    rollout: Rollout | None,
    *,
    wanted: int,
    template: str | None,
    pods: Sequence[Pod],
    overdue: bool,
    patience: Patience | None = None,
) -> Verdict:
    """The verdict on a Deployment or StatefulSet.

    `template` is the digest of the wanted pod template, None if it cannot be computed now; `overdue` says that its
    deadline has passed, and `patience` how long single pods may have problems.
    """
    ours = [pod for pod in pods if template in (None, pod.template) and not pod.deleting and not pod.finished]
    problem = _worst(problem for pod in ours if (problem := _problem(pod)) is not None)
    keeps = ""
    if rollout is not None and rollout.available > 0:
        keeps = "; pods that were ready before go on working"
    if problem is not None and problem.final:
        return stalled(problem.reason, problem.message + keeps)
    if rollout is None or not rollout.current:
        return progressing(Reason.ROLLING_OUT, "pods are being created")
    if problem is None and rollout.conditions.get("ReplicaFailure", ("",))[0] == "True":
        problem = _refused(rollout.conditions["ReplicaFailure"][2])
    if rollout.updated == rollout.replicas == rollout.available == wanted:
        if wanted == 0:
            return current(Reason.SCALED_TO_ZERO, "no replica is wanted; tasks wait in the queue")
        return current(Reason.AVAILABLE, "all replicas are ready")
    late = overdue or rollout.conditions.get("Progressing", ("", "", ""))[1] == "ProgressDeadlineExceeded"
    if problem is not None:
        if late:
            return stalled(problem.reason, problem.message + keeps)
        verdict = progressing(problem.reason, problem.message + keeps)
        return patience.with_deadline(verdict, since=problem.since) if patience is not None else verdict
    verdict = progressing(Reason.ROLLING_OUT, "pods are being started or replaced")
    slowest = min((pod for pod in ours if not pod.ready), key=_unready_since, default=None)
    if patience is not None and slowest is not None:
        verdict = patience.with_deadline(verdict, since=_unready_since(slowest))
    if late or verdict.phase is Phase.STALLED:
        who = f"pod {slowest.name} is" if slowest is not None else "the pods are"
        return stalled(
            Reason.PROGRESS_DEADLINE_EXCEEDED,
            f"{who} not ready, though the deadline is over: see log and Events{keeps}",
        )
    return verdict


def refusal(message: str) -> Reason:
    """Why the API server refuses to create or change an object."""
    return Reason.QUOTA_EXCEEDED if _QUOTA in message else Reason.CREATE_FORBIDDEN


def _refused(message: str) -> _Problem:
    """The ReplicaSet may create no pods. Before the quota's words, the message has the name of the pod that was tried:
    another one with each try."""
    words = message[message.index(_QUOTA) :] if _QUOTA in message else message
    return _Problem(refusal(message), f"pods cannot be created: {words}", final=False)


def _worst(problems: Iterable[_Problem]) -> _Problem | None:
    """The final one, else the one that says most."""
    order = list(Reason)
    return min(
        problems,
        key=lambda one: (not one.final, one.reason is Reason.UNSCHEDULABLE, order.index(one.reason)),
        default=None,
    )


def _problem(pod: Pod) -> _Problem | None:
    if pod.ready:
        return None
    if pod.unschedulable is not None:
        return _Problem(Reason.UNSCHEDULABLE, f"no node takes pod {pod.name}: {pod.unschedulable}", False, pod.created)
    problem = _worst(problem for one in pod.containers if (problem := _container_problem(pod, one)) is not None)
    return replace(problem, since=_unready_since(pod)) if problem is not None else None


def _unready_since(pod: Pod) -> str:
    return pod.unready_since or pod.created


def _container_problem(pod: Pod, container: Container) -> _Problem | None:
    where = f"container {container.name} of pod {pod.name}"
    if container.ended is not None and (told := _told(container.ended)) is not None:
        return told
    if container.waiting == "InvalidImageName":
        return _Problem(Reason.IMAGE_PULL_FAILED, f"{where}: {container.waiting_message}", final=True)
    if container.waiting in _PULL:
        return _Problem(Reason.IMAGE_PULL_FAILED, f"{where}: {container.waiting_message}", final=False)
    if container.waiting in _CONFIG:
        return _Problem(Reason.CONTAINER_CONFIG_INVALID, f"{where}: {container.waiting_message}", final=False)
    if container.waiting == "CrashLoopBackOff" or (container.ended is not None and container.restarts > 0):
        how = _how(container.ended)
        return _Problem(Reason.CRASH_LOOP, f"{where} keeps exiting{how}", final=container.restarts >= CRASH_LIMIT)
    return None


def _told(ended: Termination) -> _Problem | None:
    """What the runtime itself says about its end."""
    try:
        said = json.loads(ended.message)
        reason = Reason(said["reason"])
        message = str(said["message"])
    except (ValueError, KeyError, TypeError):
        return None
    return _Problem(reason, message, final=True) if reason in TOLD else None


def _how(ended: Termination | None) -> str:
    if ended is None:
        return ""
    lines = [line.strip() for line in ended.message.splitlines() if line.strip()]
    said = f": {lines[-1][-300:]}" if lines else ""
    return f" with exit code {ended.exit_code} ({ended.reason}){said}"


def is_stalled(verdict: Verdict) -> bool:
    """Somebody has to help."""
    return verdict.phase is Phase.STALLED
